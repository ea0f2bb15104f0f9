"""What can be set of a judge that is a program."""

from __future__ import annotations

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rubrics.programs import PROGRAMS, find_criterion

MAX_CRITERIA: Final = 100
# What hardly anybody disagrees about, and everything that a prompt can ask for.
DEFAULT: Final = (
    "answered",
    "-refusal",
    "-truncated",
    "-placeholder",
    "-repeated-phrases",
    "-repeated-lines",
    "same-language",
    "python-parses",
    "json-parses",
    *(key for key in PROGRAMS if key.startswith("asked-")),
)


class ProgramOptions(BaseModel):
    """Options of the ``program`` judge."""

    model_config = ConfigDict(extra="forbid")

    criteria: list[str] = Field(
        default=list(DEFAULT),
        min_length=1,
        max_length=MAX_CRITERIA,
        title="Criteria",
        description="Keys of programs, one per line; a minus before what should not be.",
    )
    weights: list[float] = Field(
        default_factory=list,
        max_length=MAX_CRITERIA,
        title="Weights",
        description="One per criterion, above 0. Empty: all count the same.",
    )
    tie_band: float = Field(
        0.02,
        ge=0,
        lt=1,
        title="Tie band",
        description="Scores, from 0 to 1, that differ by no more than this are a tie.",
    )

    @field_validator("criteria")
    @classmethod
    def _known(cls, criteria: list[str]) -> list[str]:
        found = []
        for text in criteria:
            criterion = find_criterion(text)
            if criterion is None:
                raise ValueError(f"there is no program {text!r}; known: {', '.join(PROGRAMS)}")
            key, should = criterion
            found.append(key if should else f"-{key}")
        keys = [key.removeprefix("-") for key in found]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice:
            raise ValueError(f"{twice!r} is there twice")
        return found

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        if self.weights and len(self.weights) != len(self.criteria):
            raise ValueError("weights: as many as criteria, or none")
        if not all(0 < weight < 1e6 for weight in self.weights):  # NaN too is none
            raise ValueError("weights: numbers above 0 and below a million")
        return self
