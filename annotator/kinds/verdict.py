"""The one canonical form of a verdict, whatever was asked and in whichever order it was shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, NamedTuple, Protocol

from annotator.errors import Invalid

MAX_RATIONALE: Final = 20_000
MAX_STRENGTH: Final = 3
MAX_MS: Final = 2**31 - 1

Ratings = dict[str, list[int | None]]


class Edge(NamedTuple):
    """Responses at places ``a`` < ``b``; outcome 1 a is better, -1 b is, 0 a tie."""

    a: int
    b: int
    outcome: int
    strength: int


@dataclass(frozen=True)
class Verdict:
    """A verdict in canonical order: ``ranks[i]`` is the place of ``Task.response_ids[i]``.

    1 is best, equal places are ties, 0 is a response that could not be ranked. ``strength`` is
    0 where no two ranked responses differ, else 1 to 3. ``ratings`` holds, per attribute or
    criterion, one value per response or None. ``active_ms`` is the time spent on it as the
    browser measured it, hidden tabs excluded; None where it did not.
    """

    ranks: list[int]
    strength: int
    both_bad: bool = False
    rationale: str = ""
    reasons: list[str] = field(default_factory=list)
    ratings: Ratings | None = None
    active_ms: int | None = None

    def check(self, *, responses: int) -> None:
        """Raises Invalid for what no kind can mean, whoever made it."""
        if len(self.ranks) != responses:
            raise Invalid(f"The verdict orders {len(self.ranks)} responses of {responses}.")
        places = set(self.ranks) - {0}
        if places != set(range(1, len(places) + 1)):
            raise Invalid("Places must run from 1 without a gap.")
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise Invalid(f"Strength must be between 0 and {MAX_STRENGTH}.")
        if (self.strength == 0) != (len(places) < 2):
            raise Invalid("A tie has strength 0, and only a tie has.")
        if len(self.rationale) > MAX_RATIONALE:
            raise Invalid(f"The reason is longer than {MAX_RATIONALE:,} characters.")
        for name, values in (self.ratings or {}).items():
            if len(values) != responses:
                raise Invalid(f"“{name}” rates {len(values)} responses of {responses}.")

    def as_gold(self) -> dict[str, Any]:
        """The part of a verdict that can be known beforehand, as ``Task.gold`` keeps it."""
        return {
            "ranks": self.ranks,
            "strength": self.strength,
            "both_bad": self.both_bad,
            "ratings": self.ratings,
        }


class Held(Protocol):
    """A stored judgment, as far as it is a verdict."""

    ranks: list[int]
    strength: int
    both_bad: bool
    rationale: str
    reasons: list[str]
    ratings: Ratings | None
    active_ms: int | None


def as_verdict(judgment: Held) -> Verdict:
    """The verdict a judgment holds."""
    return Verdict(
        ranks=judgment.ranks,
        strength=judgment.strength,
        both_bad=judgment.both_bad,
        rationale=judgment.rationale,
        reasons=judgment.reasons,
        ratings=judgment.ratings,
        active_ms=judgment.active_ms,
    )


def dense(values: list[float | None]) -> list[int]:
    """Places from 1 without a gap, the highest value first; None gets 0."""
    order = sorted({value for value in values if value is not None}, reverse=True)
    place = {value: at for at, value in enumerate(order, start=1)}
    return [0 if value is None else place[value] for value in values]


def edges_of_ranks(ranks: list[int], *, strength: int) -> list[Edge]:
    """Every pair of ranked responses. Of two, the verdict's strength; of more, the gap in places.

    A ranking of more than two has no strength of its own per pair: the gap stands in for it.
    """
    result = []
    for (i, one), (j, other) in combinations(enumerate(ranks), 2):
        if not one or not other:
            continue
        gap = other - one
        weight = strength if len(ranks) == 2 else min(abs(gap), MAX_STRENGTH)
        result.append(Edge(i, j, (gap > 0) - (gap < 0), weight if gap else 0))
    return result


def widest(ranks: list[int]) -> int:
    """The strength of a ranking as a whole: the largest gap between two places, at most 3."""
    places = [rank for rank in ranks if rank]
    return min(max(places) - min(places), MAX_STRENGTH) if places else 0
