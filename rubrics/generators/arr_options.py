"""What can be set of the generator ARR."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rubrics.judging.options import MAX_CRITERIA


class ArrOptions(BaseModel):
    """Options of the ``arr`` generator. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        "",
        max_length=200,
        title="Model",
        description="Proposes and refines criteria, as the endpoint calls it.",
    )
    judge: str = Field(
        "",
        max_length=200,
        title="Judging model",
        description="Verifies criteria and measures them. Empty: the same model.",
    )
    mode: Literal["few-shot", "zero-shot"] = Field(
        "few-shot",
        title="Criteria come from",
        description="few-shot: pairs and which answer was preferred; zero-shot: each prompt alone, "
        "without any preference.",
    )
    pairs: int = Field(
        100,
        ge=1,
        le=2000,
        title="Pairs to learn from",
        description="Of more, so many are drawn. In zero-shot mode: prompts.",
    )
    criteria: int = Field(
        5, ge=1, le=20, title="Criteria per pair", description="How many are asked for at once."
    )
    verify: Literal["each", "together"] = Field(
        "each",
        title="Verified",
        description="each: a criterion has to explain the preference alone; together: all criteria "
        "of a pair as one rubric, which costs fewer calls and lets idle criteria ride along.",
    )
    rationales: bool = Field(
        True,
        title="Show what people wrote",
        description="Their reasons, to whoever proposes criteria for a pair. Judges never see them.",
    )
    others: int = Field(
        4,
        ge=1,
        le=20,
        title="Other pairs",
        description="Pairs of other prompts on which criteria are verified, drawn anew in every "
        "round.",
    )
    others_needed: int = Field(
        1,
        ge=1,
        le=20,
        title="Other pairs needed",
        description="On how many more of these the preference must be recovered in both orders "
        "than turned around in both.",
    )
    max_rounds: int = Field(
        3,
        ge=0,
        le=10,
        title="Rounds of refining",
        description="After so many the pair is given up. Each round is another chance for luck.",
    )
    ties: bool = Field(
        True, title="The verifier may call a tie", description="A tie is a failure either way."
    )
    different: int = Field(
        0,
        ge=0,
        le=200,
        title="Most different criteria",
        description="Of the accepted ones, so many that differ most in wording, by coding rate. "
        "0: all.",
    )
    selection: Literal["none", "best-subset", "coding-rate"] = Field(
        "none",
        title="Of the accepted ones",
        description="none: all. best-subset: added one by one, the one that makes most verdicts on "
        "pairs right together, which asks the judge of each. coding-rate: the most different.",
    )
    subset_pairs: int = Field(
        20,
        ge=2,
        le=500,
        title="Pairs that choose the subset",
        description="Each costs two calls for every criterion; what was asked before is free.",
    )
    patience: int = Field(
        2,
        ge=1,
        le=20,
        title="Patience",
        description="The subset ends after so many criteria in a row that make no more right.",
    )
    structure: bool = Field(
        True, title="Sort into themes", description="One call that also merges what says the same."
    )
    themes: int = Field(
        5, ge=1, le=20, title="Themes", description="How many there should be at most."
    )
    support: int = Field(
        1,
        ge=1,
        le=100,
        title="Pairs behind a criterion",
        description="Criteria that come from fewer pairs are left out.",
    )
    max_criteria: int = Field(
        10,
        ge=1,
        le=MAX_CRITERIA,
        title="Criteria in the end",
        description="Of more, those from the most pairs are kept.",
    )
    held_out: float = Field(
        0.3,
        ge=0,
        le=0.9,
        title="Held-out share",
        description="Share of the prompts that nothing is learned from, for measuring. 0: none is "
        "measured.",
    )
    measured: int = Field(
        100,
        ge=1,
        le=10_000,
        title="Held-out pairs measured",
        description="Each costs four calls: both orders, without and with the rubric.",
    )
    temperature: float = Field(
        0.0, ge=0, le=2, title="Temperature", description="Of proposals. Judging is done at 0."
    )
    max_tokens: int = Field(
        2048,
        ge=64,
        le=32_768,
        title="Longest reply (tokens)",
        description="A reply that was cut is asked for once more with twice the room.",
    )
    repairs: int = Field(
        1,
        ge=0,
        le=3,
        title="Repairs",
        description="Times an unreadable reply is asked for again.",
    )
    concurrency: int = Field(
        8, ge=1, le=64, title="Pairs at once", description="How many pairs are worked on together."
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, title="Seed", description="Of everything that is drawn."
    )

    @model_validator(mode="after")
    def _needs_no_more_than_drawn(self) -> Self:
        if self.others_needed > self.others:
            raise ValueError("others_needed: no more than others")
        return self
