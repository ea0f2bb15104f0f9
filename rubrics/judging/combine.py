"""Opinions into one decision.

Opinions are averaged inside out: over the repeats of an order, over the orders, over the models
of a jury, so that a repeat lost here or there weighs nothing and every order counts the same.
What comes out is a matrix ``chances[i][j]``, the probability that candidate i is better than j.
A candidate's strength is its mean chance against the others. Where every two meet equally often,
as here, that puts candidates in the order of a Bradley-Terry fit (Ford 1957, American
Mathematical Monthly 64:28), and of two it is the probability itself.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Final

from rubrics.judging.rationale import rationale_of
from rubrics.judging.types import Decision, Item, Opinion

LEVEL: Final = 1e-9
MAX_STRENGTH: Final = 3
BEST_WORST_STRENGTH: Final = 2  # as annotator.kinds gives it
UNFIT: Final = "unfit"
Matrix = list[list[float]]


def readable(
    opinions: Sequence[Opinion], *, by_order: bool
) -> tuple[list[list[list[Opinion]]], str, str]:
    """Opinions as [model][order][repeat], and why there are none: (error, detail).

    A model counts where more than half of the repeats of every order can be read. More than half
    of the models must count. ``by_order`` False: orders were drawn, not planned, and an order is
    whatever compares the same candidates.
    """
    grouped: dict[str, dict[Hashable, list[Opinion]]] = defaultdict(lambda: defaultdict(list))
    for one in opinions:
        key = one.shown_order if by_order else frozenset(one.shown_order)
        grouped[one.model][key].append(one)
    members = []
    for orders in grouped.values():
        told = [[one for one in said if not one.error] for said in orders.values()]
        if all(2 * len(some) > len(all_) for some, all_ in zip(told, orders.values(), strict=True)):
            members.append(told)
    if members and 2 * len(members) > len(grouped):
        return members, "", ""
    failed = [one for one in opinions if one.error]
    if not failed:
        return [], "unreadable", "nothing was asked"
    error, _ = Counter(one.error for one in failed).most_common(1)[0]
    detail = next((one.detail for one in failed if one.error == error), "")
    return [], error, f"{len(failed)} of {len(opinions)} answers failed: {detail or error}"


def of_orders(
    item: Item, opinions: Sequence[Opinion], *, combine: str, tie_band: float, orders: str
) -> Decision:
    """The decision of pairwise and listwise opinions: every two candidates were compared."""
    members, error, detail = readable(opinions, by_order=orders == "both")
    if error:
        return Decision(None, opinions=tuple(opinions), error=error, detail=detail)
    k = len(item.candidates)
    chances = _matrix(members, k, _chance)
    deciding = _agreed(members, k) if combine == "agree-only" else chances
    band = 2 * tie_band / (k - 1) if item.allow_tie else 0.0
    ranks = places(strengths(deciding), band=band)
    counted = [one for orders_ in members for said in orders_ for one in said]
    has_chance = len(counted) > 1 or counted[0].probability is not None
    return Decision(
        ranks,
        strength=_strength(ranks, counted),
        rationale=rationale_of(ranks, counted),
        confidence=_confidence(ranks, chances) if has_chance else None,
        probability=chances[0][1] if k == 2 and has_chance else None,
        is_consistent=_is_consistent(members, k) if orders == "both" else None,
        opinions=tuple(opinions),
    )


def strengths(chances: Matrix) -> list[float]:
    """Mean chance of each candidate against the others, (k,)."""
    k = len(chances)
    return [sum(row[j] for j in range(k) if j != i) / (k - 1) for i, row in enumerate(chances)]


def places(values: Sequence[float], *, band: float) -> tuple[int, ...]:
    """Places from 1 without a gap, the highest first; within ``band`` of a place's best is a tie."""
    ranks = [0] * len(values)
    place, head = 0, math.inf
    for at in sorted(range(len(values)), key=lambda at: -values[at]):
        if not place or head - values[at] > band + LEVEL:
            place, head = place + 1, values[at]
        ranks[at] = place
    return tuple(ranks)


def widest(ranks: Sequence[int]) -> int:
    """Of several, the largest gap between places, at most 3: as a ranking by people has it."""
    return min(max(ranks) - min(ranks), MAX_STRENGTH)


