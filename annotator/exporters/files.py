"""Files of rows: written in blocks, hashed on the way to the disk, read again before they count.

The same rows give the same bytes: no times, names or machine in any of them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import orjson

# Level 4 compresses text within a few percent of level 6 in about half the time.
GZIP_LEVEL: Final = 4
BLOCK: Final = 1 << 20
DEFAULT_SHARD_MB: Final = 500
EXTENSIONS: Final = {"jsonl": "jsonl", "jsonl.gz": "jsonl.gz", "parquet": "parquet", "csv": "csv"}
FLAT: Final = frozenset({"text", "int", "float", "bool"})  # kinds that a cell of a table holds
MEDIA_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".py": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    "": "text/plain; charset=utf-8",
}

Row = dict[str, Any]


class BadFile(Exception):
    """A written file that does not read back as what was written."""


@dataclass(frozen=True)
class FileFacts:
    name: str
    rows: int
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class RowFile(Protocol):
    """The rows of one split, in a file or in several."""

    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> list[FileFacts]:
        """Everything is on disk when this returns."""
        ...


class Hashing(io.RawIOBase):
    """A file that knows the SHA-256 and the size of what went through it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:]) or 0
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        if not self.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()


class JsonLines:
    """One JSON object per line, gzipped where ``level`` is set."""

    def __init__(self, path: Path, columns: dict[str, str], *, level: int | None = None) -> None:
        self._path, self._rows = path, 0
        # What stands between two objects of a list. Nowhere else: in a text the quotation mark is
        # escaped, and objects inside a row begin with another key, save those whose keys are anybody's.
        self._is_free = "json" in columns.values()
        self._between = b',{"%s":' % next(iter(columns)).encode()
        self._raw = Hashing(path)
        self._out: BinaryIO = self._raw  # type: ignore[assignment]
        if level is not None:
            # No name and no time in the header.
            self._out = gzip.GzipFile("", "wb", level, self._raw, mtime=0)  # type: ignore[assignment]

    def write(self, rows: list[Row]) -> None:
        """Add rows. One call for all of them is several times quicker than one per row."""
        if self._is_free:
            data = b"\n".join(map(orjson.dumps, rows))
        else:
            data = orjson.dumps(rows)[1:-1].replace(self._between, b"\n" + self._between[1:])
        self._out.write(data + b"\n")
        self._rows += len(rows)

    def close(self) -> list[FileFacts]:
        self._out.close()
        self._raw.close()
        digest = self._raw.digest.hexdigest()
        return [FileFacts(self._path.name, self._rows, self._raw.size, digest)]


def open_file(
    folder: Path,
    split: str,
    columns: dict[str, str],
    *,
    container: str,
    shard_mb: int = DEFAULT_SHARD_MB,
) -> RowFile:
    """New files for the rows of one split; Parquet begins another one from ``shard_mb`` on."""
    path = folder / f"{split}.{EXTENSIONS[container]}"
    if container == "parquet":
        from annotator.exporters.parquet_files import Parquet

        return Parquet(path, columns, shard_mb=shard_mb)
    if container == "csv":
        from annotator.exporters.csv_files import Csv

        return Csv(path, columns)
    return JsonLines(path, columns, level=GZIP_LEVEL if container == "jsonl.gz" else None)


def verify(
    folder: Path, facts: FileFacts, columns: dict[str, str], *, check: Callable[[], object]
) -> list[Row]:
    """Read a file again from the disk; returns its first rows.

    Size, SHA-256 and number of rows must be what was written, and the first rows must parse with
    exactly the ``columns``. ``check`` is called between blocks. Raises BadFile.
    """
    path = folder / facts.name
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            check()
    if size != facts.bytes or digest.hexdigest() != facts.sha256:
        raise BadFile(f"{facts.name}: {size:,} bytes on disk are not the {facts.bytes:,} written")
    count, first = _readers(path.suffix)(path, check)
    if count != facts.rows:
        raise BadFile(f"{facts.name} holds {count:,} rows, {facts.rows:,} were written")
    for row in first:
        if list(row) != list(columns):
            raise BadFile(f"{facts.name} has the columns {list(row)}, not {list(columns)}")
    return first


FIRST: Final = 5
Reader = Callable[[Path, Callable[[], object]], tuple[int, list[Row]]]


def _readers(suffix: str) -> Reader:
    if suffix == ".parquet":
        return _read_parquet
    if suffix == ".csv":
        from annotator.exporters.csv_files import read

        return read
    return _read_lines


def _read_lines(path: Path, check: Callable[[], object]) -> tuple[int, list[Row]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            first = [orjson.loads(line) for line, _ in zip(file, range(FIRST), strict=False)]
        except orjson.JSONDecodeError as error:
            raise BadFile(f"{path.name}: {error}") from error
    count = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(BLOCK):
            count += block.count(b"\n")
            check()
    return count, first


def _read_parquet(path: Path, check: Callable[[], object]) -> tuple[int, list[Row]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        batches: Iterator[Any] = file.iter_batches(batch_size=FIRST)
        first = next(batches, None)
        return file.metadata.num_rows, first.to_pylist() if first is not None else []


def write_text(path: Path, text: str) -> None:
    """A small file, on disk when this returns."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
