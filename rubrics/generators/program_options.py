"""What can be set of the generator that selects among programs."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rubrics.generators.diverse import DIFFERENT
from rubrics.programs import PROGRAMS

GROUPS: Final = tuple(dict.fromkeys(row.group for row in PROGRAMS.values()))


class ProgramGeneratorOptions(BaseModel):
    """Options of the ``program`` generator."""

    model_config = ConfigDict(extra="forbid")

    top: int = Field(20, ge=1, le=100, title="Criteria at most")
    min_coverage: float = Field(
        0.02,
        ge=0,
        le=1,
        title="Least coverage",
        description="Share of pairs in which a program must tell the two sides apart.",
    )
    leave_out: list[str] = Field(
        default_factory=list,
        max_length=len(PROGRAMS),
        title="Left out",
        description="Groups of programs or their keys. Length: what is “longer wins” in disguise.",
    )
    rule: Literal["best", "one-standard-error"] = Field(
        "one-standard-error",
        title="Penalty chosen by",
        description="best: the lowest cross-validated log loss. one-standard-error: the fewest "
        "criteria within one standard error of it.",
    )
    held_out: float = Field(
        0.25,
        gt=0,
        le=0.9,
        title="Held out",
        description="Share of prompts on which the accuracy is measured; nothing is fitted on them.",
    )
    outer_folds: int = Field(
        5,
        ge=0,
        le=20,
        title="Folds over all prompts",
        description="How well this method does as such, each pair judged by weights chosen "
        "without its prompt. Below 2 this is not measured.",
    )
    bootstraps: int = Field(
        100, ge=0, le=1000, title="Draws", description="For intervals of weights."
    )
    different: int = DIFFERENT
    seed: int = Field(0, ge=0, le=2**32 - 1, title="Seed")

    @field_validator("leave_out")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        groups = {group.casefold(): group for group in GROUPS}
        found = []
        for name in names:
            known = groups.get(name.strip().casefold(), name.strip())
            if known not in GROUPS and known not in PROGRAMS:
                raise ValueError(f"there is no group or program {name!r}: {', '.join(GROUPS)}")
            found.append(known)
        return list(dict.fromkeys(found))