def best_worst(decision: Decision) -> Decision:
    """1 best, 3 worst, 2 between: nothing where no single one is the best, or the worst."""
    ranks = decision.ranks
    if ranks is None:
        return decision
    last = max(ranks)
    if last == 1 or ranks.count(1) > 1 or ranks.count(last) > 1:
        detail = "the judge found no single best and worst answer"
        return replace(decision, ranks=None, strength=0, error=UNFIT, detail=detail)
    chosen = tuple(1 if rank == 1 else 3 if rank == last else 2 for rank in ranks)
    return replace(decision, ranks=chosen, strength=BEST_WORST_STRENGTH)


def outcome(opinion: Opinion, i: int, j: int) -> int:
    """1 where the opinion puts i before j, -1 the other way, 0 for a tie."""
    assert opinion.ranks is not None
    gap = opinion.ranks[j] - opinion.ranks[i]
    return (gap > 0) - (gap < 0)


def _chance(opinion: Opinion, i: int, j: int) -> float:
    """``i < j``. Where an opinion says no probability its verdict is one."""
    if opinion.probability is not None:
        return opinion.probability
    return (1 + outcome(opinion, i, j)) / 2


def _matrix(
    members: list[list[list[Opinion]]], k: int, chance: Callable[[Opinion, int, int], float]
) -> Matrix:
    matrix = [[0.5] * k for _ in range(k)]
    for i, j in combinations(range(k), 2):
        by_model = [
            fmean(fmean(chance(one, i, j) for one in said) for said in _about(orders, i, j))
            for orders in members
        ]
        matrix[i][j] = fmean(by_model)
        matrix[j][i] = 1 - matrix[i][j]
    return matrix


def _about(orders: Iterable[list[Opinion]], i: int, j: int) -> list[list[Opinion]]:
    """The orders that showed both."""
    return [said for said in orders if {i, j} <= set(said[0].shown_order)]


def _agreed(members: list[list[list[Opinion]]], k: int) -> Matrix:
    """1 or 0 where every order names the same of two, by the votes of all models and repeats."""
    matrix = [[0.5] * k for _ in range(k)]
    for i, j in combinations(range(k), 2):
        votes: dict[tuple[int, ...], int] = defaultdict(int)
        for orders in members:
            for said in _about(orders, i, j):
                votes[said[0].shown_order] += sum(outcome(one, i, j) for one in said)
        signs = {(vote > 0) - (vote < 0) for vote in votes.values()}
        sign = signs.pop() if len(signs) == 1 else 0
        matrix[i][j], matrix[j][i] = (1 + sign) / 2, (1 - sign) / 2
    return matrix


def _is_consistent(members: list[list[list[Opinion]]], k: int) -> bool | None:
    """Whether every order has the same best candidates.

    Pairs out of more are two orders: all with the earlier candidate first, all the other way.
    """
    by_order: dict[Hashable, list[list[list[Opinion]]]] = defaultdict(list)
    for orders in members:
        seen: dict[Hashable, list[list[Opinion]]] = defaultdict(list)
        for said in orders:
            shown = said[0].shown_order
            seen[shown if len(shown) == k else shown[0] < shown[1]].append(said)
        for key, some in seen.items():
            by_order[key].append(some)
    if len(by_order) < 2:
        return None
    best = set()
    for several in by_order.values():
        votes = _matrix(several, k, lambda one, i, j: (1 + outcome(one, i, j)) / 2)
        best.add(tuple(rank == 1 for rank in places(strengths(votes), band=0.0)))
    return len(best) == 1


def _confidence(ranks: Sequence[int], chances: Matrix) -> float:
    """The mean probability that the best is better than another; of two, max(p, 1 - p)."""
    against = strengths(chances)
    return max(value for value, rank in zip(against, ranks, strict=True) if rank == 1)


def _strength(ranks: Sequence[int], opinions: Sequence[Opinion]) -> int:
    """Of two, the mean strength of those that agree, rounded; 0 for a tie."""
    if len(ranks) > 2 or max(ranks) == 1:
        return widest(ranks)
    winner = ranks.index(1)
    said = [one.strength for one in opinions if outcome(one, winner, 1 - winner) > 0]
    return min(max(math.floor(fmean(said) + 0.5), 1), MAX_STRENGTH) if said else 1
