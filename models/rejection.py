"""RSO: answers drawn as from a better policy, by rejecting those a reward model likes less.

Of a prompt's candidates, which came from some policy, each is accepted with the probability
``exp((r - r_max) / beta)``, where r_max is the best of those not yet accepted, round after round
until enough are. What is accepted follows ``policy * exp(r / beta)``: exactly the first one, of many
candidates nearly so, of few the more like the policy itself the more of them are taken.
beta is in units of the reward: small, and the best are taken; large, and any. Pure numpy.

Source: Liu et al. 2024, Statistical Rejection Sampling Improves Preference Optimization, 2309.06657.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def draw(
    rewards: ArrayLike, *, count: int, beta: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places (k,) of the accepted of rewards (n,), k = min(count, n), in the order of acceptance.

    Raises ValueError for a beta that is not above 0 and rewards that are not numbers.
    """
    r = np.asarray(rewards, np.float64)
    if not beta > 0:
        raise ValueError(f"beta is above 0, not {beta}")
    if not np.isfinite(r).all():
        raise ValueError("a candidate has no reward")
    left = np.arange(len(r))
    accepted: list[int] = []
    wanted = min(count, len(r))
    while len(accepted) < wanted:  # every round accepts at least its best
        chance = np.exp((r[left] - r[left].max()) / beta)
        takes = rng.random(len(left)) < chance
        # In an order of their own: the last round has more than are still wanted.
        accepted += rng.permutation(left[takes]).tolist()
        left = left[~takes]
    return np.array(accepted[:wanted], dtype=np.int64)
