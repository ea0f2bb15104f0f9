"""Whether a confidence is worth what it says: reliability, ECE, Brier, log loss. Numpy, scipy.

Arrays (n,): ``confidence`` that a verdict is right, ``correct`` whether it was, ``groups`` the
cluster of each case, such as its prompt. Binned ECE is biased upward: a perfectly calibrated judge
shows one above 0 at any n. Read it beside ``expected``, or take ``debiased``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from models.intervals import Interval, wilson
from models.resampling import mean_interval, resampled_sums

Floats = NDArray[np.float64]

BINS: Final = 10
REPLICATES: Final = 1000
SIMULATED: Final = 300  # draws of a calibrated judge where n is small enough to draw
SMALL: Final = 20_000
FLOOR: Final = 1e-6  # a confidence of 0 or 1 that is wrong costs 13.8 nats, not infinity


@dataclass(frozen=True)
class Bin:
    """Cases with a confidence in ``low``..``high``: what it says and what is."""

    low: float
    high: float
    says: float  # mean confidence
    share: float  # of correct ones
    interval: Interval  # Wilson
    n: int


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error: mean over cases of the gap between says and is, by bins.

    ``expected`` is what a perfectly calibrated judge with these confidences would show at this n,
    ``debiased`` is the error less most of its bias (Kumar et al. 2019, 1909.10155), at least 0.
    ``interval`` is a bootstrap over groups, moved back by the bias that resampling adds.
    """

    value: float
    interval: Interval | None
    expected: float
    debiased: float
    bins: int
    n: int
    groups: int


@dataclass(frozen=True)
class Score:
    """A mean loss with its clustered normal interval, None for fewer than two groups."""

    value: float
    interval: Interval | None
    n: int
    groups: int


def edges_of(
    confidence: ArrayLike, *, mass: bool = False, low: float = 0.0, bins: int = BINS
) -> Floats:
    """Edges (b + 1,) of ``bins`` bins over low..1, of equal width or of equal mass.

    Equal confidences are never parted, so there may be fewer bins of equal mass.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if not mass or not len(values):
        return np.linspace(low, 1.0, bins + 1)
    inner = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="lower"))
    inner = inner[(inner > values.min()) & (inner <= values.max())]
    return np.concatenate([[values.min()], inner, [max(1.0, values.max())]])


def reliability(confidence: ArrayLike, correct: ArrayLike, edges: ArrayLike) -> list[Bin]:
    """The bins that hold any case, by rising confidence; a case at an edge is in the upper bin.

    Raises ValueError on unequal shapes or values outside 0..1.
    """
    says, right = _checked(confidence, correct)
    ends = np.asarray(edges, dtype=np.float64)
    place = _place(says, ends)
    n = np.bincount(place, minlength=len(ends) - 1)
    hits = np.bincount(place, weights=right, minlength=len(n))
    total = np.bincount(place, weights=says, minlength=len(n))
    return [
        Bin(
            float(ends[at]),
            float(ends[at + 1]),
            float(total[at] / n[at]),
            float(hits[at] / n[at]),
            wilson(float(hits[at]), int(n[at])),
            int(n[at]),
        )
        for at in np.flatnonzero(n).tolist()
    ]


def calibration_error(
    confidence: ArrayLike,
    correct: ArrayLike,
    edges: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> CalibrationError | None:
    """ECE over given bins (Naeini et al. 2015). None where there is no case.

    Raises ValueError on unequal shapes or values outside 0..1.
    """
    says, right = _checked(confidence, correct)
    if not len(says):
        return None
    cluster = np.arange(len(says)) if groups is None else np.asarray(groups)
    if cluster.shape != says.shape:
        raise ValueError(f"groups {cluster.shape} must be {says.shape}")
    ends = np.asarray(edges, dtype=np.float64)
    place, width = _place(says, ends), len(ends) - 1
    n = np.bincount(place, minlength=width)
    gaps = np.bincount(place, weights=right - says, minlength=width)
    value = float(np.abs(gaps).sum() / len(says))
    spread = np.bincount(
        place, weights=right * (1 - right) + _within(right, place, n), minlength=width
    )
    error = np.sqrt(np.maximum(spread, 0)) / np.maximum(n, 1)
    mean = gaps / np.maximum(n, 1)
    bias = float((n * (_folded(mean, error) - np.abs(mean))).sum() / len(says))
    return CalibrationError(
        value=value,
        interval=_interval(right - says, place, width, cluster, value, replicates, seed),
        expected=_expected(says, place, width, seed),
        debiased=max(0.0, value - bias),
        bins=int((n > 0).sum()),
        n=len(says),
        groups=len(np.unique(cluster)),
    )


def brier(confidence: ArrayLike, correct: ArrayLike, groups: ArrayLike | None = None) -> Score:
    """Mean squared gap of confidence and outcome. Raises ValueError on none, or as reliability."""
    says, right = _checked(confidence, correct)
    return _score((says - right) ** 2, groups)


def log_loss(confidence: ArrayLike, correct: ArrayLike, groups: ArrayLike | None = None) -> Score:
    """Mean negative log-likelihood in nats, confidences held off 0 and 1 by FLOOR."""
    says, right = _checked(confidence, correct)
    held = np.clip(says, FLOOR, 1 - FLOOR)
    return _score(-(right * np.log(held) + (1 - right) * np.log1p(-held)), groups)


def describe(bins: list[Bin]) -> str:
    """One sentence: between which confidences it says more, or less, than is.

    Only bins whose whole interval is on one side speak; touching ones are one range.
    """
    sentences = []
    for word, sign in (("Overconfident", 1), ("Underconfident", -1)):
        off = [one for one in bins if sign * (one.says - one.interval[sign > 0]) > 0]
        if off:
            sentences.append(f"{word} {_ranges(off)}.")
    return " ".join(sentences) or "No bin is off by more than chance."


def _ranges(bins: list[Bin]) -> str:
    spans: list[list[float]] = []
    for one in bins:
        if spans and abs(spans[-1][1] - one.low) < 1e-9:
            spans[-1][1] = one.high
        else:
            spans.append([one.low, one.high])
    return " and ".join(f"between {low * 100:.0f} and {high * 100:.0f} %" for low, high in spans)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    says = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if says.shape != right.shape or says.ndim != 1:
        raise ValueError(f"confidence {says.shape} and correct {right.shape} must be equal, (n,)")
    for name, values in (("confidence", says), ("correct", right)):
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # also refuses NaN
            raise ValueError(f"{name} must be in 0..1")
    return says, right


def _place(says: Floats, ends: Floats) -> NDArray[np.int64]:
    """The bin of each case; those outside the edges are in the outermost bins."""
    found = np.searchsorted(ends, says, side="right") - 1
    return np.clip(found, 0, len(ends) - 2).astype(np.int64)


def _within(right: Floats, place: NDArray[np.int64], n: NDArray[np.int64]) -> Floats:
    """Squared deviation of each outcome from its bin's mean, n / (n - 1) times."""
    mean = np.bincount(place, weights=right, minlength=len(n)) / np.maximum(n, 1)
    scale = n / np.maximum(n - 1, 1)
    own = (right - mean[place]) ** 2 * scale[place]
    return np.asarray(own - right * (1 - right), dtype=np.float64)


