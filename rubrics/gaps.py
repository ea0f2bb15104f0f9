"""What a rubric leaves unexplained: pairs it is silent on or sure the other way, and criteria that
contradict each other or themselves.

Everything is counted on the pairs of the sheet that is given. To choose what people look at or
what a generator learns from, give ``sheet.learned()``: pairs that are held out stay unseen.

What is reported of criteria obeys three rules, so that a rubric of many criteria does not
contradict itself by chance: at least ``LEAST_PAIRS`` pairs in ``LEAST_PROMPTS`` prompts, an interval
(over prompts) beyond a half, and a false discovery rate of ``RATE`` over all that were compared
(Benjamini and Yekutieli 2001, Annals of Statistics 29:1165, which allows any dependence).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from rubrics.intervals import Accuracy, estimate_accuracy, group_codes, wilson
from rubrics.sheet import BAND, SEED, Longs, Sheet

Doubles = NDArray[np.float64]
Signs = NDArray[np.float32]  # -1, 0, 1

SILENT: Final = "silent"  # no criterion in force tells the sides apart
CONTRARY: Final = "contrary"  # the rubric is sure of the other side
UNSCORED: Final = "unscored"  # no criterion in force said anything of the pair
KINDS: Final = (SILENT, CONTRARY, UNSCORED)
ROUNDING: Final = 1e-6  # margins are sums of single-precision numbers

LEAST_PAIRS: Final = 20
LEAST_PROMPTS: Final = 10
RATE: Final = 0.05
EXAMPLES: Final = 3


@dataclass(frozen=True, eq=False)
class Unexplained:
    """Pairs that votes agree on and the rubric does not explain, the surest votes first.

    rows (m,) of the sheet; kinds (m,) places in KINDS; margins (m,) of the rubric, negative where
    it prefers the other side. ``sure``: how far below 0 a margin is sure of the other side.
    ``agreed`` pairs had enough votes to be looked at.
    """

    rows: Longs
    kinds: NDArray[np.int8]
    margins: Doubles
    sure: float
    least_votes: int
    agreed: int

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, *kinds: str) -> Unexplained:
        """The same of some kinds, in the same order."""
        kept = np.isin(self.kinds, [KINDS.index(kind) for kind in kinds])
        return Unexplained(
            self.rows[kept], self.kinds[kept], self.margins[kept],
            self.sure, self.least_votes, self.agreed,
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        found = np.bincount(self.kinds, minlength=len(KINDS))
        return {kind: int(found[at]) for at, kind in enumerate(KINDS)}


def enough_votes(sheet: Sheet) -> int:
    """How many votes must agree: 2, or 1 where no pair of the sheet has two for one side."""
    return 2 if bool((sheet.votes_for >= 2).any()) else 1


def unexplained(sheet: Sheet, weights: ArrayLike, least_votes: int = 2) -> Unexplained:
    """Pairs where ``least_votes`` or more agree, most of all votes, and the rubric does not.

    weights (k,), 0 for a criterion that is not in force. A rubric is sure of the other side where
    its margin is as far below 0 as its margins usually are from it: the median over the pairs that
    some criterion tells apart. Sorted by Wilson's lower bound of the share of votes, then by
    the margin, the most contrary first. Raises ValueError for weights of another shape.
    """
    given = _checked(weights, sheet)
    in_force = given != 0
    differences = sheet.differences
    margins = (differences @ given).astype(np.float64)
    tells = (np.abs(differences[:, in_force]) > BAND).any(axis=1)
    # A rubric without a criterion is silent, not unasked.
    is_scored = ~np.isnan(sheet.scores[:, :, in_force]).all(axis=(1, 2)) | (not in_force.any())
    sure = float(np.median(np.abs(margins[tells]))) if tells.any() else 0.0
    agreed = (sheet.votes_for >= max(least_votes, 1)) & (2 * sheet.votes_for > sheet.votes)
    kinds = np.full(len(margins), -1, dtype=np.int8)
    kinds[tells & (margins < -ROUNDING) & (margins <= -sure + ROUNDING)] = KINDS.index(CONTRARY)
    kinds[~tells] = KINDS.index(SILENT)
    kinds[~is_scored] = KINDS.index(UNSCORED)
    rows = np.flatnonzero(agreed & (kinds >= 0))
    certainty = _certainty(sheet.votes_for[rows], sheet.votes[rows])
    order = rows[np.lexsort((rows, margins[rows], -certainty))]
    return Unexplained(
        order, kinds[order], margins[order], sure, max(least_votes, 1), int(agreed.sum())
    )


def speakers(sheet: Sheet, weights: ArrayLike, row: int) -> tuple[list[int], list[int]]:
    """Criteria ids that speak for the chosen side of a pair and those against, strongest first."""
    given = _checked(weights, sheet)
    difference = np.nan_to_num(sheet.scores[row, 0] - sheet.scores[row, 1]).astype(np.float64)
    said = np.where(np.abs(difference) > BAND, difference * given, 0.0)
    order = np.argsort(-np.abs(said), kind="stable")
    return (
        [int(sheet.criteria[at]) for at in order if said[at] > 0],
        [int(sheet.criteria[at]) for at in order if said[at] < 0],
    )


def _certainty(votes_for: Longs, votes: Longs) -> Doubles:
    """Lower bound of the share of votes that agree, (m,)."""
    if not len(votes):
        return np.empty(0)
    cases, at = np.unique(np.stack([votes_for, votes], axis=1), axis=0, return_inverse=True)
    bounds = np.array([wilson(float(hits), float(n))[0] for hits, n in cases])
    found: Doubles = bounds[at.reshape(-1)]
    return found


# Criteria against each other ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two criteria in force that often prefer different sides of the same pair.

    Of ``both`` pairs that both tell apart, they differ on ``opposed``; ``share`` has the interval
    over prompts. ``correlation`` is of their signed differences around 0, over all pairs.
    ``rows`` are pairs on which they differ most, of different prompts where there are.
    """

    first: int
    second: int
    both: int
    opposed: int
    share: Accuracy
    correlation: float
    rows: tuple[int, ...]


