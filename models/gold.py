"""What can be said of one rater by counting: golds, position bias, consistency, speed.

Pure numpy and scipy; every function takes all raters at once, arrays (raters,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, logit, ndtri

from models.comparisons import Floats

FEWEST_FAILURES: Final = 2  # nobody is flagged for a single slip
FEWEST_TIMES: Final = 6  # below that the order statistics give no 95 percent interval
FAST: Final = 1 / 3  # of the typical rater's median


@dataclass(frozen=True)
class Shares:
    """Shares with Wilson intervals, arrays (raters,); nan with interval (0, 1) where n is 0."""

    share: Floats
    low: Floats
    high: Floats
    n: Floats


@dataclass(frozen=True)
class PositionBias(Shares):
    """How often the first-shown response was chosen; ``is_biased`` where .5 is outside."""

    is_biased: NDArray[np.bool_]


@dataclass(frozen=True)
class GoldReliability:
    """Beta posterior of each rater's accuracy on golds, arrays (raters,).

    ``weight`` is the log-odds of ``mean``: what a vote of this rater is worth.
    """

    mean: Floats
    low: Floats
    high: Floats
    below_threshold: Floats
    flagged: NDArray[np.bool_]
    weight: Floats
    n: Floats


@dataclass(frozen=True)
class Speed:
    """Active time per judgment in milliseconds, arrays (raters,); nan where nothing was timed.

    ``low``, ``high`` are a 95 percent interval of the median (0 and inf below FEWEST_TIMES
    times); ``tenth``, ``ninetieth`` are quantiles. ``group_median`` is the median of the raters'
    medians; ``too_fast`` marks those whose whole interval is under FAST of it.
    """

    median: Floats
    low: Floats
    high: Floats
    tenth: Floats
    ninetieth: Floats
    n: NDArray[np.int64]
    too_fast: NDArray[np.bool_]
    group_median: float | None


def wilson_shares(hits: ArrayLike, n: ArrayLike, level: float = 0.95) -> Shares:
    """models.intervals.wilson for many raters. Raises ValueError if hits are outside 0..n."""
    hit, total = _counts(hits, n)
    z = float(ndtri(0.5 + level / 2))
    at_least_one = np.maximum(total, np.finfo(float).tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        share = hit / at_least_one
        shrink = 1 + z * z / at_least_one
        center = (share + z * z / (2 * at_least_one)) / shrink
        half = (
            z / shrink * np.sqrt(share * (1 - share) / at_least_one + (z / 2 / at_least_one) ** 2)
        )
    low = np.where((hit == 0) | (total == 0), 0.0, np.maximum(0.0, center - half))
    high = np.where((hit == total) | (total == 0), 1.0, np.minimum(1.0, center + half))
    return Shares(np.where(total > 0, share, np.nan), low, high, total)


def gold_reliability(
    hits: ArrayLike,
    misses: ArrayLike,
    *,
    prior: tuple[float, float] = (2.0, 2.0),
    threshold: float = 0.7,
    certainty: float = 0.9,
    level: float = 0.95,
) -> GoldReliability:
    """What seeded known answers say of each rater: Beta(prior + hits, prior + misses).

    hits, misses (raters,) counts. A rater is flagged where P(accuracy < threshold) > certainty,
    but never for fewer than FEWEST_FAILURES misses. 20 golds catch three of four coin-flippers,
    no more: use it beside DawidSkene, not instead.
    Raises ValueError on negative counts, unequal shapes or a prior that is not positive.
    """
    hit, miss = np.asarray(hits, dtype=np.float64), np.asarray(misses, dtype=np.float64)
    if hit.shape != miss.shape:
        raise ValueError(f"hits {hit.shape} and misses {miss.shape} must be equal in shape")
    if (
        not (np.isfinite(hit).all() and np.isfinite(miss).all())
        or (hit < 0).any()
        or (miss < 0).any()
    ):
        raise ValueError("hits and misses must be counts, not negative")
    if not min(prior) > 0:
        raise ValueError(f"prior {prior} must be positive")
    a, b = prior[0] + hit, prior[1] + miss
    mean = a / (a + b)
    below = np.asarray(betainc(a, b, threshold))
    flagged = (below > certainty) & (miss >= FEWEST_FAILURES)
    tail = (1 - level) / 2
    low, high = np.asarray(betaincinv(a, b, tail)), np.asarray(betaincinv(a, b, 1 - tail))
    return GoldReliability(mean, low, high, below, flagged, np.asarray(logit(mean)), hit + miss)


def position_bias(first_slot_chosen: ArrayLike, n: ArrayLike, level: float = 0.95) -> PositionBias:
    """Share of verdicts for the response shown first, ties left out of both counts.

    With shown orders drawn at random an honest rater is at .5 whatever the responses.
    Raises ValueError if first_slot_chosen is outside 0..n.
    """
    shares = wilson_shares(first_slot_chosen, n, level)
    biased = (shares.low > 0.5) | (shares.high < 0.5)
    return PositionBias(shares.share, shares.low, shares.high, shares.n, biased)


def consistency(same: ArrayLike, n: ArrayLike, level: float = 0.95) -> Shares:
    """Share of repeated items on which a rater said the same twice, in canonical order.

    Raises ValueError if same is outside 0..n.
    """
    return wilson_shares(same, n, level)


def speed(raters: ArrayLike, active_ms: ArrayLike, *, n_raters: int) -> Speed:
    """Active time per rater from one row per judgment, (m,) each.

    The interval of a median is by order statistics: free of any distribution. Raises ValueError
    on unequal shapes, codes outside 0..n_raters-1, or times that are negative or not finite.
    Source: Conover 1999, Practical Nonparametric Statistics, 3.2.
    """
    from scipy.stats import binom  # slow to import, and every page would

    rater, times = np.asarray(raters, dtype=np.int64), np.asarray(active_ms, dtype=np.float64)
    if rater.shape != times.shape or rater.ndim != 1:
        raise ValueError(f"raters {rater.shape} and active_ms {times.shape} must be equal, (m,)")
    if rater.size and (rater.min() < 0 or rater.max() >= n_raters):
        raise ValueError(f"raters must be in 0..{n_raters - 1}")
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("active_ms must be finite and not negative")
    ordered = times[np.lexsort((times, rater))]
    n = np.bincount(rater, minlength=n_raters)
    begin = np.cumsum(n) - n
    timed, enough = n > 0, n >= FEWEST_TIMES

    def quantile(q: float) -> Floats:
        """Linear between neighbors, as numpy.quantile."""
        at = q * np.maximum(n - 1, 0)
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(n - 1, 0))
        found = np.full(n_raters, np.nan)
        lower, upper = ordered[(begin + below)[timed]], ordered[(begin + above)[timed]]
        found[timed] = lower + (at - below)[timed] * (upper - lower)
        return found

    low, high = np.zeros(n_raters), np.full(n_raters, np.inf)
    rank = binom.ppf(0.025, n[enough], 0.5).astype(np.int64) - 1
    low[enough] = ordered[begin[enough] + rank]
    high[enough] = ordered[(begin + n)[enough] - 1 - rank]
    median = quantile(0.5)
    group = float(np.median(median[timed])) if timed.any() else None
    too_fast = enough & (high < FAST * group) if group is not None else np.zeros(n_raters, bool)
    return Speed(
        median, low, high, quantile(0.1), quantile(0.9), n.astype(np.int64), too_fast, group
    )


def _counts(hits: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    hit, total = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if hit.shape != total.shape:
        raise ValueError(f"counts differ in shape: {hit.shape} and {total.shape}")
    if not np.isfinite(total).all() or not ((hit >= 0) & (hit <= total)).all():
        raise ValueError("every count must be in 0..n")
    return hit, total
