"""Embeddings on disk: computed once per content, found again by every run of a server.

A cache is a folder of segments, two files each, written once and never changed: ``NAME.vectors``
(n, d) fp32 and then ``NAME.keys`` (n, 16 bytes); a segment counts once its keys are there. So any
number of processes may write at a time, and one killed at any moment leaves nothing half. What two
of them computed at once stands there twice, which costs room and no more.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.workdir import EMBEDDINGS

KEY_BYTES: Final = 16
UNUSED_DAYS: Final = 30  # a cache that nobody asked for so long is removed
LEFTOVER_DAYS: Final = 1
FEWEST: Final = 32  # rows worth a segment: single texts, scored one by one, would be a file each
AT_ONCE: Final = 512  # contents embedded between two segments: a kill loses no more
DAY: Final = 86_400

Keys = NDArray[np.uint64]  # (n, 2)
Vectors = NDArray[np.float32]  # (n, d)
# Embeds the contents of these places, (k,) -> (k, d).
Compute = Callable[[NDArray[np.int64]], Vectors]


def shared_root() -> Path | None:
    """Where this server keeps embeddings; None where it keeps none."""
    return Path(os.environ[EMBEDDINGS]) if os.environ.get(EMBEDDINGS) else None


class EmbeddingCache:
    """Vectors of one encoder, by the digest of what they are of. Without a folder, in memory."""

    def __init__(self, root: Path | None, name: str, width: int) -> None:
        self.folder = root / name if root else None
        self.width = width
        self.known: set[str] = set()
        self.segments: list[Vectors] = []
        self.keys: Keys = np.zeros((0, 2), np.uint64)  # sorted by the first half
        self.places: NDArray[np.int64] = np.zeros((0, 2), np.int64)  # (segment, row) of each key
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)
            prune(self.folder.parent, keep=self.folder)
            self._sweep()
        self.refresh()

    def embed(
        self, keys: list[bytes], compute: Compute, *, check: Callable[[], None]
    ) -> tuple[Vectors, int]:
        """(vectors (n, d) in the order of ``keys``, how many of them had to be computed).

        ``check`` is called between stretches of work and may raise; what was computed until then
        is kept.
        """
        wanted = np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, 2)
        distinct, first, back = np.unique(wanted, axis=0, return_index=True, return_inverse=True)
        self.refresh()
        vectors, found = self.find(distinct)
        missing = np.flatnonzero(~found)
        for start in range(0, len(missing), AT_ONCE):
            check()
            some = missing[start : start + AT_ONCE]
            vectors[some] = compute(first[some])
            self.add(distinct[some], vectors[some])
        return vectors[back.reshape(-1)], len(missing)

    def find(self, keys: Keys) -> tuple[Vectors, NDArray[np.bool_]]:
        """Vectors (n, d), zero where unknown, and which are known (n,)."""
        vectors = np.zeros((len(keys), self.width), np.float32)
        found = np.zeros(len(keys), bool)
        if not len(self.keys) or not len(keys):
            return vectors, found
        at = np.searchsorted(self.keys[:, 0], keys[:, 0])
        at = np.minimum(at, len(self.keys) - 1)
        found = (self.keys[at] == keys).all(axis=1)  # two that share a first half: the later misses
        places = self.places[at]
        for number in np.unique(places[found, 0]):
            of_segment = np.flatnonzero(found & (places[:, 0] == number))
            vectors[of_segment] = self.segments[number][places[of_segment, 1]]
        return vectors, found

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Keep new vectors, on disk where they are enough for a segment."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self.folder is not None and len(keys) >= FEWEST:
            name = uuid.uuid4().hex
            _write(self.folder / f"{name}.vectors", vectors.tobytes())
            _write(self.folder / f"{name}.keys", np.ascontiguousarray(keys).tobytes())
            self.known.add(name)
        self._index([(keys, vectors)])

    def refresh(self) -> None:
        """Take in the segments that others have written since."""
        if self.folder is None:
            return
        names = {path.stem for path in self.folder.glob("*.keys")} - self.known
        read = [self._read(name) for name in sorted(names)]
        self.known |= names
        self._index([segment for segment in read if segment is not None])

    def _read(self, name: str) -> tuple[Keys, Vectors] | None:
        assert self.folder is not None
        keys = np.fromfile(self.folder / f"{name}.keys", np.uint64).reshape(-1, 2)
        path = self.folder / f"{name}.vectors"
        # A disk that lost one of the two, or a foreign file: what it held is computed again.
        if not len(keys) or not path.exists():
            return None
        if path.stat().st_size != len(keys) * self.width * 4:
            return None
        return keys, np.memmap(path, np.float32, mode="r", shape=(len(keys), self.width))

    def _index(self, segments: list[tuple[Keys, Vectors]]) -> None:
        if not segments:
            return
        keys, places = [self.keys], [self.places]
        for some, vectors in segments:
            keys.append(some)
            number = np.full(len(some), len(self.segments))
            places.append(np.stack([number, np.arange(len(some))], axis=1))
            self.segments.append(vectors)
        joined = np.concatenate(keys)
        order = np.argsort(joined[:, 0], kind="stable")
        self.keys, self.places = joined[order], np.concatenate(places)[order]

    def _sweep(self) -> None:
        """Remove what a killed process left."""
        assert self.folder is not None
        before = time.time() - LEFTOVER_DAYS * DAY
        for path in [*self.folder.glob("*.partial"), *self.folder.glob("*.vectors")]:
            is_whole = path.with_suffix(".keys").exists()
            if not is_whole and path.exists() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


def prune(root: Path, *, keep: Path) -> None:
    """Remove caches that were not used for long. Who has one open goes on reading it."""
    before = time.time() - UNUSED_DAYS * DAY
    for folder in root.iterdir():
        if folder == keep or not folder.is_dir() or folder.stat().st_mtime > before:
            continue
        gone = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.gone")
        try:
            folder.rename(gone)
        except FileNotFoundError:  # another process was quicker
            continue
        shutil.rmtree(gone, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    """A file that appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
