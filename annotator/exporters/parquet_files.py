"""Parquet: columns in row groups, in as many files as their size asks for.

A picture's cell comes as the name of its stored file and goes out as that file's bytes: they are
read a few rows at a time, when they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson
from django.core.files.storage import default_storage

from annotator.errors import MethodFailed
from annotator.exporters.files import DEFAULT_SHARD_MB, FileFacts, Hashing, Row

ROW_GROUP: Final = 2_000
GROUP_BYTES: Final = 32 << 20  # whichever of the two comes first
ROWS_AT_ONCE: Final = 1_000
PICTURES_AT_ONCE: Final = 16
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

        columns = [
            _messages([row[name] for row in rows])
            if kind == "messages"
            else pyarrow.array(_cells(rows, name, kind), self._schema.field(name).type)
            for name, kind in self._columns.items()
        ]
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
