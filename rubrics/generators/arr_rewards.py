"""The reward of RPO: what a judge's ranking of samples is worth, signed and not normalized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

WIN: Final = 1.0
LOSE: Final = -0.1  # the released code; the paper writes an unnamed constant


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
