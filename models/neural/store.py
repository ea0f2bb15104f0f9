"""Encoded pairs in memory-mapped arrays: encode once, then train from any position.

A store holds 2n sequences for n pairs, chosen and rejected in turn, as one ragged array (CSR):
sequence s is ``ids[offsets[s]:offsets[s + 1]]``. It lies in the run's ``cache/`` folder under a
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
from typing import IO, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.pairs import Answer, Message, Pair, answer_text
from models.workdir import write_json

PAIRS_AT_ONCE: Final = 1024
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
    """n pairs as 2n encoded sequences, with one column per pair field."""

    ids: NDArray[np.int32]  # (nnz,)
    values: NDArray[np.float32] | None  # (nnz,)
    offsets: NDArray[np.int64]  # (2n + 1,)
    columns: dict[str, NDArray[Any]]  # (n,) each
    characters: NDArray[np.int64]  # (n, 2) length of each answer
    notes: dict[str, int]

    def __len__(self) -> int:
        return len(self.characters)

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
    """A Store of conversations that are not pairs, for scoring: 2n = m sequences, no columns."""
    offsets = np.concatenate([[0], np.cumsum(encoded.lengths)]).astype(np.int64)
    nothing = np.zeros((0, 2), np.int64)
    return Store(encoded.ids, encoded.values, offsets, {}, nothing, dict(encoded.notes))


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
        columns=columns,
        characters=np.load(folder / "characters.npy"),
        notes=orjson.loads((folder / "notes.json").read_bytes()),
    )


def build_store(
    folder: Path, pairs: Iterable[Pair], encode: Encode, on_chunk: Callable[[int], None]
) -> Store:
    """Encode ``pairs`` into ``folder``, which appears whole or not at all, and open it.

    ``on_chunk(pairs so far)`` is called often; what it raises ends the work.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with (partial / "ids.bin").open("wb") as ids, (partial / "values.bin").open("wb") as values:
            _write(partial, pairs, encode, on_chunk, ids=ids, values=values)
        if not (partial / "values.bin").stat().st_size:
            (partial / "values.bin").unlink()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    store = open_store(folder)
    assert store is not None
    return store


def _write(
    folder: Path,
    pairs: Iterable[Pair],
    encode: Encode,
    on_chunk: Callable[[int], None],
    *,
    ids: IO[bytes],
    values: IO[bytes],
) -> None:
    lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]  # offsets start at 0
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    characters, notes, count = [], Counter[str](), 0
    for chunk in _chunks(pairs):
        encoded = encode([(p.prompt, side) for p in chunk for side in (p.chosen, p.rejected)])
        ids.write(encoded.ids.tobytes())
        if encoded.values is not None:
            values.write(encoded.values.tobytes())
        lengths.append(encoded.lengths)
        notes.update(encoded.notes)
        for name, kind in COLUMNS.items():
            columns[name].append(np.array([getattr(pair, name) for pair in chunk], dtype=kind))
        characters.append(
            np.array([(len(answer_text(p.chosen)), len(answer_text(p.rejected))) for p in chunk])
        )
        count += len(chunk)
        on_chunk(count)
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths), dtype=np.int64))
    for name, kind in COLUMNS.items():
        np.save(folder / f"{name}.npy", np.concatenate([np.zeros(0, kind), *columns[name]]))
    np.save(folder / "characters.npy", np.concatenate([np.zeros((0, 2), np.int64), *characters]))
    write_json(folder / "notes.json", dict(notes))


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    iterator = iter(pairs)
    while chunk := list(islice(iterator, PAIRS_AT_ONCE)):
        yield chunk


def _map(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.zeros(0, kind)
    return np.memmap(path, dtype=kind, mode="r")