def contradictions(sheet: Sheet, weights: ArrayLike) -> list[Contradiction]:
    """Pairs of criteria that differ on more than half of what both tell apart; most pairs first.

    weights (k,), 0 for a criterion that is not in force: its sign says which side it prefers.
    Two criteria that know nothing of each other differ on half. Raises ValueError as
    ``unexplained``.
    """
    given = _checked(weights, sheet)
    places = np.flatnonzero(given)
    differences = sheet.differences[:, places] * np.sign(given[places]).astype(np.float32)
    signs: Signs = np.where(np.abs(differences) > BAND, np.sign(differences), 0.0).astype(
        np.float32
    )
    told = np.abs(signs)
    both, net = told.T @ told, signs.T @ signs
    first, second = np.nonzero(np.triu(both >= LEAST_PAIRS, k=1))
    codes = group_codes(sheet.prompts) if len(sheet.prompts) else np.empty(0, dtype=np.int64)
    p = np.ones(len(first))
    for at, (i, j) in enumerate(zip(first, second, strict=True)):
        # A cheap test first: most criteria do not differ more often than they agree.
        if -net[i, j] > _critical(both[i, j]):
            p[at] = _chance(-signs[:, i] * signs[:, j], codes)
    weighted = differences * np.abs(given[places])
    found = [
        _contradiction(sheet, places, weighted, signs, (int(first[at]), int(second[at])))
        for at in _discovered(p)
    ]
    clear = [one for one in found if one.share.interval[0] > 0.5]
    return sorted(clear, key=lambda one: (-one.opposed, one.first, one.second))


def _contradiction(
    sheet: Sheet, places: Longs, weighted: NDArray[Any], signs: Signs, pair: tuple[int, int]
) -> Contradiction:
    i, j = pair
    product = signs[:, i] * signs[:, j]
    both = product != 0
    share = estimate_accuracy((product[both] < 0).astype(float), sheet.prompts[both], seed=SEED)
    assert share is not None  # LEAST_PAIRS
    a, b = weighted[:, i].astype(np.float64), weighted[:, j].astype(np.float64)
    return Contradiction(
        first=int(sheet.criteria[places[i]]),
        second=int(sheet.criteria[places[j]]),
        both=int(both.sum()),
        opposed=int((product < 0).sum()),
        share=share,
        correlation=float(a @ b / np.sqrt((a @ a) * (b @ b))),
        rows=_examples(sheet, weighted, product < 0, pair),
    )


