"""Chance that is a function of its key: the same question meets the same luck."""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import Final

STANDARD: Final = NormalDist()


def digest(*parts: object) -> bytes:
    """16 bytes of anything that prints the same every time."""
    text = "\x1f".join(str(part) for part in parts)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def uniform(*key: object) -> float:
    """In (0, 1), never an end."""
    return (int.from_bytes(digest(*key)[:6], "big") + 0.5) / 2**48


def normal(*key: object) -> float:
    """Standard Gaussian."""
    return STANDARD.inv_cdf(uniform(*key))


def gumbel(*key: object) -> float:
    """Standard Gumbel: the difference of two is standard logistic."""
    return -math.log(-math.log(uniform(*key)))


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)) that does not overflow."""
    return 0.5 * (1 + math.tanh(value / 2))


def logit(probability: float) -> float:
    """Log-odds of a probability strictly between 0 and 1."""
    return math.log(probability / (1 - probability))
