"""Who was compared with whom: checked edges, their totals per item, and what they connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

NAMED_AT_MOST: Final = 5  # items written out in a message


@dataclass(frozen=True)
class Ranking:
    """Scores of n items on the log-odds scale, and how far to trust them. All arrays (n,).

    ``scores`` have mean 0 in every connected component; ``standard_errors`` are of those centered
    scores and ``low``, ``high`` the interval at ``level``. ``wins`` counts a tie as half a win.
    An item that was in no comparison has score 0 and the whole width of the prior.
    Scores of different ``components`` cannot be compared. ``unbeaten`` and ``winless`` are the
    items that never lost or never won a thing: only the ridge keeps their scores finite.
    ``message`` says all this in words. ``covariance`` (n, n) is None for more than
    ``models.newton.DENSE_LIMIT`` items, where ``interval_method`` says what was done instead.
    """

    scores: Floats
    standard_errors: Floats
    low: Floats
    high: Floats
    wins: Floats
    games: Floats
    components: NDArray[np.intp]
    n_components: int
    is_connected: bool
    unbeaten: tuple[int, ...]
    winless: tuple[int, ...]
    message: str
    level: float
    interval_method: str
    n_iter: int
    converged: bool
    covariance: Floats | None = None


@dataclass(frozen=True)
class Edges:
    """Comparisons with one row per unordered pair, ``i < j``, and the weight each side won."""

    i: Codes
    j: Codes
    won_i: Floats
    won_j: Floats
    row: NDArray[np.intp]  # the pair of each input row
    sign: Floats  # +1 where the input row was written as (i, j), else -1


@dataclass(frozen=True)
class Graph:
    """What the comparisons connect; see Ranking."""

    components: NDArray[np.intp]
    n_components: int
    unbeaten: tuple[int, ...]
    winless: tuple[int, ...]
    message: str


def as_codes(values: ArrayLike, name: str, n: int | None = None) -> Codes:
    """Whole numbers 0..n-1 (any from 0, if n is None) as (m,) int64.

    Raises ValueError naming what is wrong.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not {array.shape}")
    if array.size and array.dtype.kind not in "iub":
        raise ValueError(f"{name} must be whole numbers, not {array.dtype}")
    codes = array.astype(np.int64)
    if n is None:
        if codes.size and codes.min() < 0:
            raise ValueError(f"{name} must be 0 or more, found {codes.min()}")
    elif codes.size and (codes.min() < 0 or codes.max() >= n):
        raise ValueError(f"{name} must be in 0..{n - 1}, found {codes.min()}..{codes.max()}")
    return codes


def as_weights(weights: ArrayLike | None, n: int) -> Floats:
    """Weights (n,), ones if None. Raises ValueError on a negative or infinite one."""
    if weights is None:
        return np.ones(n)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"weights {array.shape} must be ({n},)")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("weights must be finite and not negative")
    return array


def as_shares(outcome: ArrayLike, n: int) -> Floats:
    """Outcomes +1, 0, -1 as the share (n,) that the first side won: 1, .5, 0."""
    array = np.asarray(outcome)
    if array.shape != (n,):
        raise ValueError(f"outcome {array.shape} must be ({n},)")
    if not np.isin(array, (-1, 0, 1)).all():
        raise ValueError("outcome must be +1 (a wins), 0 (tie) or -1 (b wins)")
    return np.asarray((array.astype(np.float64) + 1) / 2)


def aggregate(
    a: ArrayLike, b: ArrayLike, outcome: ArrayLike, *, n_items: int, weights: ArrayLike | None
) -> Edges:
    """Checked comparisons, summed per unordered pair. Raises ValueError; see bradley_terry."""
    first, second = as_codes(a, "a", n_items), as_codes(b, "b", n_items)
    if first.size == 0:
        raise ValueError("there are no comparisons")
    if first.shape != second.shape:
        raise ValueError(f"a {first.shape} and b {second.shape} must be equal in shape")
    if (first == second).any():
        raise ValueError("an item cannot be compared with itself")
    share, weight = as_shares(outcome, first.size), as_weights(weights, first.size)
    ordered = first < second
    low, high = np.minimum(first, second), np.maximum(first, second)
    code, row = np.unique(low * n_items + high, return_inverse=True)
    won_low = weight * np.where(ordered, share, 1 - share)
    total = np.bincount(row, weights=weight)
    won = np.bincount(row, weights=won_low).astype(np.float64)
    sign = np.where(ordered, 1.0, -1.0)
    return Edges(code // n_items, code % n_items, won, np.maximum(total - won, 0.0), row, sign)


def describe(winners: Codes, losers: Codes, *, n_items: int, games: Floats) -> Graph:
    """Components of the graph and the items that only the prior holds.

    winners, losers (m,): one row per "winner got something from loser"; a tie is a row each way.
    games (n_items,): weight of comparisons of each item.
    Source: Ford 1957, American Mathematical Monthly 64:28 (finite scores need that in every split
    of the items in two someone of each side beat someone of the other).
    """
    ones = np.ones(len(winners), dtype=np.int8)
    graph = csr_array((ones, (winners, losers)), shape=(n_items, n_items))
    n_components, components = connected_components(graph, directed=False)
    n_strong, _ = connected_components(graph, directed=True, connection="strong")
    played = games > 0
    lost = np.bincount(losers, minlength=n_items) > 0
    won = np.bincount(winners, minlength=n_items) > 0
    unbeaten = tuple(np.flatnonzero(played & ~lost).tolist())
    winless = tuple(np.flatnonzero(played & ~won).tolist())
    parts = [_connection(components, played)]
    parts += _held_by_prior(unbeaten, "never lost") + _held_by_prior(winless, "never won")
    if n_strong > n_components and not (unbeaten or winless):
        parts.append("Some items as a group never lost to the rest: the distance is a guess.")
    return Graph(components, int(n_components), unbeaten, winless, " ".join(parts))


def _connection(components: NDArray[np.intp], played: NDArray[np.bool_]) -> str:
    alone = int(np.count_nonzero(~played))
    sizes = np.bincount(components[played])
    groups = sizes[sizes > 0]
    parts = []
    if len(groups) > 1:
        parts.append(
            f"The comparisons fall into {len(groups):,} groups with no comparison between them "
            f"(the largest has {groups.max():,} items): scores of different groups cannot be "
            "compared."
        )
    elif len(groups) == 1:
        parts.append(f"Comparisons connect {groups[0]:,} items.")
    if alone:
        parts.append(f"{_count(alone, 'item was', 'items were')} never compared.")
    return " ".join(parts)


def _held_by_prior(items: Sequence[int], what: str) -> list[str]:
    if not items:
        return []
    named = ", ".join(str(item) for item in items[:NAMED_AT_MOST])
    more = ", ..." if len(items) > NAMED_AT_MOST else ""
    counted = _count(len(items), "item", "items")
    return [f"{counted} {what} ({named}{more}): how far from the others is a guess."]


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
