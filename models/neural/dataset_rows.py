"""What must hold for every row of a dataset, looked at in Arrow: a million rows cost no objects."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

AT_ONCE: Final = 10_000
MOST_TOLD: Final = 10  # failures that are named; the others are counted

# Kind of a column (annotator.exporters.files) -> whether an Arrow type may stand for it. A column
# without any value has the type null wherever types are told from the rows.
FITS: Final = {
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "int": pa.types.is_integer,
    "float": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "bool": pa.types.is_boolean,
    "messages": lambda kind: is_list(kind) and pa.types.is_struct(kind.value_type),
    "bytes": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
}


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


@dataclass
class Found:
    """Failures of one check: the first ones with their row, and how many there are."""

    count: int = 0
    told: list[tuple[str, int, str]] = field(default_factory=list)  # split, row, why

    def add(self, split: str, row: int, why: str) -> None:
        self.count += 1
        if len(self.told) < MOST_TOLD:
            self.told.append((split, row, why))


@dataclass(frozen=True)
class Promise:
    """What a format says of its rows: names of columns.

    ``prompt`` may be "" where the texts hold it; ``answers`` are chosen and rejected, or one
    completion; ``differ``: two that may not be equal. ``is_text_needed``: no answer is without.
    """

    columns: dict[str, str]
    prompt: str = ""
    answers: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    is_text_needed: bool = False

    @classmethod
    def read(cls, job: dict[str, Any]) -> Promise:
        lists = {name: tuple(job[name]) for name in ("answers", "differ", "filled")}
        return cls(job["columns"], job["prompt"], is_text_needed=job["is_text_needed"], **lists)


def wrong_columns(schema: pa.Schema, promise: Promise, *, has_types: bool) -> str:
    """Why the columns are not those that were promised, or ""."""
    if schema.names != list(promise.columns):
        return f"the columns are {schema.names}, not {list(promise.columns)}"
    for name, kind in promise.columns.items():
        found = schema.field(name).type
        fits = FITS.get(kind)
        if has_types and fits and not pa.types.is_null(found) and not fits(found):
            return f"column {name} is read as {found}, which is no {kind}"
    return ""


# Kind of a column -> what a value of it is in JSON.
VALUES: Final[dict[str, Any]] = {
    "text": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "messages": list,
    "texts": list,
    "ints": list,
    "floats": list,
    "turns": list,
    "turn": dict,
}


def odd_lines(path: Path, promise: Promise) -> Iterator[tuple[int, str]]:
    """Rows of JSON lines that are not what was promised, from 0: looked for when a file does not
    load, or loads as something else."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for row, line in enumerate(file):
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield row, str(error)
                continue
            if not isinstance(found, dict) or list(found) != list(promise.columns):
                names = list(found) if isinstance(found, dict) else type(found).__name__
                yield row, f"the columns are {names}, not {list(promise.columns)}"
                continue
            for name, kind in promise.columns.items():
                value, wanted = found[name], VALUES.get(kind)
                if value is not None and wanted and not isinstance(value, wanted):
                    yield row, f"{name} is {type(value).__name__}, which is no {kind}"


def check_rows(split: str, table: pa.Table, start: int, promise: Promise, found: Found) -> None:
    """Look at some rows; ``start`` is the place of the first in its split."""
    for row, why in _flaws(table.combine_chunks(), promise):
        found.add(split, start + row, why)


def _flaws(table: pa.Table, promise: Promise) -> Iterator[tuple[int, str]]:
    for name in (promise.prompt, *promise.answers, *promise.filled):
        if name:
            for row in _places(pc.is_null(table[name])):
                yield row, f"{name} is null"
    for name in (promise.prompt, *promise.answers):
        if name and is_list(table[name].type):
            yield from _messages(table[name], name)
    if promise.is_text_needed:
        for name in promise.answers:
            for row in np.flatnonzero(_texts(table[name]) == 0).tolist():
                yield row, f"{name} has no text"
    if promise.differ:
        one, other = promise.differ
        for row in _equal(table[one], table[other]):
            yield row, f"{one} and {other} are equal"


def _messages(column: pa.ChunkedArray, name: str) -> Iterator[tuple[int, str]]:
    array = _whole(column)
    for row in _places(pc.equal(pc.list_value_length(array), 0)):
        yield row, f"{name} has no message"
    messages, owner = array.flatten(), pc.list_parent_indices(array)
    fields = {one.name for one in messages.type} if pa.types.is_struct(messages.type) else set()
    if len(messages) and fields != {"role", "content"}:
        yield 0, f"messages of {name} have {sorted(fields)}, not role and content"
        return
    for part in fields:
        for place in _places(pc.is_null(messages.field(part))):
            yield owner[place].as_py(), f"{name} has a message without {part}"
    if "role" in fields:
        for place in _places(pc.equal(messages.field("role"), "")):
            yield owner[place].as_py(), f"{name} has a message of nobody"


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> list[int]:
    """Rows in which two columns hold the same."""
    if one.type == other.type and not pa.types.is_nested(one.type):
        return _places(pc.equal(one, other))
    # Values that differ in size differ: the few others are compared one by one.
    same = np.flatnonzero(_texts(one, trim=False) == _texts(other, trim=False))
    return [row for row in same.tolist() if one[row].as_py() == other[row].as_py()]


def _texts(column: pa.ChunkedArray, *, trim: bool = True) -> np.ndarray:
    """Bytes of text in each row (n,), of messages together."""
    array = _whole(column)
    if not is_list(array.type):
        return _bytes(array, trim=trim)
    messages = array.flatten()
    if not pa.types.is_struct(messages.type):
        return np.zeros(len(array), dtype=np.int64)
    name = "content" if "content" in {one.name for one in messages.type} else messages.type[0].name
    total = np.concatenate([[0], np.cumsum(_bytes(messages.field(name), trim=trim))])
    sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    return total[ends] - total[ends - sizes]


def _bytes(array: pa.Array, *, trim: bool) -> np.ndarray:
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    is_binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    if not (is_text or is_binary):
        return np.zeros(len(array), dtype=np.int64)
    if trim and is_text:
        array = pc.utf8_trim_whitespace(array)
    found = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _places(mask: Any) -> list[int]:
    """Where a mask is true."""
    flags = pc.fill_null(mask, False)
    return np.flatnonzero(np.asarray(flags)).tolist()
