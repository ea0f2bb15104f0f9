"""Train, validation or test, drawn from a prompt's hash: the same wherever the prompt turns up."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from annotator.models import Split, SplitShares


def splitter(*, shares: SplitShares, seed: str) -> Callable[[bytes], Split]:
    """A function from a content hash to its split. Shares hold on average, not exactly."""
    to_train = shares.train
    to_validation = shares.train + shares.validation
    key = seed.encode()

    def split_of(content_hash: bytes) -> Split:
        drawn = blake2b(content_hash, digest_size=8, key=key).digest()
        place = int.from_bytes(drawn, "big") / 2**64
        if place < to_train:
            return Split.TRAIN
        return Split.VALIDATION if place < to_validation else Split.TEST

    return split_of
