"""Agreement seen from the raters: who agrees with whom, and one against the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from models.intervals import Interval, estimate_accuracy
from models.ratings import Floats, Ints, Ratings, Table, as_ratings, codes_of

Weights = Literal["linear", "quadratic"]

MOST_RATERS: Final = 1000  # of a raters x raters table
MOST_CATEGORIES: Final = 100  # of the same: products of the table's size for each


@dataclass(frozen=True, eq=False)
class PairwiseKappas:
    """Who agrees with whom.

    raters (R,) the sorted codes of those who rated; kappa (R, R), 1 on the diagonal, NaN where two
    people share no unit or both gave one same label throughout; agreement (R, R) the share of
    shared units with equal ratings, NaN where there are none; shared (R, R) how many units both
    rated (on the diagonal, how many one rated).
    """

    raters: Ints
    kappa: Floats
    agreement: Floats
    shared: Ints


@dataclass(frozen=True)
class LeaveOneOut:
    """How often one rater gives the verdict of the others, with its 95 % interval.

    ``accuracy`` is over ``n`` ratings of ``groups`` units; at ``split`` of them the others were
    split evenly and the credit was shared out. ``method`` names the interval.
    """

    accuracy: float
    interval: Interval
    n: int
    groups: int
    method: str
    split: int


def pairwise_kappas(
    ratings: Ratings | ArrayLike, *, weights: Weights | None = None
) -> PairwiseKappas:
    """Cohen's kappa of every two raters over the units both rated.

    Weighted kappas take the distance of two categories in the sorted values of all the ratings.
    Raises ValueError over 1,000 raters (pick some with ``Ratings.where``) or over 100 distinct
    values (scores: use alpha), on unknown weights, and on broken input (``Ratings``).
    """
    if weights not in (None, *get_args(Weights)):
        raise ValueError(f"weights {weights!r} is not None or one of {get_args(Weights)}")
    data = as_ratings(ratings)
    raters, rater = codes_of(data.raters)
    units, unit = codes_of(data.units)
    domain, category = codes_of(data.values)
    if len(raters) > MOST_RATERS or len(domain) > MOST_CATEGORIES:
        raise ValueError(
            f"{len(raters)} raters and {len(domain)} distinct values: a table of kappas takes at"
            f" most {MOST_RATERS} and {MOST_CATEGORIES}"
        )
    rated = csr_array((np.ones(len(data)), (rater, unit)), (len(raters), len(units)))
    shared = (rated @ rated.T).toarray()  # (R, R)
    observed, expected, unequal = np.zeros((3, *shared.shape))
    for step, said, agreed in _indicators(rated, rater, unit, category):
        differ = said + said.T - 2 * agreed  # just one of the two
        by_chance = said * (shared - said.T) + said.T * (shared - said)
        if step == "category":
            unequal += differ / 2  # who differ, differ in two categories
        if step == ("category" if weights is None else "cut"):
            observed += differ
            expected += by_chance
    if weights == "quadratic":
        observed, expected = _squared_gaps(rated, rater, unit, category)
    nothing = np.full_like(shared, np.nan)
    differing = np.divide(unequal, shared, out=nothing.copy(), where=shared > 0)
    ratio = np.divide(observed * shared, expected, out=nothing, where=expected > 0)
    return PairwiseKappas(raters, 1 - ratio, 1 - differing, shared.astype(np.int64))


def leave_one_out(ratings: Ratings | ArrayLike, *, seed: int = 0) -> LeaveOneOut | None:
    """How often one person's rating is the commonest among the others of the same unit.

    The human-human ceiling for any categories: what a perfect imitation of the crowd could be
    asked for. Where k values are equally common among the others, each earns 1 / k. (For pairwise
    outcomes ``models.baselines.human_ceiling`` leaves such votes out and nets a tie against
    both sides, as reward models are scored.) Interval over units, Wilson's where all or no
    ratings agree. None without a unit rated twice. Raises ValueError on broken input.
    """
    table = Table.of(as_ratings(ratings))
    if not len(table.times):
        return None
    unit = np.repeat(np.arange(len(table.times)), np.diff(table.cells.indptr))  # (cells,)
    count = table.cells.data
    top, at_top = _top(unit, count)
    below = count < top[unit]
    second, at_second = _top(unit[below], count[below], units=len(top))
    # The highest count among the other values of the unit, and how many values have it.
    alone = ~below & (at_top[unit] == 1)
    rival = np.where(alone, second[unit], top[unit])
    rivals = np.where(alone, at_second[unit], at_top[unit] - ~below)
    own = count - 1
    credit = np.where(own > rival, 1.0, np.where(own == rival, 1 / (1 + rivals), 0.0))
    tied = np.where(own == rival, rivals > 0, (own < rival) & (rivals > 1))
    repeats = count.astype(np.int64)
    found = estimate_accuracy(np.repeat(credit, repeats), np.repeat(unit, repeats), seed=seed)
    assert found is not None, "there is a rating"
    split = int(repeats[tied].sum())
    return LeaveOneOut(found.accuracy, found.interval, found.n, found.groups, found.method, split)


def _top(unit: Ints, count: Floats, *, units: int | None = None) -> tuple[Floats, Ints]:
    """Highest count of each unit (U,), 0 where it has none, and how many values reach it."""
    size = int(unit.max(initial=-1)) + 1 if units is None else units
    top = np.zeros(size)
    np.maximum.at(top, unit, count)
    return top, np.bincount(unit[count == top[unit]], minlength=size).astype(np.int64)


def _indicators(
    rated: csr_array, rater: Ints, unit: Ints, category: Ints
) -> Iterator[tuple[str, Floats, Floats]]:
    """Every "is category c" and "lies at or below the cut c", as tables (R, R).

    For rater i against j over their shared units: how often i has it, and how often both have.
    A disagreement is two categories that just one has; the distance of two categories is the
    number of cuts that just one lies below.
    """
    for step, test in (("category", np.equal), ("cut", np.less_equal)):
        for code in range(int(category.max(initial=-1)) + 1):
            rows = test(category, code)
            has = csr_array((np.ones(rows.sum()), (rater[rows], unit[rows])), rated.shape)
            yield step, (has @ rated.T).toarray(), (has @ has.T).toarray()


def _squared_gaps(
    rated: csr_array, rater: Ints, unit: Ints, category: Ints
) -> tuple[Floats, Floats]:
    """Sum over shared units of the squared gap, and by chance (times the shared units), (R, R)."""
    place = csr_array((category.astype(np.float64), (rater, unit)), rated.shape)
    shared = (rated @ rated.T).toarray()
    sums, squares = (place @ rated.T).toarray(), (place.power(2) @ rated.T).toarray()
    squares = squares + squares.T
    return squares - 2 * (place @ place.T).toarray(), shared * squares - 2 * sums * sums.T
