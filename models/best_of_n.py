"""Best of n: what choosing by a reward model gives, by a gold that it was not trained on.

Of a prompt with K candidates the n drawn are a random subset; the expectation over all subsets is
exact, nothing is sampled. What is reported is how often the pick wins against one other candidate
of its prompt, drawn at random: .5 at n = 1, free of any scale, and the same quantity for the model
itself and for the gold. Where the model's own curve rises while the gold's falls, it is being gamed.
Source: Gao, Schulman and Hilton 2022, arXiv 2210.10760; the estimator is that of Nakano et al. 2021,
arXiv 2112.09332, appendix I.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.intervals import Interval
from models.resampling import mean_interval

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

FEWEST: Final = 10  # prompts, below which there is no curve


@dataclass(frozen=True)
class Mean:
    """A mean over prompts with its interval, None for one prompt."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Point:
    """Shares of wins against one sample. ``kl`` bounds the divergence from sampling, in nats."""

    n: int
    kl: float
    proxy: Mean
    gold: Mean
    oracle: Mean  # choosing by the gold itself


@dataclass(frozen=True)
class Curve:
    """``peak`` is the n at which the gold is highest; ``drop`` the gold at the largest n less that
    at the peak, on the same prompts: 0 where the peak is the end. ``left_out`` prompts have fewer
    candidates than the largest n. ``last`` (prompts,) is the gold at the largest n by prompt, in an
    order that is the same for all proxies that score the same candidates."""

    points: list[Point]
    prompts: int
    left_out: int
    peak: int
    drop: Mean
    last: Floats

    @property
    def is_gamed(self) -> bool:
        """Whether the gold falls by more than chance after its peak."""
        return self.drop.interval is not None and self.drop.interval[1] < 0


def pick_weights(proxy: ArrayLike, n: int) -> Floats:
    """Probability (..., K) that a candidate is the best of n drawn without replacement.

    proxy (..., K); equal scores share. Raises ValueError for n outside 1..K.
    """
    from scipy.stats import rankdata  # slow to import, and every page would

    scores = np.asarray(proxy, dtype=np.float64)
    size = scores.shape[-1]
    if not 1 <= n <= size:
        raise ValueError(f"n={n} of {size} candidates")
    low = rankdata(scores, method="min", axis=-1)
    high = rankdata(scores, method="max", axis=-1)
    shared = high - low + 1
    return np.asarray((_below(high, n, size) - _below(low - 1, n, size)) / shared)


def _below(rank: Floats, n: int, size: int) -> Floats:
    """Probability that all n drawn are among the lowest ``rank`` of ``size``."""
    found = np.ones_like(rank, dtype=np.float64)
    for step in range(n):
        found *= np.maximum(rank - step, 0) / (size - step)
    return found


def win_shares(values: ArrayLike) -> Floats:
    """How often each candidate (..., K) beats another of its row, a tie as half a win."""
    from scipy.stats import rankdata

    given = np.asarray(values, dtype=np.float64)
    return np.asarray((rankdata(given, axis=-1) - 1) / max(given.shape[-1] - 1, 1))


def curve(proxy: ArrayLike, gold: ArrayLike, prompts: ArrayLike) -> Curve | None:
    """proxy, gold (m,) scores of candidates, NaN where there is none; prompts (m,).

    The largest n is the most candidates that at least half of the prompts have; all points are
    over the prompts that have so many. None where fewer than FEWEST have two.
    """
    scores, golds = np.asarray(proxy, np.float64), np.asarray(gold, np.float64)
    names = np.asarray(prompts)
    if not scores.shape == golds.shape == names.shape:
        raise ValueError(f"shapes differ: {scores.shape}, {golds.shape}, {names.shape}")
    known = np.isfinite(scores) & np.isfinite(golds)
    scores, golds = scores[known], golds[known]
    _, code, sizes = np.unique(names[known], return_inverse=True, return_counts=True)
    several = np.sort(sizes[sizes > 1])
    if len(several) < FEWEST:
        return None
    enough = max(FEWEST, -(-len(several) // 2))
    most = int(several[len(several) - enough])
    steps = [2**power for power in range(most.bit_length()) if 2**power <= most]
    steps += [most] if steps[-1] != most else []
    rows = _by_size(scores, golds, code, sizes, least=most)
    shares = [np.concatenate([_picks(*row, n) for row in rows]) for n in steps]  # (prompts, 3)
    return _curve(steps, shares, left_out=len(several) - len(shares[0]))


def _by_size(
    scores: Floats, golds: Floats, code: Codes, sizes: Codes, *, least: int
) -> list[tuple[Floats, Floats]]:
    """Prompts of equally many candidates as matrices (p, K), K at least ``least``."""
    order = np.argsort(code, kind="stable")
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = []
    for size in np.unique(sizes[sizes >= least]).tolist():
        at = begins[sizes == size][:, None] + np.arange(size)  # (p, K)
        found.append((scores[order[at]], golds[order[at]]))
    return found


def _picks(scores: Floats, golds: Floats, n: int) -> Floats:
    """By prompt (p, 3): share of wins of the pick by the model, by the gold, of the gold's own."""
    by_proxy, by_gold = pick_weights(scores, n), pick_weights(golds, n)
    own, gold = win_shares(scores), win_shares(golds)
    return np.stack(
        [(by_proxy * own).sum(-1), (by_proxy * gold).sum(-1), (by_gold * gold).sum(-1)], axis=1
    )


def _curve(steps: Sequence[int], shares: list[Floats], *, left_out: int) -> Curve:
    points = [
        Point(n, float(np.log(n) - (n - 1) / n), *(_mean(column) for column in share.T))
        for n, share in zip(steps, shares, strict=True)
    ]
    peak = int(np.argmax([point.gold.value for point in points]))
    drop = Mean(0.0, None)
    if peak < len(points) - 1:
        drop = _mean(shares[-1][:, 1] - shares[peak][:, 1])
    return Curve(points, len(shares[0]), left_out, steps[peak], drop, shares[-1][:, 1])


def gain(one: Curve, other: Curve) -> Mean:
    """How much more often the pick of ``one`` wins by the gold than that of ``other``, at the
    largest n and on the same prompts. Raises ValueError for curves of unlike candidates."""
    if one.last.shape != other.last.shape or one.points[-1].n != other.points[-1].n:
        raise ValueError("two proxies are compared on the same candidates")
    return _mean(one.last - other.last)


def _mean(values: Floats) -> Mean:
    return Mean(float(values.mean()), mean_interval(values, np.arange(len(values))))
