"""The formulas of agreement, and their bootstrap. ``models.agreement`` is the way in.

A coefficient here is prepared once and then evaluated for many weightings of the rows at once:
weights (B, rows), how often each row counts, give values (B,), NaN where undefined. Weights equal
to ``Table.times`` give the estimate, random ones a bootstrap replicate, so both are one formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from models.intervals import CELLS_AT_ONCE, Interval
from models.ratings import Floats, Ints, Table

Coefficient = Callable[[Floats], Floats]

FEW_KINDS: Final = 2048  # above it, drawing units one by one is quicker than a multinomial
DEFINED: Final = 0.95  # share of replicates that must be defined; with fewer the tails are unknown


def percent(table: Table) -> Coefficient:
    """Mean over units of the share of pairs of ratings that are equal."""
    shares = _agreeing_pairs(table) / _pairs(table)
    return lambda weights: _ratio(weights @ shares, weights.sum(axis=1))


def percent_pooled(table: Table) -> Coefficient:
    """Share of all pairs of ratings within units that are equal."""
    agreeing, pairs = _agreeing_pairs(table), _pairs(table)
    return lambda weights: _ratio(weights @ agreeing, weights @ pairs)


def fleiss(table: Table) -> Coefficient:
    """Observed: ``percent``; by chance: two ratings drawn from all those counted."""
    observed = percent(table)

    def evaluate(weights: Floats) -> Floats:
        counts = weights @ table.cells  # (B, K)
        n = counts.sum(axis=1)
        expected = _ratio((counts**2).sum(axis=1), n**2)
        return _corrected(1 - observed(weights), 1 - expected, defined=_varies(counts, n))

    return evaluate


def alpha_nominal(table: Table) -> Coefficient:
    """Squared distance 0 or 1."""
    disagreement = (table.sizes**2 - _squares(table)) / (table.sizes - 1)

    def evaluate(weights: Floats) -> Floats:
        counts = weights @ table.cells  # (B, K)
        n = counts.sum(axis=1)
        expected = _ratio(n**2 - (counts**2).sum(axis=1), n - 1)
        return _corrected(weights @ disagreement, expected, defined=_varies(counts, n))

    return evaluate


def alpha_interval(table: Table) -> Coefficient:
    """Squared distance of the values. By moments, so any number of distinct values will do.

    Over ordered pairs of m values, sum (x - y)**2 = 2 m sum (x - mean)**2.
    """
    scaled = _unit_range(table.domain)
    sums = table.cells @ scaled
    total = max(1.0, table.sizes.sum())
    scaled = scaled - sums.sum() / total
    sums, squares = table.cells @ scaled, table.cells @ scaled**2  # (rows,)
    means = np.repeat(sums / table.sizes, np.diff(table.cells.indptr))
    spread = table.cells.data * (scaled[table.cells.indices] - means) ** 2  # (cells,)
    within = csr_array((spread, table.cells.indices, table.cells.indptr), table.cells.shape)
    disagreement = within.sum(axis=1) * table.sizes / (table.sizes - 1)

    def evaluate(weights: Floats) -> Floats:
        n, raw = weights @ table.sizes, weights @ squares
        around_mean = raw - _ratio((weights @ sums) ** 2, n)
        expected = _ratio(n * around_mean, n - 1)
        return _corrected(weights @ disagreement, expected, defined=around_mean > 1e-12 * raw)

    return evaluate


def alpha_ordinal(table: Table) -> Coefficient:
    """Squared distance of the mid-ranks, which the replicate's own counts decide.

    Krippendorff's sum of the counts from c to k less half of both ends is the difference of the
    mid-ranks of k and c: the interval formula on ranks, with no (K, K) table.
    """
    disputed = _disputed(table)
    cells, sizes = table.cells[disputed], table.sizes[disputed]

    def evaluate(weights: Floats) -> Floats:
        counts = weights @ table.cells  # (B, K)
        n = counts.sum(axis=1)
        ranks = _ratio(np.cumsum(counts, axis=1) - counts / 2, n[:, None]) - 0.5  # mean 0
        spare = weights[:, disputed] / (sizes - 1)  # (B, disputed rows)
        squares = ((spare * sizes) @ cells * ranks**2).sum(axis=1)
        observed = squares - (spare * (cells @ ranks.T).T ** 2).sum(axis=1)
        expected = _ratio(n * (counts * ranks**2).sum(axis=1), n - 1)
        return _corrected(observed, expected, defined=_varies(counts, n))

    return evaluate


def cohen(first: Ints, second: Ints, width: int, weights: str | None) -> Coefficient:
    """Kappa of two raters; rows are kinds of item.

    first, second (rows,) the categories 0..width-1 that they gave. ``weights`` None: all
    disagreements alike; "linear", "quadratic": by the distance of the categories.
    """
    rows, ones = np.arange(len(first)), np.ones(len(first))
    of_first = csr_array((ones, (rows, first)), (len(first), width))
    of_second = csr_array((ones, (rows, second)), (len(first), width))
    position = np.arange(width, dtype=np.float64)
    gap = np.abs(first - second).astype(np.float64)
    distance = {None: (gap > 0).astype(np.float64), "linear": gap, "quadratic": gap**2}[weights]

    def evaluate(times: Floats) -> Floats:
        a, b, n = times @ of_first, times @ of_second, times.sum(axis=1)  # (B, K) twice, (B,)
        if weights is None:
            expected = n - _ratio((a * b).sum(axis=1), n)
        elif weights == "linear":  # E|i - j| is how often a cut falls between i and j, over cuts
            below_a, below_b, all_ = np.cumsum(a, axis=1), np.cumsum(b, axis=1), n[:, None]
            between = below_a * (all_ - below_b) + below_b * (all_ - below_a)
            expected = _ratio(between.sum(axis=1), n)
        else:
            expected = (a + b) @ position**2 - _ratio(2 * (a @ position) * (b @ position), n)
        constant = ((a == n[:, None]) & (b == n[:, None])).any(axis=1)
        return _corrected(times @ distance, expected, defined=~constant)

    return evaluate


def bootstrap(
    coefficient: Coefficient,
    times: Ints,
    *,
    width: int,
    replicates: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval | None:
    """Percentile interval: units drawn with replacement, whole, as many as there are.

    times (rows,) how many units each row stands for; ``width`` is the number of categories, which
    bounds the memory. Equal units are interchangeable, so few kinds are drawn by one multinomial.
    None where more than a twentieth of the replicates is undefined (all drawn units constant).
    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8; Zapf et al.
    2016, BMC Medical Research Methodology 16:93, for alpha.
    """
    units, rows = int(times.sum()), len(times)
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(rows), times) if rows > FEW_KINDS else np.empty(0, np.int64)
    step = max(1, CELLS_AT_ONCE // max(rows, width))
    values = []
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        if rows > FEW_KINDS:
            draws = (member[rng.integers(units, size=units)] for _ in range(size))
            weights = np.stack([np.bincount(draw, minlength=rows) for draw in draws])
        else:
            weights = rng.multinomial(units, times / units, size=size)
        values.append(coefficient(weights.astype(np.float64)))
    return _quantiles(np.concatenate(values), replicates=replicates, confidence=confidence)


def bootstrap_groups(
    coefficient: Coefficient,
    groups: Ints,
    *,
    width: int,
    replicates: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval | None:
    """``bootstrap`` where units come in groups, drawn whole; groups (rows,) codes from 0.

    The pairs of one ranking are not independent of each other: their ranking is the unit.
    """
    rng = np.random.default_rng(seed)
    rows, size = len(groups), int(groups.max()) + 1
    step = max(1, CELLS_AT_ONCE // max(rows, width))
    values = []
    for start in range(0, replicates, step):
        drawn = (rng.integers(size, size=size) for _ in range(min(step, replicates - start)))
        weights = np.stack([np.bincount(draw, minlength=size)[groups] for draw in drawn])
        values.append(coefficient(weights.astype(np.float64)))
    return _quantiles(np.concatenate(values), replicates=replicates, confidence=confidence)


def _quantiles(values: Floats, *, replicates: int, confidence: float) -> Interval | None:
    found = values[~np.isnan(values)]
    if len(found) < DEFINED * replicates:
        return None
    low, high = np.quantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _corrected(observed: Floats, expected: Floats, *, defined: NDArray[np.bool_]) -> Floats:
    """1 - observed disagreement / disagreement by chance; NaN where that is not defined."""
    return np.where(defined, 1 - _ratio(observed, expected), np.nan)


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(above, below)
    nothing: Floats = np.full(above.shape, np.nan)
    return np.divide(above, below, out=nothing, where=below != 0)


def _varies(counts: Floats, n: Floats) -> NDArray[np.bool_]:
    """Whether a replicate has more than one category; counts (B, K), n (B,)."""
    varies: NDArray[np.bool_] = ~(counts == n[:, None]).any(axis=1)
    return varies


def _unit_range(domain: Floats) -> Floats:
    """Sorted values moved and scaled into 0..1, without overflow near 1e308."""
    if np.abs(domain).max(initial=0.0) > 1e300:
        domain = domain / 2
    moved = domain - domain[:1]
    return moved / moved[-1] if len(moved) > 1 else moved


def _squares(table: Table) -> Floats:
    return np.asarray(table.cells.power(2).sum(axis=1), dtype=np.float64)  # (rows,)


def _pairs(table: Table) -> Floats:
    return table.sizes * (table.sizes - 1)


def _agreeing_pairs(table: Table) -> Floats:
    return _squares(table) - table.sizes


def _disputed(table: Table) -> NDArray[np.bool_]:
    disputed: NDArray[np.bool_] = np.diff(table.cells.indptr) > 1  # (rows,) of several values
    return disputed
