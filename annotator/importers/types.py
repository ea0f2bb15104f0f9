"""The canonical row that every format is read into, and what it takes to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from annotator.importers.reasons import REASONS

DEFAULT_RATER: Final = "imported"
MAX_NAME: Final = 120
MAX_ID: Final = 200
MAX_RESPONSES: Final = 64

# What a column can be mapped to. "label" takes several columns: one rater each.
FIELDS: Final = {
    "prompt": "what was asked: text or messages",
    "input": "joined to the prompt after an empty line when not empty",
    "system": "a system message before the prompt",
    "response_a": "the first answer",
    "response_b": "the second answer",
    "chosen": "the preferred answer",
    "rejected": "the other answer",
    "responses": "a list of answers",
    "generator_a": "what wrote the first answer",
    "generator_b": "what wrote the second answer",
    "generators": "both writers in one column, joined by _",
    "label": "which answer won; several columns are several raters",
    "rater": "who says so",
    "strength": "how clearly: 1 to 3",
    "rationale": "why",
    "at": "when",
    "id": "the row's own name",
    "tags": "a list, or text separated by commas",
}


class BadRow(Exception):
    """A row that is not taken, and why. ``columns`` are the culprits, to be marked."""

    def __init__(self, code: str, detail: str = "", *, columns: tuple[str, ...] = ()) -> None:
        self.code = code
        self.detail = detail
        self.columns = columns
        super().__init__(self.reason)

    @property
    def reason(self) -> str:
        title = REASONS[self.code].title
        return f"{title}: {self.detail}" if self.detail else title


@dataclass(slots=True)
class Reply:
    """One response. ``messages`` is set when the reply is more than one message."""

    text: str
    messages: list[dict[str, str]] | None = None
    generator: str = ""
    sampling: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


@dataclass(slots=True)
class Vote:
    """One outside verdict on the replies at places ``first`` and ``second`` of a row.

    ``outcome`` is 1 when the first is better, -1 when the second is, 0 for a tie; ``strength``
    is 0 for a tie, else 1 to 3.
    """

    rater: str
    outcome: int
    strength: int = 1
    first: int = 0
    second: int = 1
    both_bad: bool = False
    at: datetime | None = None
    rationale: str = ""


@dataclass(slots=True)
class Row:
    """One prompt, its replies and the verdicts that came along.

    ``pairs`` lists which replies are compared; None leaves it to the pairing rule. ``as_is``
    rows are transcripts: their turns are kept as they were spoken, alternating or not.
    """

    messages: list[dict[str, str]]
    replies: list[Reply]
    votes: list[Vote] = field(default_factory=list)
    pairs: list[tuple[int, int]] | None = None
    tags: list[str] | None = None
    external_id: str = ""
    extra: dict[str, Any] | None = None
    as_is: bool = False


class Options(BaseModel):
    """How to read rows. The same for every format; each uses what concerns it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mapping: dict[str, list[str]] = Field(
        default_factory=dict, title="Columns", description="Field -> the columns it is read from."
    )
    rater: str = Field(
        DEFAULT_RATER,
        min_length=1,
        max_length=MAX_NAME,
        title="Rater of unsigned labels",
        description="Labels that come without a rater of their own are recorded under this name.",
    )
    labels: str = Field(
        "auto", title="How labels are written", description="See annotator.importers.labels."
    )
    pairs: Literal["auto", "all", "ring", "none"] = Field(
        "auto",
        title="Which answers are compared",
        description="auto: every pair of up to 4 answers, else each with the next in a ring.",
    )
    max_characters: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        title="Longest text",
        description="A message or answer with more characters makes its row a bad one.",
    )

    @field_validator("mapping")
    @classmethod
    def _known_fields(cls, mapping: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, columns in mapping.items():
            if name not in FIELDS:
                raise ValueError(f"there is no field {name!r}; known: {', '.join(FIELDS)}")
            if not columns or not all(columns):
                raise ValueError(f"field {name!r} names no column")
            if len(columns) > 1 and name != "label":
                raise ValueError(f"field {name!r} takes one column")
        return mapping

    def column(self, name: str) -> str | None:
        """The one column a field is read from, None where it is not mapped."""
        columns = self.mapping.get(name)
        return columns[0] if columns else None


RowReader = Callable[[dict[str, Any]], Row]
# A format: options and the first rows in, a function from row to Row out. Raises Invalid where
# the rows cannot be of this format.
Prepare = Callable[[Options, list[dict[str, Any]]], RowReader]
