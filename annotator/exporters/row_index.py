"""What rows a version has, in a few bytes each: to compare versions without reading texts.

A record says which responses a row is of, which of them is chosen, and the split. Sorted by its
key, so that two versions are compared in one walk over two files on the disk.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters.recipe import SPLITS
from annotator.exporters.types import Keyed
from annotator.exporters.verdicts import Decided

FILE: Final = "rows.npy"
RECORD: Final = np.dtype(
    [("a", "<i8"), ("b", "<i8"), ("prompt", "<i8"), ("side", "i1"), ("split", "i1")]
)
AT_ONCE: Final = 65_536  # records read together
Records = NDArray[np.void]
NO_IDS: Final = np.empty(0, np.int64)


class RowIndex:
    """Gathers the keys of rows as they are written, until ``records`` is asked for."""

    def __init__(self) -> None:
        self._a, self._b, self._prompts = array("q"), array("q"), array("q")
        self._sides, self._splits = array("b"), array("b")
        self._records: Records | None = None

    def add(self, prompt: int, split: str, a: int, b: int, side: int) -> None:
        assert self._records is None
        self._a.append(a)
        self._b.append(b)
        self._prompts.append(prompt)
        self._sides.append(side)
        self._splits.append(SPLITS.index(split))

    def add_pairs(self, split: str, decided: Sequence[Decided]) -> None:
        """Rows that are pairs, in the order in which they were written."""
        assert self._records is None
        self._a.extend([one.pair.a_id for one in decided])
        self._b.extend([one.pair.b_id for one in decided])
        self._prompts.extend([one.pair.prompt_id for one in decided])
        self._sides.extend(
            [
                0 if one.verdict.kind == "tie" else 1 if one.chosen.id == one.pair.a_id else -1
                for one in decided
            ]
        )
        self._splits.extend([SPLITS.index(split)] * len(decided))

    def add_keyed(self, prompt: int, split: str, one: Keyed) -> None:
        self.add(prompt, split, one.a, one.b, one.side)

    def records(self) -> Records:
        """Sorted by (a, b, side). Made once, and nothing is added afterwards: what was gathered is
        let go, since of a million rows a second copy would be felt."""
        if self._records is None:
            found = np.empty(len(self._a), dtype=RECORD)
            found["a"], self._a = self._a, array("q")
            found["b"], self._b = self._b, array("q")
            found["prompt"], self._prompts = self._prompts, array("q")
            found["side"], self._sides = self._sides, array("b")
            found["split"], self._splits = self._splits, array("b")
            order = np.lexsort((found["side"], found["b"], found["a"]))
            for name in found.dtype.names or ():
                found[name] = found[name][order]
            self._records = found
        return self._records

    def save(self, folder: Path) -> None:
        """Write the records; on disk when this returns."""
        with (folder / FILE).open("wb") as file:
            np.save(file, self.records(), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())


def load(folder: Path) -> np.memmap[Any, np.dtype[np.void]] | None:
    """A version's records, mapped from the disk; None where it has none."""
    try:
        return np.load(folder / FILE, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError):
        return None


@dataclass(frozen=True, eq=False)
class Changes:
    """What became of the rows of an older version in a newer one.

    ``flipped``: the same responses, the other one chosen. ``moved``: in another split. Both are
    also among ``kept``. Examples are records of at most the asked-for number.
    """

    kept: int
    added: int
    removed: int
    flipped: int
    moved: int
    examples: dict[str, Records]

    def as_dict(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) for name in ("kept", "added", "removed", "flipped", "moved")
        }


def compare(older: Records, newer: Records, *, examples: int = 20) -> Changes:
    """Rows are the same where they are of the same responses (or of the same prompt's list).

    Rows of a pair in both directions, as ties can be exported, are compared once.
    """
    old, new = _once(older), _once(newer)
    in_new, at = _find(old, new)
    in_old, _ = _find(new, old)
    same_old, same_new = old[in_new], new[at[in_new]]
    flipped = same_old["side"] * same_new["side"] < 0  # a tie, 0, chooses neither
    moved = same_old["split"] != same_new["split"]
    kinds = {
        "added": new[~in_old],
        "removed": old[~in_new],
        "flipped": same_new[flipped],
        "moved": same_new[moved],
    }
    return Changes(
        kept=int(in_new.sum()),
        **{name: len(rows) for name, rows in kinds.items()},
        examples={name: rows[:examples].copy() for name, rows in kinds.items()},
    )


def prompts_by_split(some: Iterable[Records]) -> dict[str, NDArray[np.int64]]:
    """Split -> ids of its prompts, rising."""
    found: dict[str, list[NDArray[np.int64]]] = {split: [NO_IDS] for split in SPLITS}
    for block in some:
        for place, split in enumerate(SPLITS):
            found[split].append(block["prompt"][block["split"] == place])
    return {split: distinct(np.concatenate(found.pop(split))) for split in SPLITS}


def blocks(folder: Path) -> Iterator[Records]:
    """A version's records, some at a time: a mapped file would be in memory whole once read.

    Nothing where it has none, or was deleted meanwhile.
    """
    mapped = load(folder)
    if mapped is None:
        return
    left, start = len(mapped), mapped.offset
    del mapped
    with suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        file.seek(start)
        while left > 0:
            block = np.fromfile(file, RECORD, min(left, AT_ONCE))
            left -= AT_ONCE
            yield block


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each value once, rising. Sorts ``values``: ``np.unique`` takes eight times their memory."""
    values.sort()
    is_first = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    return values[is_first]


def _once(records: Records) -> Records:
    if not len(records):
        return records
    a, b = records["a"], records["b"]
    first = np.ones(len(records), dtype=bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return np.asarray(records[first])


def _find(of: Records, among: Records) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each key of ``of`` is ``among``, and where; both sorted by key."""
    if not len(among):
        return np.zeros(len(of), dtype=bool), np.zeros(len(of), dtype=np.int64)
    keys_of, keys_among = (_keys(rows) for rows in (of, among))
    at = np.minimum(np.searchsorted(keys_among, keys_of), len(among) - 1)
    return keys_among[at] == keys_of, at


def _keys(records: Records) -> NDArray[Any]:
    """Keys that sort as (a, b) do: complex numbers are ordered by both parts.

    Ids are exact in a double up to 2**53.
    """
    return records["a"].astype(np.float64) + 1j * records["b"].astype(np.float64)
