"""The order in which pairs are trained on."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BATCHES_SORTED_TOGETHER: Final = 50  # more saves more padding, fewer shuffles better


def batches(
    lengths: NDArray[np.int64], batch_size: int, *, seed: tuple[int, int], by_length: bool
) -> list[NDArray[np.int64]]:
    """Every index of ``lengths`` (n,) once, in shuffled batches fixed by ``seed``.

    By length: within each stretch of 50 shuffled batches, pairs of like length go together, which
    leaves little to pad; the batches are then shuffled, the one with the longest pair first, so
    that a batch which does not fit in memory fails at once and not after an hour.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    if not by_length:
        return cut(order, batch_size)
    stretches = cut(order, batch_size * BATCHES_SORTED_TOGETHER)
    found = [
        batch
        for stretch in stretches
        for batch in cut(stretch[np.argsort(lengths[stretch], kind="stable")], batch_size)
    ]
    mixed = [found[i] for i in rng.permutation(len(found))]
    longest = max(range(len(mixed)), key=lambda i: int(lengths[mixed[i]].max()))
    mixed[0], mixed[longest] = mixed[longest], mixed[0]
    return mixed


def cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Consecutive pieces of at most ``size``."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def deal(tokens: NDArray[np.int64], hands: int) -> list[NDArray[np.int64]]:
    """The places of a batch (b,) in so many shares of about as many rows and tokens, each in order.

    Dealt from the largest down, there and back, so that no share has the largest of every lap.
    """
    order = np.argsort(-tokens, kind="stable")
    lap, place = np.divmod(np.arange(len(order)), hands)
    owner = np.where(lap % 2, hands - 1 - place, place)
    return [np.sort(order[owner == hand]) for hand in range(hands)]
