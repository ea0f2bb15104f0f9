"""How good a reward model is on pairs that people decided. Numpy and scipy; nothing is trained.

Arrays (n,), a row per pair: ``margins`` the log-odds that the chosen answer is better (the
difference of two scores), ``groups`` the prompt of each pair. Pairs of one prompt are dependent:
every interval is over prompts. Accuracy is strict, as RewardBench counts it: an even margin is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from models.calibration import (
    BINS,
    Bin,
    CalibrationError,
    calibration_error,
    describe,
    reliability,
)
from models.intervals import Accuracy, Interval, estimate_accuracy, group_codes, wilson
from models.resampling import cluster_sums, resampled_sums

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

REPLICATES: Final = 1000
FEWEST_CALIBRATED: Final = 20  # pairs, below which no curve is drawn
# How many times as long as the rejected answer the chosen one is.
LENGTHS: Final = (
    ("less than half as long", 0.0, 0.5),
    ("half to nine tenths", 0.5, 0.9),
    ("about as long", 0.9, 1 / 0.9),
    ("up to twice as long", 1 / 0.9, 2.0),
    ("more than twice as long", 2.0, np.inf),
)


def strict(
    margins: ArrayLike, groups: ArrayLike, *, even: float = 0.0, seed: int = 0
) -> Accuracy | None:
    """Share of pairs with a margin above ``even``, clustered; None for no pair.

    ``ties`` counts margins no larger than ``even`` either way, which are wrong.
    """
    margin = np.asarray(margins, dtype=np.float64)
    ties = int((np.abs(margin) <= even).sum())
    return estimate_accuracy(margin > even, groups, seed=seed, ties=ties)


@dataclass(frozen=True)
class Paired:
    """Two scorers on the same ``n`` pairs: the first's accuracy less the second's.

    ``first_only`` pairs are right by the first alone, ``second_only`` by the second alone.
    """

    difference: float
    interval: Interval
    first_only: int
    second_only: int
    n: int
    groups: int

    @property
    def is_told_apart(self) -> bool:
        return self.interval[0] > 0 or self.interval[1] < 0


def paired(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> Paired | None:
    """The difference of two accuracies; ``first`` and ``second`` (n,) say which pairs are right.

    The interval is the clustered normal one, but never narrower than one in which each scorer were
    right alone on half a prompt more: two that agree on everything seen are not proven equal
    (Agresti and Min 2005, Biostatistics 6:1). None for no pair.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"shapes differ: {one.shape}, {other.shape}")
    if not len(one):
        return None
    codes = group_codes(groups)
    size = int(codes.max()) + 1
    gap = one - other
    mean = float(gap.mean())
    surplus = cluster_sums(gap[:, None] - mean, codes)[:, 0]
    weight = len(gap) / size  # pairs a prompt
    error = float(np.sqrt((surplus**2).sum() + weight**2)) / len(gap)
    half = 1.959963984540054 * error
    return Paired(
        mean,
        (max(-1.0, mean - half), min(1.0, mean + half)),
        int((gap > 0).sum()),
        int((gap < 0).sum()),
        len(gap),
        size,
    )


# Calibration ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Whether sigma(margin) is how often the side it favors is right."""

    bins: list[Bin]
    error: CalibrationError
    confidence: Floats  # (m,) of the side it favors, .5 to 1
    correct: Flags  # (m,)
    groups: NDArray[Any]  # (m,)
    even: int  # margins of 0, which favor no side and are left out
    message: str


def calibration(
    margins: ArrayLike, groups: ArrayLike, *, seed: int = 0, replicates: int = REPLICATES
) -> Calibration | None:
    """Reliability and ECE of sigma(|margin|) over ten equal bins from .5; None for too few pairs."""
    margin, group = np.asarray(margins, dtype=np.float64), np.asarray(groups)
    favors = margin != 0
    if favors.sum() < FEWEST_CALIBRATED:
        return None
    says = np.clip(expit(np.abs(margin[favors])), 0.5, 1.0)
    right, cluster = margin[favors] > 0, group[favors]
    edges = np.linspace(0.5, 1.0, BINS + 1)
    bins = reliability(says, right, edges)
    error = calibration_error(says, right, edges, groups=cluster, replicates=replicates, seed=seed)
    assert error is not None, "there are cases"
    even = int((~favors).sum())
    return Calibration(bins, error, says, right, cluster, even, describe(bins))


# Length -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its interval over prompts, None where that cannot be said."""

    value: float
    interval: Interval | None
    n: int
    groups: int


