"""Texts as sets of word triples, and short signatures by which alike sets are found among millions.

A word is a run of letters and digits, in scripts above U+07FF about a character. Hashes are the same
in every process, so that a dataset built again has the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

# Of UTF-8. The first byte of a character of three or four is no part of any word and so ends one.
WORD: Final = re.compile(rb"[0-9a-z\x80-\xbf\xc2-\xdf]+")
PUNCTUATION: Final = re.compile(r"[\u2000-\u206f\u3000-\u303f]")  # in bytes it looks like a word
TRIPLE: Final = 3
HASHES: Final = 32  # bytes of a signature
ROWS_OF_BAND: Final = 4
BANDS: Final = HASHES // ROWS_OF_BAND
SMALL: Final = 8  # rows that share a band and are all compared with each other
BEFORE: Final = 3  # of more, each is compared with the first and so many before it

Words = list[int]
Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint8]
Pairs = NDArray[np.int64]

_random = np.random.default_rng(20_251_121)
_OF_PLACE: Final[Hashes] = _random.integers(2**63, size=TRIPLE, dtype=np.uint64) * 2 + 1
_OF_HASH: Final[Hashes] = _random.integers(2**63, size=HASHES, dtype=np.uint64) * 2 + 1


def words(text: str) -> Words:
    """Hashes of the words in order; never fewer than a triple."""
    if not text.isascii():
        text = PUNCTUATION.sub(" ", text)
    found = list(map(crc32, WORD.findall(text.lower().encode("utf-8", "replace"))))
    return found if len(found) >= TRIPLE else [*found, *[0] * (TRIPLE - len(found))]


def triples(of: Words) -> frozenset[int]:
    """The different word triples of a text."""
    return frozenset(_hashed(np.array(of, dtype=np.uint64)).tolist())


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """The share of all triples of two texts that both have."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def signatures(texts: Sequence[Sequence[Words]]) -> Signatures:
    """MinHash signatures (n, HASHES) of n sets, each of the triples of some texts.

    A byte of two signatures is equal with probability J + (1 - J) / 256, J the Jaccard similarity.
    Source: Broder 1997, On the resemblance and containment of documents; Li and Koenig 2010,
    b-bit minwise hashing.
    """
    parts = [part for row in texts for part in row]
    sizes = np.array([len(part) for part in parts])
    flat = np.array([word for part in parts for word in part], dtype=np.uint64)
    ends = np.cumsum(sizes)
    inside = np.ones(len(flat), dtype=bool)  # where a triple begins that ends in the same text
    for back in range(1, TRIPLE):
        inside[ends - back] = False
    hashes = _hashed(np.append(flat, np.zeros(TRIPLE - 1, np.uint64)))[inside]
    per_part = np.cumsum(sizes - TRIPLE + 1)
    last = np.cumsum([len(row) for row in texts]) - 1
    starts = np.concatenate([[0], per_part[last][:-1]])
    found = np.empty((len(texts), HASHES), dtype=np.uint8)
    for place, factor in enumerate(_OF_HASH):
        least = np.minimum.reduceat((hashes * factor) >> np.uint64(32), starts)
        found[:, place] = least & np.uint64(0xFF)
    return found


def alike(of: Signatures, rank: NDArray[np.int64], *, least: float) -> Pairs:
    """Pairs (m, 2) of rows that share a band and may be ``least`` alike, the better rank first.

    Two sets of similarity J share one of the bands with probability ``chance(J)``. Of many that
    share one, each is compared with the best and with few before it, so that texts made alike on
    purpose cost no more than n comparisons.
    """
    bands = np.ascontiguousarray(of).view(np.uint32)  # (n, BANDS)
    allowed = least - 3 * float(np.sqrt(least * (1 - least) / HASHES))
    n, keys = len(of), np.empty(0, dtype=np.int64)
    for band in bands.T:
        first, second = _sharing(band, rank)
        fresh = first * n + second
        fresh = fresh[~np.isin(fresh, keys, assume_unique=True)]
        equal = (of[fresh // n] == of[fresh % n]).sum(axis=1, dtype=np.uint8) / HASHES
        close = (equal - 1 / 256) / (1 - 1 / 256) >= allowed
        keys = np.concatenate([keys, fresh[close]])
    return np.stack([keys // max(n, 1), keys % max(n, 1)], axis=1)


def chance(similarity: float) -> float:
    """How likely two sets of such a similarity share a band."""
    return float(1 - (1 - similarity**ROWS_OF_BAND) ** BANDS)


def _hashed(of: Hashes) -> Hashes:
    """A well mixed hash of every three neighbors, (n - 2,)."""
    mixed = of[:-2] * _OF_PLACE[0] + of[1:-1] * _OF_PLACE[1] + of[2:] * _OF_PLACE[2]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Hashes = mixed ^ (mixed >> np.uint64(31))
    return found


def _sharing(band: NDArray[np.uint32], rank: NDArray[np.int64]) -> tuple[Pairs, Pairs]:
    order = np.lexsort((rank, band))
    keys = band[order]
    new = np.concatenate([[True], keys[1:] != keys[:-1]])
    run = np.cumsum(new) - 1
    sizes = np.bincount(run)
    place = np.arange(len(keys)) - np.flatnonzero(new)[run]  # of each row in its run
    is_large = sizes[run] > SMALL
    firsts, seconds = [], []
    for back in range(1, SMALL):
        here = np.flatnonzero((place >= back) & (~is_large | (back <= BEFORE)))
        if not here.size:
            break
        firsts.append(order[here - back])
        seconds.append(order[here])
    here = np.flatnonzero(is_large & (place > BEFORE))
    firsts.append(order[here - place[here]])
    seconds.append(order[here])
    return np.concatenate(firsts), np.concatenate(seconds)
