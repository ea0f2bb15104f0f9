"""Kappa and alpha of two raters from their table, with an interval over clusters. Pure numpy.

For many cases and few classes: every replicate is a sum of small tables, so that hundreds of
thousands of cases cost one matrix product. ``models.agreement`` has the general case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.intervals import Interval, group_codes
from models.resampling import resampled_sums

Floats = NDArray[np.float64]
Statistic = Literal["cohen", "nominal", "ordinal"]

REPLICATES: Final = 1000
DEFINED: Final = 0.95  # of the replicates, else there is no interval


@dataclass(frozen=True)
class Paired:
    """A coefficient, None where undefined, over ``n`` cases in ``groups`` clusters."""

    value: float | None
    interval: Interval | None
    n: int
    groups: int


def paired_agreement(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    classes: int,
    statistic: Statistic,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Paired:
    """Agreement of two raters who both judged every case; first, second, groups (n,).

    ``cohen`` is Cohen's kappa, ``nominal`` and ``ordinal`` Krippendorff's alpha, classes being in
    their order. The interval draws clusters, whole. Raises ValueError on classes out of range.
    """
    one, two = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    names = np.asarray(groups)
    if not one.shape == two.shape == names.shape:
        raise ValueError(f"shapes differ: {one.shape}, {two.shape}, {names.shape}")
    size = int(group_codes(names).max(initial=-1)) + 1
    if not len(one):
        return Paired(None, None, 0, 0)
    if min(one.min(), two.min()) < 0 or max(one.max(), two.max()) >= classes:
        raise ValueError(f"classes must be in 0..{classes - 1}")
    cells = np.zeros((len(one), classes * classes))
    cells[np.arange(len(one)), one * classes + two] = 1
    value = float(_of_tables(cells.sum(axis=0)[None], classes, statistic)[0])
    drawn = resampled_sums(cells, names, replicates=replicates, seed=seed)
    found = _of_tables(drawn, classes, statistic)
    known = found[np.isfinite(found)]
    interval = None
    if np.isfinite(value) and len(known) >= DEFINED * len(found) and known.min() < known.max():
        low, high = np.quantile(known, [0.025, 0.975])
        interval = (float(low), float(high))
    return Paired(value if np.isfinite(value) else None, interval, len(one), size)


def _of_tables(tables: Floats, classes: int, statistic: Statistic) -> Floats:
    """The coefficient of each of B tables given as rows (B, classes^2); nan where undefined."""
    counts = tables.reshape(-1, classes, classes)
    rows, columns, n = counts.sum(axis=2), counts.sum(axis=1), counts.sum(axis=(1, 2))
    if statistic == "cohen":
        apart = n - np.trace(counts, axis1=1, axis2=2)
        chance = n - _ratio((rows * columns).sum(axis=1), n)
        return np.asarray(1 - _ratio(apart, chance))
    both = rows + columns  # how often each class was given, by either
    coincidence = counts + counts.transpose(0, 2, 1)
    distance = _distance(both, classes, statistic)
    apart = (coincidence * distance).sum(axis=(1, 2))
    chance = (both[:, :, None] * both[:, None, :] * distance).sum(axis=(1, 2))
    return np.asarray(1 - _ratio((2 * n - 1) * apart, chance), dtype=np.float64)


def _distance(both: Floats, classes: int, statistic: Statistic) -> Floats:
    """Squared distance of every two classes, (B, classes, classes)."""
    if statistic == "nominal":
        return np.broadcast_to(1.0 - np.eye(classes), (len(both), classes, classes))
    middle = np.cumsum(both, axis=1) - both / 2  # Krippendorff's ordinal metric by mid-ranks
    return np.asarray((middle[:, :, None] - middle[:, None, :]) ** 2)


def _ratio(above: Floats, below: Floats) -> Floats:
    nothing: Floats = np.full(below.shape, np.nan)
    return np.divide(above, below, out=nothing, where=below > 0)
