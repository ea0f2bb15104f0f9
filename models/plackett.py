"""Plackett-Luce: scores from whole or partial rankings with ties. Pure numpy and scipy."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csr_array, diags_array

from models.comparisons import Floats, Ranking, describe
from models.fitting import fit_ranking

Group = tuple[int, ...]
Groups = tuple[Group, ...]
Stage = tuple[Group, float]

EXACT_TIES: Final = 5  # items tied up to which all orders are averaged: 2^5 choices


@dataclass(frozen=True)
class ChoiceLoss:
    """Negative log-likelihood of choices of one item out of a set.

    member (stages, n) of 0/1: who could be chosen; weight (stages,); chosen (n,): total weight of
    the choices that each item won.
    """

    member: csr_array
    weight: Floats
    chosen: Floats

    def value(self, scores: Floats) -> float:
        top, total = self._totals(scores)
        return float(self.weight @ (top + np.log(total)) - self.chosen @ scores)

    def gradient(self, scores: Floats) -> Floats:
        return np.asarray(self.weight @ self._chances(scores) - self.chosen)

    def curvature(self, scores: Floats) -> csr_array:
        chances = self._chances(scores)
        own = diags_array(self.weight @ chances)
        weighted = diags_array(self.weight) @ chances
        return csr_array(own - chances.T @ weighted)

    def _totals(self, scores: Floats) -> tuple[Floats, Floats]:
        """Largest score of each stage, and the sum of exp(score - largest)."""
        begins = self.member.indptr[:-1]
        reached = scores[self.member.indices]
        top = np.maximum.reduceat(reached, begins)
        sizes = np.diff(self.member.indptr)
        return top, np.add.reduceat(np.exp(reached - np.repeat(top, sizes)), begins)

    def _chances(self, scores: Floats) -> csr_array:
        """Probability that each member is chosen, (stages, n)."""
        top, total = self._totals(scores)
        sizes = np.diff(self.member.indptr)
        cells = np.exp(scores[self.member.indices] - np.repeat(top + np.log(total), sizes))
        return csr_array((cells, self.member.indices, self.member.indptr), shape=self.member.shape)


def plackett_luce(
    rankings: Iterable[Sequence[int | Sequence[int]]],
    *,
    n_items: int,
    ridge: float = 0.01,
    level: float = 0.95,
    is_partial: bool = False,
) -> Ranking:
    """Scores s (n_items,) where each place is won with chance exp(s_i) / sum of those left.

    Each ranking lists item codes from best to worst; an entry may be a sequence of tied items,
    ``[2, [0, 3], 1]``. With ``is_partial`` the last entry holds items that were shown but not
    ordered (top-m). A ranking of fewer than two items says nothing and is skipped.

    Ties: the log-likelihood is averaged over the orders of the tied items, so a tie pulls their
    scores together, and for two items it is exactly half a win each, as in bradley_terry. The
    average is exact up to EXACT_TIES items; more are averaged over the 2t rotations of their
    ascending and descending order, in which every item takes every place equally often.
    ``wins`` and ``games`` of the result count the implied pairs (a tie is half a win).
    The cost is one sparse row per place of every distinct ranking.

    Raises ValueError where there is nothing to learn from, on codes outside 0..n_items-1 and on
    an item that is twice in one ranking.
    Source: Plackett 1975, Applied Statistics 24:193; Hunter 2004, Annals of Statistics 32:384.
    """
    seen = Counter(_normal(ranking, n_items) for ranking in rankings)
    counts = {groups: count for groups, count in seen.items() if _says(groups)}
    choices: dict[Group, float] = defaultdict(float)
    chosen, wins, games = np.zeros(n_items), np.zeros(n_items), np.zeros(n_items)
    beat: set[tuple[int, int]] = set()
    for groups, count in counts.items():
        for members, share in stages(groups, is_partial=is_partial):
            choices[members] += share * count
        settled = groups[:-1] if is_partial else groups
        for item in itertools.chain.from_iterable(settled):
            chosen[item] += count
        if not is_partial:  # the one left at the end is not chosen by anybody
            last = list(groups[-1])
            chosen[last] -= count / len(last)
        _count_pairs(groups, count, wins, games, beat, is_partial=is_partial)
    if not choices:
        raise ValueError("there are no rankings of two or more items")
    edges = np.array(sorted(beat), dtype=np.int64).reshape(-1, 2)
    graph = describe(edges[:, 0], edges[:, 1], n_items=n_items, games=games)
    loss = _loss(choices, chosen)
    return fit_ranking(loss, graph, wins=wins, games=games, ridge=ridge, level=level)


def _normal(ranking: Sequence[int | Sequence[int]], n_items: int) -> Groups:
    """A ranking as groups of ascending codes, checked."""
    groups = []
    for entry in ranking:
        group = (entry,) if isinstance(entry, int | np.integer) else tuple(entry)
        if group:
            groups.append(tuple(sorted(int(item) for item in group)))
    items = [item for group in groups for item in group]
    if len(set(items)) != len(items):
        raise ValueError(f"an item is twice in the ranking {groups}")
    if items and (min(items) < 0 or max(items) >= n_items):
        raise ValueError(f"items must be in 0..{n_items - 1}, found {min(items)}..{max(items)}")
    return tuple(groups)


def _says(groups: Groups) -> bool:
    return sum(len(group) for group in groups) > 1


def stages(groups: Groups, *, is_partial: bool = False) -> Iterator[Stage]:
    """The sets that a choice was made from, each with its weight."""
    below: Group = tuple(itertools.chain.from_iterable(groups))
    for place, group in enumerate(groups):
        below = below[len(group) :]
        if is_partial and place == len(groups) - 1:
            return
        for left, share in _left(group):
            if len(left) + len(below) > 1:
                yield tuple(sorted(left + below)), share


def _left(group: Group) -> Iterator[Stage]:
    """What is left of a tied group at each of its places, averaged over orders."""
    if len(group) <= EXACT_TIES:
        for size in range(len(group), 0, -1):
            share = 1 / math.comb(len(group), size)
            for left in itertools.combinations(group, size):
                yield left, share
        return
    for line in (group, group[::-1]):
        for turn in range(len(line)):
            order = line[turn:] + line[:turn]
            for place in range(len(order)):
                yield order[place:], 1 / (2 * len(order))


def _count_pairs(
    groups: Groups,
    count: int,
    wins: Floats,
    games: Floats,
    beat: set[tuple[int, int]],
    *,
    is_partial: bool,
) -> None:
    """Add the pairs that a ranking implies, and who got something from whom."""
    below = [item for group in groups for item in group]
    for place, group in enumerate(groups):
        below = below[len(group) :]
        tied = () if is_partial and place == len(groups) - 1 else group
        for item in group:
            wins[item] += count * (len(below) + max(len(tied) - 1, 0) / 2)
            games[item] += count * (len(below) + max(len(tied) - 1, 0))
            games[below] += count
            beat.update((item, other) for other in below)
        beat.update(itertools.permutations(tied, 2))


def _loss(stages: dict[Group, float], chosen: Floats) -> ChoiceLoss:
    sizes = np.fromiter((len(members) for members in stages), dtype=np.int64, count=len(stages))
    indices = np.fromiter(itertools.chain.from_iterable(stages), dtype=np.int32)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    weight = np.fromiter(stages.values(), dtype=np.float64, count=len(stages))
    shape = (len(stages), len(chosen))
    member = csr_array((np.ones(len(indices)), indices, indptr), shape=shape)
    return ChoiceLoss(member, weight, chosen)
