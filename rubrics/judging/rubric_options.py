"""What can be set of a judge that checks criteria one by one."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rubrics.programs import PROGRAMS

MAX_CRITERIA: Final = 200
MAX_TEXT: Final = 500
# "+0.8 Cites a source", "-1 Flatters the user", "+1 Has a code block [code-block]".
LINE: Final = re.compile(
    r"(?:[*•-]\s+)?(?:(?P<weight>[+-]\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s+)?(?P<text>.*?)"
    r"(?:\s*\[(?P<program>[a-z][a-z0-9-]*)\])?",
    re.DOTALL,
)


class RubricLine(BaseModel):
    """One criterion. ``weight`` is signed for a yes: below 0 a yes speaks against an answer.

    A text is read as well: a weight with its sign where there is one, the words, and the key of a
    program in brackets where one checks it.
    """

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MAX_TEXT)
    weight: float = Field(default=1.0, gt=-1e6, lt=1e6, allow_inf_nan=False)
    verifier: Literal["llm", "program"] = "llm"
    program: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        found = LINE.fullmatch(" ".join(given.split()))
        assert found is not None  # every part of it may be absent
        key, text = found["program"] or "", found["text"]
        if key and key not in PROGRAMS:  # words in brackets
            key, text = "", f"{text} [{key}]"
        weight = float(found["weight"] or 1)
        return {
            "text": text or key,
            "weight": weight,
            "verifier": "program" if key else "llm",
            "program": key,
        }

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if (self.verifier == "program") != (self.program in PROGRAMS):
            raise ValueError(f"there is no program {self.program!r} to check {self.text[:80]!r}")
        return self

    def __str__(self) -> str:
        """As it is read."""
        key = f" [{self.program}]" if self.program else ""
        return f"{self.weight:+g} {self.text}{key}"

    @property
    def sign(self) -> int:
        return 0 if not self.weight else int(math.copysign(1, self.weight))


class RubricOptions(BaseModel):
    """Options of the ``rubric`` judge. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[str] = Field(
        default_factory=list,
        max_length=9,
        title="Models",
        description="As the endpoint calls them. Several are a jury: the mean counts. None is "
        "needed where programs check every criterion.",
    )
    criteria: list[RubricLine] = Field(
        default_factory=list,
        max_length=MAX_CRITERIA,
        title="Criteria",
        description="One per line, before it a weight with its sign if it has one: “+0.8 Cites a "
        "source”, “-1 Flatters the user”. At its end the key of a program in brackets, where one "
        "checks it.",
    )
    total: Literal["weighted", "share"] = Field(
        "weighted",
        title="Total",
        description="weighted: criteria count by their weights; share: how many are satisfied.",
    )
    not_applicable: Literal["half", "satisfied", "unsatisfied", "missing"] = Field(
        "half",
        title="A criterion that does not apply",
        description="half: neither for nor against; missing: as the other answers do on it.",
    )
    concise: bool = Field(
        False,
        title="Only what is met concisely",
        description="An answer that meets a criterion by padding does not meet it.",
    )
    tie_band: float = Field(
        0.02,
        ge=0,
        lt=1,
        title="Tie band",
        description="Totals, from 0 to 1, that differ by no more than this are a tie.",
    )
    max_tokens: int = Field(512, ge=1, le=32_768, title="Longest reply (tokens)")
    repairs: int = Field(1, ge=0, le=3, title="Times an unreadable reply is asked for again")

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        texts = [key_of(one.text) for one in self.criteria]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"a criterion is there twice: {twice[:80]!r}")
        if self.criteria and not any(one.weight for one in self.criteria):
            raise ValueError("every criterion weighs 0: nothing could be decided by them")
        return self


def key_of(text: str) -> str:
    """What makes two wordings the same criterion: neither case nor white space counts."""
    return " ".join(text.split()).casefold()
