"""Bootstrap over clusters of sums, and means with clustered errors: for hundreds of thousands."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from models.intervals import Interval, group_codes

Floats = NDArray[np.float64]

CELLS_AT_ONCE: Final = 4_000_000  # of (replicates x clusters), about 32 MB
MANY: Final = 20_000  # clusters from which fewer replicates do
FEWER: Final = 200


def cluster_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Sums of the rows of each cluster; values (n, k), groups (n,) codes from 0, gives (c, k)."""
    size = int(groups.max(initial=-1)) + 1
    columns = [np.bincount(groups, weights=column, minlength=size) for column in values.T]
    return np.stack(columns, axis=1)


def resampled_sums(values: ArrayLike, groups: ArrayLike, *, replicates: int, seed: int) -> Floats:
    """Column sums with clusters drawn with replacement, whole, as many as there are.

    values (n, k); groups (n,) integers; gives (replicates, k), at most FEWER replicates where
    there are more than MANY clusters: their sums hardly vary by then.
    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8.
    """
    codes = group_codes(groups)
    sums = cluster_sums(np.asarray(values, dtype=np.float64), codes)
    size = len(sums)
    if size > MANY:
        replicates = min(replicates, FEWER)
    rng = np.random.default_rng(seed)
    step = max(1, CELLS_AT_ONCE // max(size, 1))
    found = []
    for start in range(0, replicates, step):
        draws = (rng.integers(size, size=size) for _ in range(min(step, replicates - start)))
        times = np.stack([np.bincount(draw, minlength=size) for draw in draws])
        found.append(times.astype(np.float64) @ sums)
    return np.concatenate(found) if found else np.empty((0, sums.shape[1]))


def mean_interval(values: ArrayLike, groups: ArrayLike, level: float = 0.95) -> Interval | None:
    """Interval of a mean whose cases come in clusters, by the normal approximation.

    values (n,) of any kind; groups (n,). None for fewer than two clusters. The error is that of a
    ratio of cluster sums: Liang and Zeger 1986, Biometrika 73:13.
    """
    value = np.asarray(values, dtype=np.float64)
    codes = group_codes(groups)
    size = int(codes.max(initial=-1)) + 1
    if size < 2:
        return None
    mean = float(value.mean())
    surplus = np.bincount(codes, weights=value - mean)
    error = float(np.sqrt(size / (size - 1) * (surplus**2).sum())) / len(value)
    half = float(ndtri(0.5 + level / 2)) * error
    return mean - half, mean + half
