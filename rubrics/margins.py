"""What a margin says of a pair: right, tied, how surprising; and means over groups of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics.intervals import Interval, cluster_bootstrap
from rubrics.l1 import Floats

TIE: Final = 1e-12  # of the largest margin: the rest of equal sums in floating point


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference of two accuracies on the same pairs, with its interval over groups."""

    value: float
    interval: Interval

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {"value": self.value, "interval": list(self.interval)}


def is_tie(margins: Floats) -> NDArray[np.bool_]:
    """Where both sides have the same score, (pairs,)."""
    largest = np.abs(margins).max(initial=0.0)
    found: NDArray[np.bool_] = np.abs(margins) <= TIE * largest
    return found


def is_right(margins: Floats) -> Floats:
    """1 where the preferred side has the higher score, else 0: a tie is wrong."""
    return ((margins > 0) & ~is_tie(margins)).astype(np.float64)


def log_losses(margins: Floats) -> Floats:
    """``-log sigmoid(margin)``, (pairs,)."""
    found: Floats = np.logaddexp(0.0, -margins)
    return found


def mean_with_error(
    values: Floats, weights: Floats, codes: NDArray[np.int64]
) -> tuple[float, float]:
    """Weighted mean and its standard error where values of one group are not independent."""
    total = weights.sum()
    mean = float((values * weights).sum() / total)
    sums = np.bincount(codes, weights=weights * (values - mean))
    m = len(sums)
    return mean, float(np.sqrt((sums**2).sum() * m / max(m - 1, 1)) / total)


def gain(differences: Floats, codes: NDArray[np.int64], *, seed: int) -> Gain:
    """Mean of per-pair differences of correctness, (pairs,) in -1..1, bootstrap over groups.

    Where all groups say the same, the bootstrap would claim certainty: the interval is widened
    by what m groups cannot exclude at 95 %, ``1 - 0.05 ** (1 / m)``.
    """
    mean = float(differences.mean())
    low, high = cluster_bootstrap(differences, codes, seed=seed)
    if low == high:
        unseen = 1 - 0.05 ** (1 / (int(codes.max()) + 1))
        low, high = max(-1.0, mean - unseen), min(1.0, mean + unseen)
    return Gain(mean, (min(low, mean), max(high, mean)))
