"""Confidence intervals for an accuracy. Pure numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Interval = tuple[float, float]

CELLS_AT_ONCE: Final = 4_000_000  # of (replicates x kinds of cluster), about 32 MB
FEW: Final = 10  # groups below which a bootstrap over them knows less than it says
SPARSE: Final = 8  # ids spread over at most so many times their number are counted, not sorted


@dataclass(frozen=True)
class Accuracy:
    """A share of correct answers with its interval and what it was counted on.

    ``n`` cases were counted, in ``groups`` independent clusters; ``ties`` cases had no right
    answer and were left out; ``method`` names the interval.
    """

    accuracy: float
    interval: Interval
    n: int
    groups: int
    method: str
    ties: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "n": self.n,
            "groups": self.groups,
            "interval_method": self.method,
            "ties": self.ties,
        }


def wilson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Wilson score interval of a share, ``hits`` out of ``n`` independent cases.

    ``n = 0`` knows nothing: (0, 1). Raises ValueError if ``hits`` is outside 0..n.
    Source: Wilson 1927, Journal of the American Statistical Association 22:209.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits={hits} is outside 0..n={n}")
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + level / 2))
    share = hits / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    # The ends are exact at 0 and n; floating point must not say 0.9999999.
    low = 0.0 if hits == 0 else max(0.0, center - half)
    high = 1.0 if hits == n else min(1.0, center + half)
    return low, high


def cluster_bootstrap(
    correct: ArrayLike, groups: ArrayLike, *, seed: int, n: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile interval of ``mean(correct)`` when cases of one group are not independent.

    correct (m,) of 0/1 or shares; groups (m,) integer cluster of each case, such as its prompt.
    Clusters are drawn with replacement, whole. Clusters with equal (sum, size) are
    interchangeable, so one replicate is one multinomial draw over the kinds of cluster: the same
    distribution as drawing them one by one, at a cost free of m.
    Raises ValueError on empty or ragged input.
    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8.
    """
    sums, sizes = _clusters(correct, groups)
    kinds, counts = _kinds(sums, sizes)  # (k, 2), (k,)
    share = counts / counts.sum()
    rng = np.random.default_rng(seed)
    step = max(1, CELLS_AT_ONCE // len(kinds))
    means = []
    for start in range(0, n, step):
        drawn = rng.multinomial(counts.sum(), share, size=min(step, n - start))  # (b, k)
        totals = drawn @ kinds  # (b, 2)
        means.append(totals[:, 0] / totals[:, 1])
    low, high = np.quantile(np.concatenate(means), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def estimate_accuracy(
    correct: ArrayLike, groups: ArrayLike | None = None, *, seed: int, ties: int = 0
) -> Accuracy | None:
    """Accuracy with the interval that fits the data; None where nothing was counted.

    Wilson where every case is its own group, else the bootstrap over groups. Of fewer than FEW
    groups, or of groups that all have one share, a bootstrap is too narrow or has no width, which
    would claim certainty: Wilson on the number of groups is given instead, as if the cases of a
    group said the same.
    """
    hits = np.asarray(correct, dtype=float)
    if hits.size == 0:
        return None
    labels = np.arange(hits.size) if groups is None else np.asarray(groups)
    sums, sizes = _clusters(hits, labels)
    mean, m = float(hits.mean()), len(sums)
    interval: Interval
    if m == hits.size:
        method, interval = "wilson", wilson(float(hits.sum()), hits.size)
    elif m < FEW or np.ptp(sums / sizes) == 0:
        method, interval = "wilson on groups", wilson(mean * m, m)
    else:
        method, interval = "bootstrap over groups", cluster_bootstrap(hits, labels, seed=seed)
    return Accuracy(mean, interval, int(hits.size), m, method, ties)


def _clusters(
    correct: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of every cluster, (m,) each."""
    hits, labels = np.asarray(correct, dtype=float), np.asarray(groups)
    if hits.ndim != 1 or hits.shape != labels.shape or hits.size == 0:
        raise ValueError(f"correct {hits.shape} and groups {labels.shape} must be equal and (m,)")
    index = group_codes(labels)
    sums, sizes = np.bincount(index, weights=hits), np.bincount(index)
    return sums.astype(np.float64), sizes.astype(np.float64)


def group_codes(labels: ArrayLike) -> NDArray[np.int64]:
    """The code of each label (m,), from 0 without gaps, in the order of the labels.

    Ids that lie close to each other are counted, which is much quicker than sorting them.
    """
    given = np.asarray(labels)
    if given.size and given.dtype.kind in "iu":
        low, high = int(given.min()), int(given.max())
        if high - low <= SPARSE * given.size and high < 2**63:
            moved = given.astype(np.int64) - low
            codes: NDArray[np.int64] = (np.cumsum(np.bincount(moved) > 0) - 1)[moved]
            return codes
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _kinds(
    sums: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The different (sum, size) and how many clusters have each; whole and half sums are quick."""
    halves, width = np.rint(2 * sums), int(sizes.max()) + 1
    if not (np.array_equal(halves, 2 * sums) and np.abs(halves).max() < 2**52 // width):
        return np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    keys, counts = np.unique((halves * width + sizes).astype(np.int64), return_counts=True)
    size = keys % width
    return np.stack([(keys - size) / width / 2, size], axis=1).astype(np.float64), counts
