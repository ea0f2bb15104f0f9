"""What a rubric is worth as a reward: verdicts in, one number per response out, on any scale.

Three forms. **Share** (AutoRule, arXiv 2506.15651, METHODS 1.2): of the criteria the share that a
response satisfies. **Weighted** (AutoRubric-T2I, arXiv 2605.17602, METHODS 1.3): ``sum w * s`` with
fitted, signed weights. **Binary** (ARR, arXiv 2605.08354, METHODS 1.1): ranks of the responses to one
prompt, the best wins, the worst loses.

Verdicts are probabilities: ``yes`` (n, k) that a criterion is met, ``neither`` (n, k) that it does not
apply; NaN where nobody said. A sign or weight below 0 is a criterion whose yes speaks against a
response: it is satisfied by a no.

A reward is added to a reward model's by ``combine``. A center and a scale that were right for one
set of rules are wrong for another, since what does not apply counts as satisfied and moves the
mean: both are computed anew from the scores at hand (``scaling_to``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NotApplicable = Literal["satisfied", "half", "unsatisfied"]

MET: Final = 0.5  # probability from which a criterion counts as satisfied
EVEN: Final = 1e-9  # rewards that differ by no more are the same
WORTH: Final = {"satisfied": 1.0, "half": 0.5, "unsatisfied": 0.0}
WIN: Final = 1.0
LOSE: Final = -0.1  # ARR's released code; the paper writes an unnamed constant


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(reward - center) / scale``: what makes rewards comparable with other rewards."""

    center: float
    scale: float

    def of(self, rewards: ArrayLike) -> Array:
        """Rewards (n,) on the new scale."""
        found: Array = (np.asarray(rewards, dtype=np.float64) - self.center) / self.scale
        return found


# AutoRule's released (r - .75) * 10. It fits rules of which three in four are satisfied.
RELEASED: Final = Scaling(center=0.75, scale=0.1)


# Rewards ------------------------------------------------------------------------------------------


def satisfied(
    yes: ArrayLike,
    neither: ArrayLike,
    signs: ArrayLike,
    *,
    not_applicable: NotApplicable = "satisfied",
) -> Array:
    """The probability (n, k) that a criterion is satisfied: by a yes, or by a no where its sign
    (k,) is below 0. What does not apply is satisfied, half, or not."""
    met, none = _table(yes), _table(neither)
    good = np.where(np.asarray(signs, dtype=np.float64) >= 0, met, 1 - met - none)
    found: Array = good + WORTH[not_applicable] * none
    return found


def share_satisfied(scores: ArrayLike, scaling: Scaling | None = None) -> Array:
    """The share of criteria satisfied, (n,), of scores (n, k) in [0, 1]; scaled where asked.

    A score from one half counts as satisfied. A criterion without a verdict (NaN) counts for
    neither; NaN where there is none at all. Source: AutoRule, METHODS 1.2.
    """
    given = _table(scores)
    known = ~np.isnan(given)
    n = known.sum(axis=1)
    met = (known & (given >= MET)).sum(axis=1)
    share = np.divide(met, n, out=np.full(len(given), np.nan), where=n > 0)
    found: Array = share if scaling is None else scaling.of(share)
    return found


def weighted_sum(
    yes: ArrayLike, neither: ArrayLike, weights: ArrayLike, *, counts: ArrayLike | None = None
) -> Array:
    """``sum_j w_j s_j`` (n,), s the probability of a yes and half of that of "does not apply".

    ``counts`` (n, k): False where a criterion is not about a response, which then adds nothing.
    A response without a verdict (NaN) on a criterion that counts has no reward (NaN): a sum with a
    term left out is not on the scale of the others. Source: AutoRubric-T2I, METHODS 1.3.
    """
    scores = _table(yes) + WORTH["half"] * _table(neither)
    if counts is not None:
        scores = np.where(np.asarray(counts, dtype=bool), scores, 0.0)
    found: Array = scores @ np.asarray(weights, dtype=np.float64)
    return found


