"""Parquet: columns in row groups, in as many files as their size asks for.

A picture's cell comes as the name of its stored file and goes out as that file's bytes: they are
read a few rows at a time, when they are written.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from django.core.files.storage import default_storage
from numpy.typing import NDArray

from annotator.errors import MethodFailed
from annotator.exporters.files import DEFAULT_SHARD_MB, FileFacts, Hashing, Row

ROW_GROUP: Final = 2_000
GROUP_BYTES: Final = 32 << 20  # whichever of the two comes first
ROWS_AT_ONCE: Final = 1_000
PICTURES_AT_ONCE: Final = 16
MOST_BYTES: Final = 2**31 - 1  # of the texts of a batch, whose places are of 32 bits
MB: Final = 1_000_000


class Parquet:
    """Row groups of at least ``ROW_GROUP`` rows or ``GROUP_BYTES``, compressed with Zstandard.

    One file keeps the name it was asked for; several are ``train-00000-of-00003.parquet``.
    """

    def __init__(
        self, path: Path, columns: dict[str, str], *, shard_mb: int = DEFAULT_SHARD_MB
    ) -> None:
        self._path, self._columns = path, columns
        self._schema = schema_of(columns)
        self._shard_bytes = shard_mb * MB
        self._shards: list[tuple[Path, FileFacts]] = []
        self._held: list[Any] = []  # record batches, a third of the size of their rows
        self._held_rows = self._held_bytes = 0
        has_pictures = "picture" in columns.values()
        self._at_once = PICTURES_AT_ONCE if has_pictures else ROWS_AT_ONCE
        self._open()

    def _open(self) -> None:
        from pyarrow import parquet

        self._at = self._path.with_name(f"{self._path.name}.{len(self._shards):05}")
        self._raw, self._rows = Hashing(self._at), 0
        # Long texts seldom repeat: dictionaries of them only cost time and memory.
        small = [name for name, kind in self._columns.items() if kind in ("int", "float")]
        self._out = parquet.ParquetWriter(
            self._raw, self._schema, compression="zstd", use_dictionary=small
        )

    def write(self, rows: list[Row]) -> None:
        for start in range(0, len(rows), self._at_once):
            self._hold(rows[start : start + self._at_once])
            if self._held_rows >= ROW_GROUP or self._held_bytes >= GROUP_BYTES:
                self._flush()

    def _hold(self, rows: list[Row]) -> None:
        import pyarrow

        try:
            columns = [
                _column(_cells(rows, name, kind), kind, self._schema.field(name).type)
                for name, kind in self._columns.items()
            ]
        except OverflowError:
            if len(rows) == 1:
                raise
            half = len(rows) // 2
            self._hold(rows[:half])
            self._hold(rows[half:])
            return
        batch = pyarrow.record_batch(columns, schema=self._schema)
        self._held.append(batch)
        self._held_rows += len(rows)
        self._held_bytes += batch.nbytes

    def _flush(self) -> None:
        import pyarrow

        if not self._held:
            return
        if self._rows and self._raw.size >= self._shard_bytes:
            self._end_shard()
            self._open()
        table = pyarrow.Table.from_batches(self._held, self._schema)
        self._out.write_table(table, row_group_size=len(table))
        self._rows += self._held_rows
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _end_shard(self) -> None:
        self._out.close()
        self._raw.close()
        facts = FileFacts("", self._rows, self._raw.size, self._raw.digest.hexdigest())
        self._shards.append((self._at, facts))

    def close(self) -> list[FileFacts]:
        self._flush()
        self._end_shard()
        total, done = len(self._shards), []
        for number, (path, facts) in enumerate(self._shards):
            name = self._path.name
            if total > 1:
                name = f"{self._path.stem}-{number:05}-of-{total:05}{self._path.suffix}"
            path.rename(self._path.with_name(name))
            done.append(FileFacts(name, facts.rows, facts.bytes, facts.sha256))
        return done


def _cells(rows: list[Row], name: str, kind: str) -> list[Any]:
    """A column; free-form JSON, whose keys are anybody's, as text."""
    if kind == "json":
        return [None if row[name] is None else orjson.dumps(row[name]).decode() for row in rows]
    if kind == "picture":
        return [_bytes_of(row[name]) for row in rows]
    return [row[name] for row in rows]


