"""The canonical row that every format is read into, and what it takes to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from annotator.importers.reasons import REASONS
from annotator.kinds import KINDS

DEFAULT_RATER: Final = "imported"
MAX_NAME: Final = 120
MAX_JUDGE: Final = 80  # the name of a judge
MAX_ID: Final = 200
MAX_RESPONSES: Final = 64

Ratings = dict[str, list[int | None]]

AUTO: Final = "auto"
EVERYBODY: Final = "*"  # in place of the names of judges

# What a column can be mapped to.
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
    "swapped": "which answer won with the two exchanged, named as in the first order",
    "strength": "how clearly: 1 to 3",
    "rationale": "why",
    "at": "when",
    "id": "the row's own name",
    "tags": "a list, or text separated by commas",
    "item": "what was judged, where rows are judgments; several columns name it together",
    "value": "the rating or answer; several columns are several raters",
    "attribute": "what was rated, where each row rates one thing",
    "ratings": "columns that each hold the ratings of one attribute",
    "response": "the answer that was rated",
    "generator": "what wrote that answer",
    "gold": "the known right answer",
    "images": "a list of images",
    "image_a": "the first image",
    "image_b": "the second image",
    "source_image": "the image that was to be edited",
    "mask": "an image that is white where the source may change",
}
# Fields that several columns may be mapped to.
SEVERAL: Final = ("label", "item", "value", "ratings", "rater")


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
class ImageRef:
    """An image that a row names: a ``path``, or its bytes in ``data``.

    ``image_id`` and ``digest`` are filled in when it is taken into the project.
    """

    path: str = ""
    data: bytes | None = None
    alt: str = ""
    image_id: int | None = None
    digest: bytes = b""


@dataclass(slots=True)
class Reply:
    """One response. ``messages`` is set when the reply is more than one message."""

    text: str
    messages: list[dict[str, str]] | None = None
    generator: str = ""
    sampling: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    leak: str = ""  # the name by which it gives its model away
    image: ImageRef | None = None


@dataclass(slots=True)
class Vote:
    """One outside verdict on the replies at places ``first`` and ``second`` of a row.

    ``outcome`` is 1 when the first is better, -1 when the second is, 0 for a tie; ``strength``
    is 0 for a tie, else 1 to 3. Of an AI judge, ``orders`` holds the outcome with the answers as
    given and, where it was asked, with them exchanged; None where it could not be read.
    ``unread`` is a judge's verdict that cannot be used, as it stood: ``outcome`` says nothing then.
    """

    rater: str
    outcome: int
    strength: int = 1
    first: int = 0
    second: int = 1
    both_bad: bool = False
    at: datetime | None = None
    rationale: str = ""
    is_judge: bool = False
    orders: tuple[int | None, ...] = ()
    unread: str | None = None


@dataclass(slots=True)
class Judged:
    """One outside verdict on all replies of a row, in the order of the row.

    ``ranks``: 1 is best, equal places are ties, 0 is not ranked; left empty where ``ratings``
    (attribute or criterion -> value of each reply or None) say it all.
    """

    rater: str
    ranks: list[int] = field(default_factory=list)
    ratings: Ratings | None = None
    both_bad: bool = False
    at: datetime | None = None
    rationale: str = ""
    is_judge: bool = False


@dataclass(slots=True)
class Row:
    """One prompt, its replies and the verdicts that came along.

    ``pairs`` lists which replies are compared; None leaves it to the pairing rule. ``as_is``
    rows are transcripts: their turns are kept as they were spoken, alternating or not.
    ``kind`` is a key of KINDS, "" where the format leaves it open. ``gold`` is the known right
    verdict, by nobody. ``is_reference`` rows speak of a task by its ``external_id``: their texts
    are stand-ins, used only where the project has no such task.
    """

    messages: list[dict[str, str]]
    replies: list[Reply]
    votes: list[Vote] = field(default_factory=list)
    pairs: list[tuple[int, int]] | None = None
    tags: list[str] | None = None
    external_id: str = ""
    extra: dict[str, Any] | None = None
    as_is: bool = False
    kind: str = ""
    verdicts: list[Judged] = field(default_factory=list)
    gold: Judged | None = None
    thread: str = ""
    turn: int = 0
    is_reference: bool = False
    source: ImageRef | None = None  # what the images were made from
    mask: ImageRef | None = None  # white where the source may change
    lines: int = 1  # rows of the file that it stands for
    onto: KnownTask | None = None  # set by the import where a reference was found


class KnownTask(NamedTuple):
    """A pairwise task that the project has already."""

    id: int
    prompt_id: int
    a_id: int
    b_id: int


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
    judges: list[str] = Field(
        default_factory=list,
        max_length=1_000,
        title="Raters that are AI judges",
        description="Names of raters, or columns of labels; * is all of them.",
    )
    labels: str = Field(
        "auto", title="How labels are written", description="See annotator.importers.labels."
    )
    pairs: Literal["auto", "all", "ring", "none"] = Field(
        "auto",
        title="Which answers are compared",
        description="auto: every pair of up to 4 answers, else each with the next in a ring.",
    )
    kind: str = Field(
        AUTO,
        title="Kind of task",
        description="auto: what the file's labels are of, else the project's kind.",
    )
    people: Literal["open", "labels-only"] = Field(
        "open",
        title="Tasks for people",
        description="labels-only: the labels are kept, nobody is asked to judge the same again.",
    )
    values: dict[str, int] = Field(
        default_factory=dict,
        title="What the answers count",
        description="Word -> number, as before = 0, after = 1. Only where words are no yes or no.",
    )
    stand_ins: bool = Field(
        False,
        title="Names stand in for missing images",
        description="An image that is not there is kept as its name, so that its labels can be.",
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
            if len(columns) > 1 and name not in SEVERAL:
                raise ValueError(f"field {name!r} takes one column")
        return mapping

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, key: str) -> str:
        if key != AUTO and key not in KINDS:
            raise ValueError(f"there is no kind {key!r}; known: {AUTO}, {', '.join(KINDS)}")
        return key

    def is_judge(self, rater: str) -> bool:
        """Whether labels of this rater are an AI judge's."""
        return EVERYBODY in self.judges or rater in self.judges

    def column(self, name: str) -> str | None:
        """The one column a field is read from, None where it is not mapped."""
        columns = self.mapping.get(name)
        return columns[0] if columns else None


Raw = dict[str, Any]
Refuse = Callable[[int, Raw, BadRow], None]
# A row of the file as rows of the project: one, or one per turn of a conversation.
RowReader = Callable[[Raw], Row | list[Row]]


@dataclass(frozen=True)
class Grouped:
    """A format whose rows are judgments of items: rows of one item become one ``Row``.

    ``key`` names the item of a row. ``read`` takes the numbered rows of one item and says which
    of them it refuses; None where none is left. ``is_adjacent``: the rows of an item follow each
    other, else they may be anywhere in the file. ``most`` rows are read at once; those of an
    item that has more become a second ``Row`` of the same texts.
    """

    key: Callable[[Raw], str]
    read: Callable[[list[tuple[int, Raw]], Refuse], Row | None]
    most: int
    is_adjacent: bool = False


# A format: options and the first rows in, a function from row to Row out. Raises Invalid where
# the rows cannot be of this format.
Prepare = Callable[[Options, list[Raw]], RowReader | Grouped]
