"""Which pairs of one prompt's answers become rows: all, neighbors, best against rest, the widest.

Answers are ordered by what the decided pairs say of them: the share of its pairs that an answer
won, weighted by their soft labels (Copeland's count with halves for ties).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided


def standing(decided: Sequence[Decided]) -> dict[int, float]:
    """Response id -> mean probability of winning its pairs, 0 to 1."""
    won: defaultdict[int, float] = defaultdict(float)
    met: defaultdict[int, int] = defaultdict(int)
    for one in decided:
        p = one.verdict.p
        for response, share in ((one.chosen, p), (one.rejected, 1 - p)):
            won[response.id] += share
            met[response.id] += 1
    return {pk: won[pk] / met[pk] for pk in won}


def take(decided: list[Decided], options: ExportOptions) -> list[bool]:
    """For each decided pair of one prompt, whether it is among those the recipe takes."""
    if options.pairs == "all" or len(decided) < 2:
        return [True] * len(decided)
    of = standing(decided)
    if options.pairs == "best-rest":
        best = max(of, key=lambda pk: (of[pk], -pk))
        return [best == one.chosen.id or _ties_with(one, best) for one in decided]
    if options.pairs == "widest":
        widest = max(decided, key=lambda one: (_gap(one, of), one.strength, -one.place))
        return [one is widest for one in decided]
    levels = sorted(set(of.values()), reverse=True)
    rank = {pk: levels.index(value) for pk, value in of.items()}
    return [abs(rank[one.chosen.id] - rank[one.rejected.id]) <= 1 for one in decided]


def cap(decided: list[Decided], most: int, *, rows_of_tie: int = 1) -> list[bool]:
    """The best agreed on, ties by more votes, then strength, then order, of ``most`` rows; 0 is all.

    ``rows_of_tie``: how many rows a tie gives. What no longer fits leaves its room to the next.
    """
    if not most:
        return [True] * len(decided)
    best = sorted(
        decided,
        key=lambda one: (-one.verdict.certainty, -one.verdict.votes, -one.strength, one.place),
    )
    kept, left = set(), most
    for one in best:
        size = rows_of_tie if one.verdict.kind == "tie" else 1
        if size <= left:
            kept.add(one.place)
            left -= size
    return [one.place in kept for one in decided]


def _ties_with(one: Decided, best: int) -> bool:
    """Whether a pair is a tie of the best answer, whichever of its sides that is."""
    return one.verdict.kind == "tie" and best == one.rejected.id


def _gap(one: Decided, of: dict[int, float]) -> float:
    return of[one.chosen.id] - of[one.rejected.id]