def _examples(
    sheet: Sheet, weighted: NDArray[Any], differ: NDArray[np.bool_], pair: tuple[int, int]
) -> tuple[int, ...]:
    """Rows on which both say most, the weaker of the two counted; one of each prompt."""
    rows = np.flatnonzero(differ)
    said = np.abs(weighted[rows][:, list(pair)]).min(axis=1)
    rows = rows[np.lexsort((rows, -said))]
    _, firsts = np.unique(sheet.prompts[rows], return_index=True)
    return tuple(int(row) for row in rows[np.sort(firsts)[:EXAMPLES]])


# Criteria against themselves ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inverted:
    """A criterion that works against what it says a yes is worth.

    Of ``share.n`` pairs it tells apart, ``share`` go with the votes when a yes is worth its
    polarity; None where it tells none. ``by_weight``: its fitted weight has the other sign;
    ``by_votes``: the votes go the other way, beyond chance.
    """

    criterion: int
    share: Accuracy | None
    by_weight: bool
    by_votes: bool


def inverted(sheet: Sheet, weights: ArrayLike, polarities: ArrayLike) -> list[Inverted]:
    """Criteria in force whose weight or whose pairs go against their polarity; in their order.

    weights (k,) as used, 0 for one not in force; polarities (k,) 1 or -1. Raises ValueError as
    ``unexplained``.
    """
    given, polarity = _checked(weights, sheet), _checked(polarities, sheet)
    places = np.flatnonzero(given)
    differences = sheet.differences[:, places] * np.sign(polarity[places]).astype(np.float32)
    signs: Signs = np.where(np.abs(differences) > BAND, np.sign(differences), 0.0).astype(
        np.float32
    )
    codes = group_codes(sheet.prompts) if len(sheet.prompts) else np.empty(0, dtype=np.int64)
    enough = np.flatnonzero(np.abs(signs).sum(axis=0) >= LEAST_PAIRS)
    clear = {int(enough[at]) for at in _discovered(
        np.array([_chance(-signs[:, place], codes) for place in enough])
    )}  # fmt: skip
    found = []
    for at, place in enumerate(places):
        told = signs[:, at] != 0
        share = estimate_accuracy(
            (signs[told, at] > 0).astype(float), sheet.prompts[told], seed=SEED
        )
        by_weight = bool(given[place] * polarity[place] < 0)
        by_votes = at in clear and share is not None and share.interval[1] < 0.5
        if by_weight or by_votes:
            found.append(Inverted(int(sheet.criteria[place]), share, by_weight, by_votes))
    return found


# Chance ---------------------------------------------------------------------------------------


def _critical(n: float) -> float:
    """A surplus of signs that n independent pairs rarely have by chance."""
    return float(ndtri(1 - RATE) * np.sqrt(n))


def _chance(signs: Signs, codes: Longs) -> float:
    """How likely a mean sign of 0 makes a surplus of this size, pairs of one prompt dependent.

    A score test over prompts: the sum of their totals, by the root of the sum of their squares.
    1 with fewer than LEAST_PROMPTS prompts that say anything.
    """
    totals = np.bincount(codes, weights=signs)
    said = totals[totals != 0]
    if len(said) < LEAST_PROMPTS:
        return 1.0
    return float(ndtr(-said.sum() / np.sqrt((said**2).sum())))


def _discovered(p: Doubles) -> list[int]:
    """Places of the p values that stand out at a false discovery rate of RATE."""
    if not len(p):
        return []
    from scipy.stats import false_discovery_control  # slow to import, and every page would

    return [int(at) for at in np.flatnonzero(false_discovery_control(p, method="by") <= RATE)]


def _checked(values: ArrayLike, sheet: Sheet) -> Doubles:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != sheet.criteria.shape:
        raise ValueError(f"{found.shape} values for criteria {sheet.criteria.shape}")
    if not np.isfinite(found).all():
        raise ValueError("weights must be finite")
    return found
