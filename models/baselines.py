"""What a reward model must be shown beside: "longer wins" and the human-human ceiling."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from models.intervals import Accuracy, estimate_accuracy


def longer_wins(
    lengths_chosen: ArrayLike,
    lengths_rejected: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Accuracy | None:
    """Accuracy of always calling the longer response the better one.

    Lengths (n,) in any one unit; groups (n,) such as the prompt of each pair. Strict, as reward
    models are scored (RewardBench): two responses of equal length count as **wrong**; ``ties``
    says how many there were. None where there are no pairs.
    """
    chosen, rejected = np.asarray(lengths_chosen), np.asarray(lengths_rejected)
    if chosen.shape != rejected.shape:
        raise ValueError(f"lengths differ in shape: {chosen.shape} and {rejected.shape}")
    ties = int(np.count_nonzero(chosen == rejected))
    return estimate_accuracy(chosen > rejected, groups, seed=seed, ties=ties)


def human_ceiling(
    pairs: ArrayLike, raters: ArrayLike, outcomes: ArrayLike, *, seed: int = 0
) -> Accuracy | None:
    """How often one person agrees with the majority of the others on the same pair.

    pairs, raters (n,) integers; outcomes (n,) of +1 (first is better), -1 (second), 0 (tie).
    Every vote is held out in turn against the net vote (the sign of the sum) of the *other*
    raters of its pair. Where the others are split evenly there is nothing to agree with: such
    votes are left out and counted in ``ties``. A held-out tie against a majority with a
    preference counts as **wrong**, exactly as a reward model that scores both alike. Several
    votes of one rater on one pair are first reduced to their net vote. The interval is over
    pairs, since the votes of a pair are dependent.

    None where no pair has two raters, or no held-out majority has a preference.
    """
    pair, rater, vote = np.asarray(pairs), np.asarray(raters), np.asarray(outcomes)
    if not pair.shape == rater.shape == vote.shape or pair.ndim != 1:
        raise ValueError(f"shapes differ: {pair.shape}, {rater.shape}, {vote.shape}")
    if vote.size == 0:
        return None
    if not np.isin(vote, (-1, 0, 1)).all():
        raise ValueError("outcomes must be -1, 0 or +1")
    pair = np.unique(pair, return_inverse=True)[1].astype(np.int64)
    rater = np.unique(rater, return_inverse=True)[1].astype(np.int64)
    width = int(rater.max()) + 1
    cells, index = np.unique(pair * width + rater, return_inverse=True)  # one per (pair, rater)
    net = np.sign(np.bincount(index, weights=vote)).astype(np.int64)  # (cells,)
    pair = cells // width
    raters_of_pair = np.bincount(pair)
    others = np.sign(np.bincount(pair, weights=net)[pair] - net)  # (cells,)
    overlapping = raters_of_pair[pair] > 1
    counted = overlapping & (others != 0)
    ties = int(np.count_nonzero(overlapping & (others == 0)))
    agrees = net[counted] == others[counted]
    return estimate_accuracy(agrees, pair[counted], seed=seed, ties=ties)