def rpo_rewards(ranks: Sequence[int], *, win: float = WIN, lose: float = LOSE) -> list[float]:
    """A reward per sample from its rank, 1 the best: exactly ``win`` for the best and ``lose`` for
    the worst, linear in the rank between them.

    Equal ranks get equal rewards; where all are equal nobody won, and all get 0. Raises
    ValueError for no ranks, ranks that do not start at 1, and a win that is not above a loss.
    Source: ARR, arXiv 2605.08354, whose code gives ``1 - (rank - 1) / (worst - 1) * 1.1``.
    """
    if not (math.isfinite(win) and math.isfinite(lose) and win > lose):
        raise ValueError(f"a win ({win}) must be worth more than a loss ({lose})")
    if not ranks or min(ranks) != 1 or any(int(rank) != rank for rank in ranks):
        raise ValueError("ranks are whole numbers, the best is 1")
    worst = max(ranks)
    if worst == 1:
        return [0.0] * len(ranks)

    def reward(rank: int) -> float:
        share = (rank - 1) / (worst - 1)
        # Not win - share * (win - lose): 1 - 1 * 1.1 is not -0.1 in floating point.
        return (1 - share) * win + share * lose

    return [reward(rank) for rank in ranks]


def ranked(rewards: ArrayLike) -> list[int]:
    """The rank of each reward (n,) of one prompt, 1 the highest, equal ones sharing theirs.

    Raises ValueError for a reward that is not known.
    """
    given = np.asarray(rewards, dtype=np.float64)
    if np.isnan(given).any():
        raise ValueError("a response without a reward has no rank")
    ranks, place, last = [0] * len(given), 0, math.inf
    for at in np.argsort(-given, kind="stable").tolist():
        if last - float(given[at]) > EVEN:
            place, last = place + 1, float(given[at])
        ranks[at] = place
    return ranks


def binary(rewards: ArrayLike, *, win: float = WIN, lose: float = LOSE) -> list[float]:
    """ARR's signed reward of the responses to one prompt, ranked by another reward (n,)."""
    return rpo_rewards(ranked(rewards), win=win, lose=lose)


# Scales -------------------------------------------------------------------------------------------


def spread(values: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Standard deviation of values (n,), NaN left out; within groups (n,) where these are given.

    Rewards of one prompt can be compared and those of two cannot, so how far a reward model
    spreads is what it spreads within prompts. Where no group has two values it is that of all.
    """
    given = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(given)
    given = given[known]
    if groups is not None and len(given):
        _, codes = np.unique(np.asarray(groups)[known], return_inverse=True)
        sizes = np.bincount(codes)
        free = len(given) - len(sizes)
        if free > 0:
            apart = given - (np.bincount(codes, weights=given) / sizes)[codes]
            return float(np.sqrt((apart**2).sum() / free))
    return float(given.std()) if len(given) else 0.0


def scaling_of(rewards: ArrayLike, groups: ArrayLike | None = None) -> Scaling:
    """The scaling that gives these rewards (n,) mean 0 and spread 1.

    Raises ValueError for fewer than two that are known, or all the same.
    """
    given = np.asarray(rewards, dtype=np.float64)
    scale = spread(given, groups)
    if (~np.isnan(given)).sum() < 2 or scale < EVEN:
        raise ValueError("a scale needs responses that satisfy different shares of the rules")
    return Scaling(float(np.nanmean(given)), scale)


def scaling_to(rubric: ArrayLike, model: ArrayLike, groups: ArrayLike | None = None) -> Scaling:
    """The scaling that gives rubric rewards (n,) mean 0 and the spread of a model's scores (n,).

    Raises ValueError where either is the same for all.
    """
    own = scaling_of(rubric, groups)
    wanted = spread(model, groups)
    if wanted < EVEN:
        raise ValueError("the reward model scores all of these responses alike")
    return Scaling(own.center, own.scale / wanted)


def combine(
    model_scores: ArrayLike, rubric_scores: ArrayLike, *, weight: float, scaling: Scaling
) -> Array:
    """``model + weight * (rubric - center) / scale``, (n,); NaN where either is not known."""
    model = np.asarray(model_scores, dtype=np.float64)
    found: Array = model + weight * scaling.of(rubric_scores)
    return found


def _table(values: ArrayLike) -> Array:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 2:
        raise ValueError(f"scores {given.shape} must be (responses, criteria)")
    return given
