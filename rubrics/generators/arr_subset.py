"""The subset of accepted criteria that makes most verdicts right: greedy, forward, with patience.

METHODS 1.1, step 4. Every criterion alone is a judge's verdict on a pair in both orders: with what
people said, against it, or neither. A subset says what the sum of its verdicts says; it is right
where the sum is above zero. Criteria are added one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sides = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Subset:
    """``picked`` columns in the order they were added; ``right`` of ``n`` verdicts after each."""

    picked: tuple[int, ...]
    right: tuple[int, ...]
    n: int

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values. Of pairs that chose: it flatters."""
        return {"picked": len(self.picked), "right": list(self.right), "pairs": self.n}


def best_subset(sides: Sides, *, limit: int, patience: int) -> Subset:
    """Columns of sides (pairs, criteria): 1 with what people said, -1 against it, 0 neither.

    The next column makes most verdicts right; of equals the one with the greater sum, then the
    earlier. After ``patience`` additions that make no more right, these are taken back. At least
    one column is kept, at most ``limit``. Raises ValueError for no column.
    """
    n, k = sides.shape
    if not k or limit < 1 or patience < 1:
        raise ValueError("a subset needs a criterion, a limit and patience from 1")
    total = np.zeros(n)
    picked: list[int] = []
    right: list[int] = []
    best = 0  # length of the shortest subset that is right most often
    while len(picked) < min(limit, k) and len(picked) - best < patience:
        after = total[:, None] + sides
        hits, sums = (after > 0).sum(axis=0), sides.sum(axis=0)
        free = [at for at in range(k) if at not in picked]
        at = max(free, key=lambda one: (hits[one], sums[one], -one))
        total = after[:, at]
        picked.append(at)
        right.append(int(hits[at]))
        if best == 0 or right[-1] > right[best - 1]:
            best = len(picked)
    return Subset(tuple(picked[:best]), tuple(right[:best]), n)


def as_sides(rows: Sequence[Sequence[int]]) -> Sides:
    """(pairs, criteria) of whole numbers."""
    found: Sides = np.array(rows, dtype=np.float64)
    return found
