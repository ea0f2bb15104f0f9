"""What can be set of the generator ``autorubric-t2i``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rubrics.generators.diverse import DIFFERENT


class AutoRubricOptions(BaseModel):
    """Options of the ``autorubric-t2i`` generator. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(
        "",
        max_length=200,
        title="Model",
        description="Explains and proposes; it sees pictures where the answers are pictures.",
    )
    verifier: str = Field(
        "",
        max_length=200,
        title="Verifier",
        description="Scores, best with log-probabilities. Empty: the model.",
    )
    pairs: int = Field(
        256,
        ge=2,
        le=100_000,
        title="Pairs to learn from",
        description="Strong preferences of many prompts first.",
    )
    rules_per_pair: int = Field(8, ge=1, le=50, title="Criteria from one pair at most")
    most_candidates: int = Field(
        40,
        ge=1,
        le=500,
        title="Candidates scored",
        description="Those that most pairs speak for. Each costs two calls a pair.",
    )
    merge_at_once: int = Field(
        200, ge=2, le=1000, title="Criteria in one merging call; more are merged in several passes"
    )
    top: int = Field(20, ge=1, le=200, title="Criteria kept")
    negative: Literal["keep", "drop"] = Field(
        "keep",
        title="Criteria of negative weight",
        description="keep: a yes speaks against the answer.",
    )
    rounds: int = Field(2, ge=0, le=10, title="Rounds aimed at hard pairs")
    hard_pairs: int = Field(16, ge=1, le=1000, title="Hard pairs of a round")
    hard_margin: float = Field(
        0.5,
        ge=0,
        le=100,
        title="Hard from this margin down",
        description="In log-odds: what is ranked wrongly, and what is ranked rightly by less.",
    )
    choose_share: float = Field(
        0.2, gt=0, lt=0.5, title="Share of prompts that choose among the rounds"
    )
    test_share: float = Field(
        0.2, gt=0, lt=0.5, title="Share of prompts that only measure what was chosen"
    )
    choose_pairs: int = Field(64, ge=1, le=100_000, title="Pairs that choose, at most")
    test_pairs: int = Field(128, ge=1, le=100_000, title="Pairs that measure, at most")
    bootstraps: int = Field(
        100, ge=0, le=10_000, title="Draws for the intervals of weights", description="0: none."
    )
    temperature: float = Field(0.0, ge=0, le=2, title="Temperature of traces and proposals")
    max_tokens: int = Field(8192, ge=1, le=32_768, title="Longest reply (tokens)")
    repairs: int = Field(1, ge=0, le=3, title="Times an unreadable reply is asked for again")
    concurrency: int = Field(16, ge=1, le=256, title="Calls at once")
    different: int = DIFFERENT
    seed: int = Field(0, ge=0, lt=2**31, title="Seed")
