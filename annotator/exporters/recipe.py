"""Which pairs become rows: the options every format shares, and the one rule that applies them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotator.queries.pairs import Pair, Raters, Selection

SPLITS: Final = ("train", "validation", "test")
Container = Literal["jsonl", "jsonl.gz", "parquet"]
SplitName = Literal["train", "validation", "test"]

# Why a pair gave no row, in the order in which the reasons are tried: a pair is counted once.
REASONS: Final = {
    "no_votes": "no verdict sets one beside the other",
    "unselected_votes": "voted on, but by none of the chosen raters",
    "control": "a control question: its answer was known beforehand",
    "few_votes": "fewer votes than asked for",
    "both_bad": "most votes call both answers bad",
    "contradiction": "as many votes for one answer as for the other",
    "tie": "a tie, or no answer with the most votes",
    "low_agreement": "less agreement than asked for",
    "repeated": "the same two texts again; its votes were added to the first such pair",
    "identical": "both answers read the same",
    "leak": "an answer that names its model",
    "empty_answer": "an answer without text",
    "empty_prompt": "a prompt without text",
    "same_prompt": "reads exactly like another prompt of the dataset, which was kept",
}


class WhoseVotes(BaseModel):
    """What options share that choose raters by ``raters`` and ``rater_names``, and ``splits``.

    The fields stay with each, which words them for what it writes.
    """

    if TYPE_CHECKING:
        raters: Raters
        rater_names: list[str]
        splits: list[SplitName]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if (self.raters == "named") != bool(self.rater_names):
            raise ValueError("names go with raters=named, and raters=named needs names")
        return self

    def selection(self) -> Selection:
        splits = tuple(split for split in SPLITS if split in self.splits)
        return Selection(self.raters, tuple(self.rater_names), splits)


class ExportOptions(WhoseVotes):
    """The recipe. The same for every format; formats add their own on top."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container: Container = Field("jsonl", title="File type")
    raters: Literal["all", "people", "imported", "judges", "named"] = Field("all", title="Votes of")
    rater_names: list[str] = Field(
        default_factory=list,
        title="Names",
        max_length=1000,
        description="Whose votes count when the raters are named.",
    )
    min_votes: int = Field(1, ge=1, le=1000, title="Least votes")
    min_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Least agreement",
        description="Share of a pair's votes, ties included, that the winner must have.",
    )
    ties: Literal["drop"] = Field(
        "drop", title="Ties", description="Left out and counted: a row needs a winner."
    )
    both_bad: Literal["drop", "keep"] = Field(
        "drop",
        title="Both bad",
        description="When more than half of the votes say so.",
    )
    repeats: Literal["keep", "pool"] = Field(
        "keep",
        title="The same two texts again",
        description="Pairs of one prompt with the same texts by other generators. Where they"
        " disagree, their votes are added up in any case.",
    )
    empty: Literal["keep", "drop"] = Field("keep", title="Answers without text")
    leaks: Literal["keep", "drop"] = Field(
        "keep",
        title="Answers that name their model",
        description="As found when they were imported: votes on them are less than blind.",
    )
    splits: list[SplitName] = Field(
        default_factory=lambda: list(SPLITS),
        min_length=1,
        title="Splits",
        description="Each is a file of its own.",
    )


def fate_of_votes(pair: Pair, options: ExportOptions) -> str:
    """Why the votes on a pair give no row, or "" where they give one."""
    votes = pair.votes
    if votes == 0:
        return "control" if pair.golds else "unselected_votes"
    if votes < options.min_votes:
        return "few_votes"
    if options.both_bad == "drop" and 2 * pair.both_bad > votes:
        return "both_bad"
    outcome = pair.outcome
    if outcome in ("contradiction", "tie"):
        return outcome
    # A share that somebody typed, such as .67, must let two of three pass; 1 means all of them.
    slack = 0.005 if options.min_agreement < 1 else 0.0
    return "low_agreement" if pair.agreement < options.min_agreement - slack else ""


class Verdict(NamedTuple):
    """What a recipe makes of the votes on a pair. ``fate`` is "" or why there is no row."""

    fate: str
    a_wins: bool
    votes: int
    agreement: float  # to six places, as it is written
    is_contested: bool


# All of a pair that a verdict depends on.
_fell = itemgetter(*map(Pair._fields.index, ("wins_a", "wins_b", "ties", "both_bad", "golds")))


class Verdicts:
    """Verdicts by how the votes fell: a million pairs fall in a few dozen ways."""

    def __init__(self, options: ExportOptions) -> None:
        self._options = options
        self._known: dict[tuple[int, ...], Verdict] = {}

    def of(self, pair: Pair) -> Verdict:
        fell = _fell(pair)
        found = self._known.get(fell)
        if found is None:
            found = self._known[fell] = Verdict(
                fate_of_votes(pair, self._options),
                pair.outcome == "a",
                pair.votes,
                round(pair.agreement, 6),
                pair.is_contested,
            )
        return found


@dataclass
class Ledger:
    """Pairs in, rows out and what became of the rest. In = out + dropped, always."""

    pairs: int = 0
    rows: Counter[str] = field(default_factory=Counter)  # by split
    dropped: Counter[str] = field(default_factory=Counter)  # by reason

    def drop(self, reason: str, count: int = 1) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        self.pairs += count
        self.dropped[reason] += count

    def keep(self, split: str, count: int = 1) -> None:
        self.pairs += count
        self.rows[split] += count

    @property
    def out(self) -> int:
        return self.rows.total()

    def as_dict(self) -> dict[str, Any]:
        if self.pairs != self.out + self.dropped.total():
            raise ValueError(f"the counts do not add up: {self}")
        return {
            "in": self.pairs,
            "out": self.out,
            "dropped": {key: self.dropped[key] for key in REASONS if self.dropped[key]},
            "rows": {split: self.rows[split] for split in SPLITS if self.rows[split]},
        }
