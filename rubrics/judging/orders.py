"""In which orders answers are shown. An order is a tuple: ``order[slot]`` is the canonical place.

Balanced designs are fixed; what is drawn is drawn from a generator of its own, keyed by the item
and the repeat, so that a run done again shows the same and nothing else's draws are disturbed.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from random import Random
from typing import Final

Order = tuple[int, ...]
DRAW: Final = "touchstone:order"


@lru_cache(maxsize=32)
def balanced(k: int) -> tuple[Order, ...]:
    """A Latin square of k orders for even k, two of them (2k) for odd k.

    Every answer stands in every slot equally often and directly after every other equally often,
    and the reversal of each order is among them. Two answers: AB and BA.
    Source: Williams 1949, Australian Journal of Scientific Research A 2:149.
    """
    if k < 2:
        return (tuple(range(k)),)
    low, high, first = 0, k - 1, []
    while low <= high:  # 0, k-1, 1, k-2, ...: neighbors differ by every step once
        first.append(low)
        if low != high:
            first.append(high)
        low, high = low + 1, high - 1
    square = [tuple((place + turn) % k for place in first) for turn in range(k)]
    if k % 2:
        square += [order[::-1] for order in square]
    return tuple(square)


def drawn(k: int, *, item: int, repeat: int) -> Order:
    """One order, each of the k! as likely."""
    places = list(range(k))
    Random(f"{DRAW}:{item}:{repeat}").shuffle(places)
    return tuple(places)


def pairs_both(k: int) -> list[Order]:
    """Every pair in both orders: k (k - 1) of them."""
    return [order for i, j in combinations(range(k), 2) for order in ((i, j), (j, i))]


def pairs_once(k: int, *, item: int, repeat: int) -> list[Order]:
    """Every pair in one order, each answer first in half of its pairs (one off for even k)."""
    seats = drawn(k, item=item, repeat=repeat)
    orders: list[Order] = []
    for i, j in combinations(range(k), 2):
        ahead = (seats[j] - seats[i]) % k
        is_first = ahead < k / 2 or (ahead == k / 2 and seats[i] < seats[j])
        orders.append((i, j) if is_first else (j, i))
    return orders