def _folded(mean: Floats, error: Floats) -> Floats:
    """E|N(mean, error^2)|."""
    ratio = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    normal = error * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + mean * (2 * ndtr(ratio) - 1)
    return np.where(error > 0, normal, np.abs(mean))


def _interval(
    gap: Floats,
    place: NDArray[np.int64],
    width: int,
    groups: NDArray[np.int64],
    value: float,
    replicates: int,
    seed: int,
) -> Interval | None:
    if len(np.unique(groups)) < 2:
        return None
    table = np.zeros((len(gap), width + 1))
    table[np.arange(len(gap)), place] = gap
    table[:, width] = 1
    sums = resampled_sums(table, groups, replicates=replicates, seed=seed)
    drawn = np.abs(sums[:, :width]).sum(axis=1) / sums[:, width]
    low, high = np.quantile(drawn, [0.025, 0.975]) - (float(drawn.mean()) - value)
    return max(0.0, float(low)), max(0.0, float(high))


def _expected(says: Floats, place: NDArray[np.int64], width: int, seed: int) -> float:
    """Mean ECE of outcomes drawn with these very confidences."""
    if len(says) > SMALL:  # sums of so many are normal
        spread = np.bincount(place, weights=says * (1 - says), minlength=width)
        return float(np.sqrt(2 * spread / np.pi).sum() / len(says))
    rng = np.random.default_rng(seed)
    order = np.argsort(place, kind="stable")
    begins = np.flatnonzero(np.diff(place[order], prepend=-1))
    ordered = says[order]
    found = []
    for _ in range(SIMULATED):
        gaps = (rng.random(len(says)) < ordered) - ordered
        found.append(np.abs(np.add.reduceat(gaps, begins)).sum() / len(says))
    return float(np.mean(found))


def _score(losses: Floats, groups: ArrayLike | None) -> Score:
    if not len(losses):
        raise ValueError("there are no cases")
    cluster = np.arange(len(losses)) if groups is None else np.asarray(groups)
    size = len(np.unique(cluster))
    return Score(float(losses.mean()), mean_interval(losses, cluster), len(losses), size)
