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
ROW_GROUP: Final = 2_000
BLOCK: Final = 1 << 20
EXTENSIONS: Final = {"jsonl": "jsonl", "jsonl.gz": "jsonl.gz", "parquet": "parquet"}
MEDIA_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
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
    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> FileFacts: ...


class _Hashing(io.RawIOBase):
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
        # escaped, and objects inside a row begin with another key.
        self._between = b',{"%s":' % next(iter(columns)).encode()
        self._raw = _Hashing(path)
        self._out: BinaryIO = self._raw  # type: ignore[assignment]
        if level is not None:
            # No name and no time in the header.
            self._out = gzip.GzipFile("", "wb", level, self._raw, mtime=0)  # type: ignore[assignment]

    def write(self, rows: list[Row]) -> None:
        """Add rows. One call for all of them is several times quicker than one per row."""
        data = orjson.dumps(rows)[1:-1].replace(self._between, b"\n" + self._between[1:])
        self._out.write(data + b"\n")
        self._rows += len(rows)

    def close(self) -> FileFacts:
        self._out.close()
        self._raw.close()
        digest = self._raw.digest.hexdigest()
        return FileFacts(self._path.name, self._rows, self._raw.size, digest)


class Parquet:
    """Columns in row groups of at least ``ROW_GROUP``, compressed with Zstandard."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        from pyarrow import parquet

        self._path, self._columns, self._rows = path, columns, 0
        self._schema = _schema(columns)
        self._raw = _Hashing(path)
        # Long texts seldom repeat: dictionaries of them only cost time and memory.
        small = [name for name, kind in columns.items() if kind in ("int", "float")]
        self._out = parquet.ParquetWriter(
            self._raw, self._schema, compression="zstd", use_dictionary=small
        )
        self._held: list[Any] = []  # record batches, a third of the size of their rows
        self._held_rows = 0

    def write(self, rows: list[Row]) -> None:
        import pyarrow

        columns = [
            _messages([row[name] for row in rows])
            if kind == "messages"
            else pyarrow.array(_cells(rows, name, kind), self._schema.field(name).type)
            for name, kind in self._columns.items()
        ]
        self._held.append(pyarrow.record_batch(columns, schema=self._schema))
        self._held_rows += len(rows)
        if self._held_rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._held:
            table = pyarrow.Table.from_batches(self._held, self._schema)
            self._out.write_table(table, row_group_size=len(table))
        self._rows += self._held_rows
        self._held, self._held_rows = [], 0

    def close(self) -> FileFacts:
        self._flush()
        self._out.close()
        self._raw.close()
        digest = self._raw.digest.hexdigest()
        return FileFacts(self._path.name, self._rows, self._raw.size, digest)


def _cells(rows: list[Row], name: str, kind: str) -> list[Any]:
    """A column; free-form JSON, whose keys are anybody's, as text."""
    if kind == "json":
        return [None if row[name] is None else orjson.dumps(row[name]).decode() for row in rows]
    return [row[name] for row in rows]


def _schema(columns: dict[str, str]) -> Any:
    import pyarrow

    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    types = {
        "text": pyarrow.string(),
        "messages": pyarrow.list_(message),
        "texts": pyarrow.list_(pyarrow.string()),
        "json": pyarrow.string(),
        "bool": pyarrow.bool_(),
        "ints": pyarrow.list_(pyarrow.int64()),
        "responses": pyarrow.list_(
            pyarrow.struct(
                [
                    ("id", pyarrow.int64()),
                    ("text", pyarrow.string()),
                    ("generator", pyarrow.string()),
                    ("image", pyarrow.string()),
                    ("leak", pyarrow.string()),
                ]
            )
        ),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


def _messages(values: list[list[dict[str, str]]]) -> Any:
    """Lists of messages as an Arrow array: built flat, several times quicker than inferred."""
    import pyarrow

    offsets, total = [0], 0
    for value in values:
        total += len(value)
        offsets.append(total)
    flat = [message for value in values for message in value]
    roles = pyarrow.array([message["role"] for message in flat], pyarrow.string())
    contents = pyarrow.array([message["content"] for message in flat], pyarrow.string())
    messages = pyarrow.StructArray.from_arrays([roles, contents], ["role", "content"])
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), messages)


def open_file(folder: Path, split: str, columns: dict[str, str], *, container: str) -> RowFile:
    """A new file for the rows of one split."""
    path = folder / f"{split}.{EXTENSIONS[container]}"
    if container == "parquet":
        return Parquet(path, columns)
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
    count, first = _read_parquet(path) if path.suffix == ".parquet" else _read_lines(path, check)
    if count != facts.rows:
        raise BadFile(f"{facts.name} holds {count:,} rows, {facts.rows:,} were written")
    for row in first:
        if list(row) != list(columns):
            raise BadFile(f"{facts.name} has the columns {list(row)}, not {list(columns)}")
    return first


FIRST: Final = 5


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


def _read_parquet(path: Path) -> tuple[int, list[Row]]:
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
