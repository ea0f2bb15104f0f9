"""Encoded pairs in memory-mapped arrays: encode once, then train from any position.

A store holds the answers of n rows end to end, as one ragged array (CSR): sequence s is
``ids[offsets[s]:offsets[s + 1]]``, and row i has the sequences ``rows[i]`` to ``rows[i + 1]``. A row
is a pair, chosen and rejected, or a ranking of any number of answers. It lies in the run's ``cache/`` folder under a
fingerprint of data and encoder, so a resumed run does not encode again.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.pairs import Answer, Message, Pair, Ranked, answer_text
from models.workdir import write_json

PAIRS_AT_ONCE: Final = 1024
RANKS: Final = 127  # the last rank that is told from the next
COLUMNS: Final = {
    "p": np.float32,
    "weight": np.float32,
    "strength": np.int8,
    "prompt_id": np.int64,
    "pair_id": np.int64,
}

Conversation = tuple[list[Message], Answer]


@dataclass(frozen=True)
class Encoded:
    """Some sequences. ids (nnz,) int32; values (nnz,) float32 or None; lengths (m,) int64.

    ``notes`` counts what was done to the texts, such as "prompts_cut".
    """

    ids: NDArray[np.int32]
    values: NDArray[np.float32] | None
    lengths: NDArray[np.int64]
    notes: Counter[str] = field(default_factory=Counter)


Encode = Callable[[list[Conversation]], Encoded]


@dataclass(frozen=True)
class Store:
    """n rows as encoded sequences, with one column per field of a row."""

    ids: NDArray[np.int32]  # (nnz,)
    values: NDArray[np.float32] | None  # (nnz,)
    offsets: NDArray[np.int64]  # (m + 1,)
    rows: NDArray[np.int64]  # (n + 1,)
    columns: dict[str, NDArray[Any]]  # (n,) each
    ranks: NDArray[np.int8]  # (m,) from 1, within a row
    ratings: NDArray[np.float32]  # (m, a), NaN where an attribute was not rated
    characters: NDArray[np.int64]  # (m,) length of each answer
    attributes: tuple[str, ...]  # (a,)
    notes: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows) - 1

    def sequences(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sequences of the given rows, end to end."""
        starts, sizes = self.rows[rows], self.rows[rows + 1] - self.rows[rows]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        return np.repeat(starts, sizes) + within

    def longest(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Length of the longest sequence of each of the given rows."""
        if not len(rows):
            return np.zeros(0, np.int64)
        found: NDArray[np.int64] = np.maximum.reduceat(self.lengths, self.rows[:-1])[rows]
        return found

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of every sequence, (2n,)."""
        return np.diff(self.offsets)

    def gather(self, sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in ``ids`` of the given sequences, end to end, and each one's length (m,)."""
        starts = self.offsets[sequences]
        lengths = self.offsets[sequences + 1] - starts
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return np.repeat(starts, lengths) + within, lengths


def pack(encoded: Encoded) -> Store:
    """A Store of single conversations, for scoring: every sequence is a row, without columns."""
    m = len(encoded.lengths)
    return Store(
        ids=encoded.ids,
        values=encoded.values,
        offsets=np.concatenate([[0], np.cumsum(encoded.lengths)]).astype(np.int64),
        rows=np.arange(m + 1),
        columns={},
        ranks=np.ones(m, np.int8),
        ratings=np.zeros((m, 0), np.float32),
        characters=np.zeros(m, np.int64),
        attributes=(),
        notes=dict(encoded.notes),
    )


def open_store(folder: Path) -> Store | None:
    """The store in ``folder``, memory-mapped, or None where there is none."""
    if not folder.exists():
        return None
    columns = {name: np.load(folder / f"{name}.npy") for name in COLUMNS}
    values = folder / "values.bin"
    return Store(
        ids=_map(folder / "ids.bin", np.int32),
        values=_map(values, np.float32) if values.exists() else None,
        offsets=np.load(folder / "offsets.npy"),
        rows=np.load(folder / "rows.npy"),
        columns=columns,
        ranks=np.load(folder / "ranks.npy"),
        ratings=np.load(folder / "ratings.npy"),
        characters=np.load(folder / "characters.npy"),
        attributes=tuple(orjson.loads((folder / "attributes.json").read_bytes())),
        notes=orjson.loads((folder / "notes.json").read_bytes()),
    )


def build_store(
    folder: Path,
    rows: Iterable[Pair | Ranked],
    encode: Encode,
    on_chunk: Callable[[int], None],
    *,
    attributes: tuple[str, ...] = (),
) -> Store:
    """Encode ``rows`` into ``folder``, which appears whole or not at all, and open it.

    ``attributes`` are those whose ratings are kept. ``on_chunk(rows so far)`` is called often; what
    it raises ends the work.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with (partial / "ids.bin").open("wb") as ids, (partial / "values.bin").open("wb") as values:
            columns = _Columns(attributes)
            for chunk in _chunks(rows):
                encoded = encode([(row.prompt, side) for row in chunk for side in row.answers])
                ids.write(encoded.ids.tobytes())
                if encoded.values is not None:
                    values.write(encoded.values.tobytes())
                on_chunk(columns.add(chunk, encoded))
        columns.save(partial)
        if not (partial / "values.bin").stat().st_size:
            (partial / "values.bin").unlink()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    store = open_store(folder)
    assert store is not None
    return store


class _Columns:
    """Everything of a store but the sequences, a chunk at a time."""

    def __init__(self, attributes: tuple[str, ...]) -> None:
        self.attributes, self.notes, self.count = attributes, Counter[str](), 0
        self.lengths = [np.zeros(1, np.int64)]  # offsets start at 0
        self.sizes = [np.zeros(1, np.int64)]
        self.columns = {name: [np.zeros(0, kind)] for name, kind in COLUMNS.items()}
        self.ranks = [np.zeros(0, np.int8)]
        self.ratings = [np.zeros((0, len(attributes)), np.float32)]
        self.characters = [np.zeros(0, np.int64)]

    def add(self, chunk: list[Pair | Ranked], encoded: Encoded) -> int:
        """Rows so far."""
        self.lengths.append(encoded.lengths)
        self.notes.update(encoded.notes)
        self.sizes.append(np.array([len(row.answers) for row in chunk], dtype=np.int64))
        for name, kind in COLUMNS.items():
            self.columns[name].append(np.array([getattr(row, name) for row in chunk], dtype=kind))
        ranks = [min(rank, RANKS) for row in chunk for rank in row.ranks]
        self.ranks.append(np.array(ranks, dtype=np.int8))
        sides = [side for row in chunk for side in row.answers]
        self.characters.append(np.array([len(answer_text(side)) for side in sides]))
        if self.attributes:
            told = [one or {} for row in chunk for one in row.ratings]
            table = [[one.get(name, np.nan) for name in self.attributes] for one in told]
            self.ratings.append(np.array(table, dtype=np.float32))
        else:
            self.ratings.append(np.zeros((len(sides), 0), np.float32))
        self.count += len(chunk)
        return self.count

    def save(self, folder: Path) -> None:
        np.save(folder / "offsets.npy", np.cumsum(np.concatenate(self.lengths), dtype=np.int64))
        np.save(folder / "rows.npy", np.cumsum(np.concatenate(self.sizes), dtype=np.int64))
        for name, parts in self.columns.items():
            np.save(folder / f"{name}.npy", np.concatenate(parts))
        for name in ("ranks", "ratings", "characters"):
            np.save(folder / f"{name}.npy", np.concatenate(getattr(self, name)))
        write_json(folder / "attributes.json", list(self.attributes))
        write_json(folder / "notes.json", dict(self.notes))


def _chunks(rows: Iterable[Pair | Ranked]) -> Iterator[list[Pair | Ranked]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, PAIRS_AT_ONCE)):
        yield chunk


def _map(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.zeros(0, kind)
    return np.memmap(path, dtype=kind, mode="r")
