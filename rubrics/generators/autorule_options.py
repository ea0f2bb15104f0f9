"""What can be set of the generator ``autorule``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rubrics.generators.diverse import DIFFERENT


class AutoRuleOptions(BaseModel):
    """Options of the ``autorule`` generator. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(
        "",
        max_length=200,
        title="Model",
        description="Explains and extracts, as the endpoint calls it; best one that reasons.",
    )
    verifier: str = Field(
        "",
        max_length=200,
        title="Verifier",
        description="Checks rules one by one: a small model does. Empty: the model.",
    )
    pairs: int = Field(256, ge=1, le=100_000, title="Pairs to explain")
    rules_per_pair: int = Field(8, ge=1, le=50, title="Rules from one pair at most")
    most_rules: int = Field(
        25,
        ge=1,
        le=200,
        title="Rules kept",
        description="Those that most pairs speak for, after merging.",
    )
    merge_at_once: int = Field(
        200, ge=2, le=1000, title="Rules in one merging call; more are merged in several passes"
    )
    concise: bool = Field(
        True,
        title="Met, and met concisely",
        description="A rule counts only where an answer meets it without padding.",
    )
    held_out: float = Field(
        0.25,
        gt=0,
        lt=1,
        title="Share of prompts held out",
        description="No rule is taken from them; rules are verified on them.",
    )
    verify_pairs: int = Field(
        64, ge=0, le=100_000, title="Held-out pairs to verify on", description="0 verifies nothing."
    )
    temperature: float = Field(0.6, ge=0, le=2, title="Temperature of the explanation")
    max_tokens: int = Field(8192, ge=1, le=32_768, title="Longest reply (tokens)")
    repairs: int = Field(1, ge=0, le=3, title="Times an unreadable reply is asked for again")
    concurrency: int = Field(16, ge=1, le=256, title="Calls at once")
    different: int = DIFFERENT
    seed: int = Field(0, ge=0, lt=2**31, title="Seed")