def follows_length(
    margins: ArrayLike,
    longer_by: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Correlation | None:
    """Spearman's correlation of a margin with how much longer the same side is.

    ``longer_by`` (n,): length of the chosen answer less that of the rejected one. A pair has no
    first side, so each counts in both orders: ranks are taken over margins and their negatives,
    which makes the correlation that of two odd quantities and 1 for "longer wins" by length itself.
    The interval resamples prompts with ranks held. None where either side never differs.
    """
    odd = np.stack([_odd_ranks(margins), _odd_ranks(longer_by)], axis=1)  # (n, 2)
    products = np.stack([odd[:, 0] * odd[:, 1], odd[:, 0] ** 2, odd[:, 1] ** 2], axis=1)
    total = products.sum(axis=0)
    if not len(odd) or total[1] <= 0 or total[2] <= 0:
        return None
    size = int(group_codes(groups).max()) + 1
    interval = None
    if size > 1:
        sums = resampled_sums(products, groups, replicates=replicates, seed=seed)
        known = (sums[:, 1] > 0) & (sums[:, 2] > 0)
        drawn = sums[known, 0] / np.sqrt(sums[known, 1] * sums[known, 2])
        low, high = np.quantile(drawn, [0.025, 0.975])
        interval = float(max(-1.0, low)), float(min(1.0, high))
    value = float(np.clip(total[0] / np.sqrt(total[1] * total[2]), -1, 1))
    return Correlation(value, interval, len(odd), size)


def _odd_ranks(values: ArrayLike) -> Floats:
    """Ranks (n,) of values among themselves and their negatives, 0 in the middle."""
    from scipy.stats import rankdata  # slow to import, and every page would

    given = np.asarray(values, dtype=np.float64)
    ranks = rankdata(np.concatenate([given, -given]))[: len(given)]
    return np.asarray(ranks - (2 * len(given) + 1) / 2, dtype=np.float64)


def length_buckets(chosen: ArrayLike, rejected: ArrayLike) -> list[tuple[str, Flags]]:
    """The pairs (n,) of each row of LENGTHS; those with an empty side are in none."""
    first, second = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    ratio = np.divide(
        first, second, out=np.full(len(first), np.nan), where=(first > 0) & (second > 0)
    )
    return [(name, (ratio >= low) & (ratio < high)) for name, low, high in LENGTHS]


# Order of the sides -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """What exchanging the two answers changes.

    ``flips`` of ``n`` pairs have another winner, ``largest`` is the largest change of a margin,
    ``toward_first`` the mean margin that a place in front is worth.
    """

    n: int
    flips: int
    flip_interval: Interval
    largest: float
    toward_first: float

    @property
    def is_invariant(self) -> bool:
        """Exactly: not one bit of any margin depends on the order."""
        return self.largest == 0.0


def order_swap(forward: ArrayLike, reverse: ArrayLike) -> Swap | None:
    """``forward`` (n,): margin for chosen when it stands first; ``reverse``: when it stands second.

    A model that scores answers one by one gives the same in both; one that reads both need not.
    None for no pair. Raises ValueError on unequal shapes.
    """
    one, other = np.asarray(forward, np.float64), np.asarray(reverse, np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"shapes differ: {one.shape}, {other.shape}")
    if not len(one):
        return None
    flips = int((np.sign(one) != np.sign(other)).sum())
    change = one - other
    return Swap(
        len(one),
        flips,
        wilson(flips, len(one)),
        float(np.abs(change).max()),
        float(change.mean() / 2),
    )


# Slices -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """Accuracy on some of the pairs; ``pooled`` slices that were too small stand in it together."""

    name: str
    accuracy: Accuracy
    pooled: int = 0


def sliced(
    margins: ArrayLike,
    groups: ArrayLike,
    rows: Sequence[tuple[str, Flags]],
    *,
    smallest: int = 20,
    most: int = 30,
    even: float = 0.0,
    seed: int = 0,
) -> list[Slice]:
    """Strict accuracy by named subsets (n,) of pairs, in the order given.

    Those with fewer than ``smallest`` pairs, and those after the first ``most``, stand together at
    the end. Subsets may overlap; a pair is counted once in the rest.
    """
    margin, group = np.asarray(margins, dtype=np.float64), np.asarray(groups)
    kept = [(name, row) for name, row in rows if row.any()]
    alone = [(name, row) for name, row in kept if row.sum() >= smallest][:most]
    names = {name for name, _ in alone}
    rest = [row for name, row in kept if name not in names]
    if rest:
        alone.append((f"{len(rest)} smaller" if alone else "all", np.any(rest, axis=0)))
    found = []
    for place, (name, row) in enumerate(alone):
        accuracy = strict(margin[row], group[row], even=even, seed=seed)
        assert accuracy is not None, "no empty subset is kept"
        pooled = len(rest) if rest and place == len(alone) - 1 else 0
        found.append(Slice(name, accuracy, pooled))
    return found