def _bytes_of(name: str) -> bytes:
    try:
        with default_storage.open(name) as file:
            data: bytes = file.read()
    except FileNotFoundError:
        raise MethodFailed(
            f"The picture {name} is not where pictures are kept.",
            advice="Bring the folder of stored files back, then resume the run.",
        ) from None
    return data


def schema_of(columns: dict[str, str]) -> Any:
    """The Arrow schema of columns (name -> kind)."""
    import pyarrow

    text = pyarrow.string()
    message = pyarrow.struct([("role", text), ("content", text)])
    turn = pyarrow.struct([("from", text), ("value", text)])
    types = {
        "text": text,
        "messages": pyarrow.list_(message),
        "answers": pyarrow.list_(pyarrow.list_(message)),
        "turn": turn,
        "turns": pyarrow.list_(turn),
        "texts": pyarrow.list_(text),
        "json": text,
        "bool": pyarrow.bool_(),
        "ints": pyarrow.list_(pyarrow.int64()),
        "floats": pyarrow.list_(pyarrow.float64()),
        "picture": pyarrow.binary(),
        "responses": pyarrow.list_(
            pyarrow.struct(
                [
                    ("id", pyarrow.int64()),
                    ("text", text),
                    ("generator", text),
                    ("image", text),
                    ("leak", text),
                ]
            )
        ),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


# Columns as Arrow arrays, from their buffers: ``pyarrow.array`` of a list would first load pandas
# where that is installed, to see whether the list is one of its own, and keep 55 MB for it.
NUMBERS: Final = {"int": "q", "float": "d"}


def _column(values: list[Any], kind: str, of: Any) -> Any:
    import pyarrow

    if kind in ("text", "json"):
        return _texts(values)
    if kind in NUMBERS:
        return _numbers(values, kind, of)
    if kind == "messages":
        return _messages(values)
    return pyarrow.array(values, of)


def _texts(values: list[str | None]) -> Any:
    import pyarrow

    missing, mask = _mask(values)
    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = pyarrow.py_buffer(_offsets(encoded))
    whole = pyarrow.py_buffer(b"".join(encoded))
    return pyarrow.StringArray.from_buffers(len(values), offsets, whole, mask, missing)


def _offsets(values: Sequence[Sized]) -> NDArray[np.int32]:
    """Where each begins, and where the last ends. Raises OverflowError past 2 GiB."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    ends = np.cumsum(lengths)
    if len(ends) and ends[-1] > MOST_BYTES:
        raise OverflowError(f"{int(ends[-1]):,} bytes in one list of texts")
    return np.concatenate([[0], ends]).astype(np.int32)


def _numbers(values: list[float | None], kind: str, of: Any) -> Any:
    import pyarrow

    missing, mask = _mask(values)
    if missing:
        values = [0 if value is None else value for value in values]
    data = pyarrow.py_buffer(array(NUMBERS[kind], values))
    return pyarrow.Array.from_buffers(of, len(values), [mask, data], missing)


def _mask(values: list[Any]) -> tuple[int, Any]:
    """How many are missing, and a bit per value that is not; None where none is."""
    import pyarrow

    missing = values.count(None)
    if not missing:
        return 0, None
    is_there = np.fromiter((value is not None for value in values), bool, len(values))
    return missing, pyarrow.py_buffer(np.packbits(is_there, bitorder="little"))


def _messages(values: list[list[dict[str, str]]]) -> Any:
    """Lists of messages, built flat: several times quicker than inferred."""
    import pyarrow

    offsets = _offsets(values)
    flat = [message for value in values for message in value]
    roles = _texts([message["role"] for message in flat])
    contents = _texts([message["content"] for message in flat])
    messages = pyarrow.StructArray.from_arrays([roles, contents], ["role", "content"])
    places = pyarrow.Array.from_buffers(
        pyarrow.int32(), len(offsets), [None, pyarrow.py_buffer(offsets)]
    )
    return pyarrow.ListArray.from_arrays(places, messages)
