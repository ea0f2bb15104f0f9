"""Query results as numpy columns: binary COPY, so that a million rows cost no Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]

HEAD: Final = 19  # signature, flags, length of the extension
CHUNK_BYTES: Final = 8 * 1024 * 1024
# SQL type of a column -> its width; all of a column must be of it, and none of it NULL.
TYPES: Final = {"bigint": ">i8", "integer": ">i4", "smallint": ">i2", "double precision": ">f8"}


def read_columns(
    raw: psycopg.Connection, query: str, values: Mapping[str, Any], columns: Mapping[str, str]
) -> Columns:
    """Columns of a SELECT by name; ``columns`` gives the SQL type of each, in its order.

    The query's columns are cast to these types. Raises ValueError where one of them is NULL.
    """
    parts: list[Columns] = [{name: _empty(kind) for name, kind in columns.items()}]
    parts.extend(blocks(raw, query, values, columns))
    return {name: np.concatenate([part[name] for part in parts]) for name in columns}


def blocks(
    raw: psycopg.Connection, query: str, values: Mapping[str, Any], columns: Mapping[str, str]
) -> Iterator[Columns]:
    """What ``read_columns`` gives, some hundred thousand rows at a time; to be read to its end."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in columns.items():
        fields += [(f"{name} bytes", ">i4"), (name, TYPES[kind])]
    row = np.dtype(fields)
    casts = ", ".join(f"q.{name}::{kind}" for name, kind in columns.items())
    held = bytearray()
    skip = HEAD
    with raw.cursor() as cursor:
        statement = f"COPY (SELECT {casts} FROM ({query}) q) TO STDOUT (FORMAT BINARY)"
        with cursor.copy(statement, values) as copy:
            for block in copy:
                held += block
                if len(held) > CHUNK_BYTES:
                    whole = (len(held) - skip) // row.itemsize * row.itemsize
                    yield _columns(held[skip : skip + whole], row, columns)
                    del held[: skip + whole]
                    skip = 0
    if len(held) - skip > 2:  # the trailer
        yield _columns(held[skip:-2], row, columns)


def _columns(block: bytearray, row: np.dtype[Any], columns: Mapping[str, str]) -> Columns:
    if len(block) % row.itemsize:
        raise ValueError("a column is NULL where none may be")
    table = np.frombuffer(bytes(block), dtype=row)
    found = {}
    for name in columns:
        if (table[f"{name} bytes"] != row[name].itemsize).any():
            raise ValueError(f"{name} is NULL somewhere")
        found[name] = table[name].astype(row[name].newbyteorder("="))
    return found


def _empty(kind: str) -> NDArray[Any]:
    return np.empty(0, dtype=np.dtype(TYPES[kind]).newbyteorder("="))
