"""What can be set of the generator ``rlbff``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rubrics.generators.diverse import DIFFERENT


class RlbffOptions(BaseModel):
    """Options of the ``rlbff`` generator. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field("", max_length=200, title="Model", description="As the endpoint calls it.")
    pairs: int = Field(1000, ge=1, le=1_000_000, title="Pairs to read the reasons of")
    least_fuzzy: float = Field(
        60.0,
        ge=0,
        le=100,
        title="A quote's likeness to what was written",
        description="0 to 100, partial ratio: a principle whose quote is no more alike is dropped.",
    )
    least_raters: int = Field(
        2,
        ge=1,
        le=20,
        title="Raters who gave reasons for a pair, at least",
        description="1: the word of one alone is believed.",
    )
    similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        title="Cosine of embeddings from which two principles are one",
    )
    ngram_similarity: float = Field(
        0.45,
        gt=0,
        le=1,
        title="The same, of character n-grams",
        description="Where there is no embedding: a scale of its own.",
    )
    most_criteria: int = Field(50, ge=1, le=500, title="Criteria kept, by their support")
    different: int = DIFFERENT
    max_tokens: int = Field(4096, ge=1, le=32_768, title="Longest reply (tokens)")
    repairs: int = Field(1, ge=0, le=3, title="Times an unreadable reply is asked for again")
    concurrency: int = Field(16, ge=1, le=256, title="Calls at once")
