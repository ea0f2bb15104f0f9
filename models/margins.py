"""Margins of a reward model: their scale, and what a row weighs by them. Pure numpy.

A margin is the signed difference ``r(labeled winner) - r(loser)``. What weighs rows by it takes the
margin for log-odds, which a trained model's is only after **calibration**: one temperature, learned
on votes that the model has not seen. A model is surer of the pairs it was trained on than their
margins should say; nothing here mends that (cross-fitting would).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

FEWEST: Final = 50  # pairs, below which no temperature is learned
FLATTEST, STEEPEST = 1e-3, 1e3  # slopes: a model that says nothing, one that is never wrong
STEPS: Final = 60
Z: Final = 1.959964


@dataclass(frozen=True)
class Slope:
    """``sigmoid(slope * margin)`` is the chance that the winner is the better one.

    ``low`` and ``high``: 95 percent, over ``groups`` independent groups of ``n`` pairs. The slope is one over the temperature.
    """

    slope: float
    low: float
    high: float
    n: int
    groups: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "temperature": 1 / self.slope,
            "slope": self.slope,
            "interval": [self.low, self.high],
            "pairs": self.n,
            "prompts": self.groups,
        }


def fit_slope(margins: ArrayLike, p: ArrayLike, groups: ArrayLike) -> Slope | None:
    """The slope of least log loss of margins (n,) on soft labels p (n,), groups (n,) of pairs that
    are not independent, such as those of one prompt.

    None where there are fewer than FEWEST pairs, or where no slope is best: all margins are 0, or
    they are never right, or never wrong. Newton's method between bounds; the interval is that of the
    clustered sandwich. Source: Guo et al. 2017, arXiv 1706.04599.
    """
    x, label = np.asarray(margins, np.float64), np.asarray(p, np.float64)
    if not x.shape == label.shape == np.shape(groups) or x.ndim != 1:
        raise ValueError(f"shapes differ: {x.shape}, {label.shape}, {np.shape(groups)}")
    spread = float(np.abs(x).mean()) if x.size else 0.0
    if x.size < FEWEST or not spread > 0:
        return None
    x = x / spread
    low, high, slope = FLATTEST, STEEPEST, 1.0
    for _ in range(STEPS):
        chance = logistic(slope * x)
        gradient = float(((label - chance) * x).sum())
        low, high = (slope, high) if gradient > 0 else (low, slope)
        information = float((chance * (1 - chance) * x * x).sum())
        step = slope + gradient / information if information > 0 else high
        slope = step if low < step < high else float(np.sqrt(low * high))
    if not 1.01 * FLATTEST < slope < STEEPEST / 1.01:
        return None
    chance = logistic(slope * x)
    _, cluster = np.unique(np.asarray(groups), return_inverse=True)
    scores = np.bincount(cluster, weights=(label - chance) * x)
    information = float((chance * (1 - chance) * x * x).sum())
    error = float(np.sqrt((scores**2).sum()) / information) / spread
    found = slope / spread
    least, most = max(found - Z * error, 0.0), found + Z * error
    return Slope(found, least, most, x.size, len(scores))


@dataclass(frozen=True)
class Madpo:
    """How MADPO steepens small margins and flattens large ones. Source: arXiv 2510.05342.

    ``largest`` is c at a margin of 0, ``least`` far out; c is 1 at ``threshold``. Raises
    ValueError where they are not in the order least < 1 < largest.
    """

    largest: float = 2.0
    least: float = 0.5
    steepness: float = 1.0
    threshold: float = 6.907  # ln(.999 / .001)

    def __post_init__(self) -> None:
        if not 0 <= self.least < 1 < self.largest or self.steepness <= 0 or self.threshold <= 0:
            raise ValueError(f"no such weights: {self}")

    def factor(self, margins: ArrayLike) -> Floats:
        """c(|g|) (n,) of margins (n,): the target margin of a pair is c g."""
        size = np.abs(np.asarray(margins, np.float64))
        ratio = (self.largest - 1) / (1 - self.least)
        with np.errstate(over="ignore"):
            bend = ratio * np.exp(self.steepness * (size - self.threshold))
        found: Floats = self.least + (self.largest - self.least) / (1 + bend)
        return found

    def weight(self, margins: ArrayLike) -> Floats:
        """The weight (n,) of a row by its **signed**, calibrated margin g (n,):
        ``sigmoid(c g) / sigmoid(g)`` above -threshold, else 1.

        An importance ratio: under labels drawn from sigmoid(g) both labels' weights make the
        optimum of a pair c g. A label against the model weighs less than one for it.
        """
        g = np.asarray(margins, np.float64)
        kept = np.maximum(g, -self.threshold)  # what is beyond has no use for a ratio
        ratio = np.exp(_log_logistic(self.factor(kept) * kept) - _log_logistic(kept))
        found: Floats = np.where(g > -self.threshold, ratio, 1.0)
        return found


def logistic(x: ArrayLike) -> Floats:
    """Without overflow, whatever the size."""
    found: Floats = np.exp(_log_logistic(np.asarray(x, np.float64)))
    return found


def _log_logistic(x: Floats) -> Floats:
    found: Floats = -np.logaddexp(0.0, -x)
    return found
