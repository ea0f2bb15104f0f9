"""What a recipe makes of the votes on a pair, and the count of what became of every pair."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from annotator.exporters.recipe import REASONS, SPLITS, ExportOptions
from annotator.queries.pair_texts import ResponseText
from annotator.queries.pairs import Pair

Kind = Literal["win", "tie", "both-bad"]
# A share that somebody typed, such as .67, must let two of three pass; 1 means all of them.
SLACK: Final = 0.005


class Verdict(NamedTuple):
    """What a recipe makes of a pair. ``fate`` is "" or why there is no row.

    ``agreement``: the share of all votes that chosen has, six places. ``p``: the probability that
    chosen is the better, by whatever decided. ``certainty``: of the verdict, by the aggregator.
    """

    fate: str
    a_wins: bool
    votes: int
    agreement: float
    is_contested: bool
    kind: Kind = "win"
    p: float = 1.0
    certainty: float = 1.0


class Decided(NamedTuple):
    """A pair with a verdict. ``place`` counts the pairs of the stream from 0.

    ``chosen`` and ``rejected`` of a tie are in an order that no content decides.
    """

    place: int
    pair: Pair
    verdict: Verdict
    chosen: ResponseText
    rejected: ResponseText
    strength: float


def least(asked: float) -> float:
    """A share that somebody typed, with room for its rounding."""
    return asked - SLACK if asked < 1 else asked


def fate_of_votes(pair: Pair, options: ExportOptions) -> str:
    """Why the votes on a pair give no row by majority, or "" where they give one."""
    if fate := fate_of_counts(pair, options):
        return fate
    if is_negative(pair, options):
        return ""
    outcome = pair.outcome
    if outcome in ("contradiction", "tie"):
        return outcome if options.ties == "drop" else ""
    return "low_agreement" if pair.agreement < least(options.min_agreement) else ""


def fate_of_counts(pair: Pair, options: ExportOptions) -> str:
    """Why a pair gives no row, whoever won it."""
    votes = pair.votes
    if votes == 0:
        return "control" if pair.golds else "unselected_votes"
    if votes < options.min_votes:
        return "few_votes"
    return "both_bad" if options.both_bad == "drop" and 2 * pair.both_bad > votes else ""


def is_negative(pair: Pair, options: ExportOptions) -> bool:
    """Whether a row of the pair would call both answers undesirable."""
    return options.both_bad == "negatives" and 2 * pair.both_bad > pair.votes > 0


def kind_of(pair: Pair, options: ExportOptions, *, is_tie: bool) -> Kind:
    """What a row of the pair would say."""
    if is_negative(pair, options):
        return "both-bad"
    return "tie" if is_tie else "win"


def is_first(a: int, b: int) -> bool:
    """Which of two equal answers stands as chosen: even odds, always the same."""
    return ((a * 0x9E3779B1) ^ (b * 0x85EBCA6B)) >> 7 & 1 == 0


# All of a pair that a verdict by majority depends on.
_fell = itemgetter(*map(Pair._fields.index, ("wins_a", "wins_b", "ties", "both_bad", "golds")))


class Majority:
    """Verdicts by how the votes fell: a million pairs fall in a few dozen ways."""

    def __init__(self, options: ExportOptions) -> None:
        self._options = options
        self._known: dict[tuple[int, ...], Verdict] = {}

    def of(self, pair: Pair, place: int = 0, looked: Any = None) -> Verdict:
        """The verdict; a tie's ``a_wins`` is decided by ``is_first`` later."""
        fell = _fell(pair)
        found = self._known.get(fell)
        if found is None:
            found = self._known[fell] = self._decide(pair)
        return found

    def _decide(self, pair: Pair) -> Verdict:
        options, outcome = self._options, pair.outcome
        is_tie = outcome not in ("a", "b")
        return Verdict(
            fate_of_votes(pair, options),
            outcome == "a",
            pair.votes,
            round(pair.agreement, 6),
            pair.is_contested,
            kind_of(pair, options, is_tie=is_tie),
            0.5 if is_tie else round(max(pair.p_a, 1 - pair.p_a), 6),
            round(pair.agreement, 6),
        )


@dataclass
class Ledger:
    """Pairs in, pairs used, rows out and what became of the rest. In = used + dropped, always."""

    pairs: int = 0
    used: int = 0
    rows: Counter[str] = field(default_factory=Counter)  # by split
    dropped: Counter[str] = field(default_factory=Counter)  # by reason

    def drop(self, reason: str, count: int = 1) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        self.pairs += count
        self.dropped[reason] += count

    def keep(self, split: str, count: int = 1, *, rows: int | None = None) -> None:
        """``count`` pairs used for ``rows`` rows, as many as pairs where not said."""
        self.pairs += count
        self.used += count
        self.rows[split] += count if rows is None else rows

    @property
    def out(self) -> int:
        return self.rows.total()

    def as_dict(self) -> dict[str, Any]:
        if self.pairs != self.used + self.dropped.total():
            raise ValueError(f"the counts do not add up: {self}")
        return {
            "in": self.pairs,
            "used": self.used,
            "out": self.out,
            "dropped": {key: self.dropped[key] for key in REASONS if self.dropped[key]},
            "rows": {split: self.rows[split] for split in SPLITS if self.rows[split]},
        }
