"""From rows of a file to rows of a project, where one of these may be spread over many of those.

Rows of one item can stand anywhere in a file of a million. They are written to a temporary file
on the way through and read back item by item; what stays in memory is 16 bytes a row.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from annotator.importers.readers import Culprit, Numbered
from annotator.importers.types import BadRow, Grouped, Raw, Row, RowReader

KEY_BYTES: Final = 8

# (number, raw row, what became of it)
Read = tuple[int, Any, Row | BadRow]


def read_rows(
    numbered: Iterator[Numbered], reader: RowReader | Grouped, *, on_row: Callable[[], object]
) -> Iterator[Read]:
    """Rows and refusals. ``on_row`` is called once for each row of the file, bad or good."""
    if not isinstance(reader, Grouped):
        yield from _single(numbered, reader, on_row)
    elif reader.is_adjacent:
        yield from _adjacent(numbered, reader, on_row)
    else:
        yield from _anywhere(numbered, reader, on_row)


def _single(
    numbered: Iterator[Numbered], read: RowReader, on_row: Callable[[], object]
) -> Iterator[Read]:
    for number, raw in numbered:
        on_row()
        if type(raw) is Culprit:
            yield number, raw, raw.bad
            continue
        try:
            found = read(raw)
        except BadRow as bad:
            yield number, raw, bad
            continue
        if type(found) is list:
            for row in found:
                yield number, raw, row
        else:
            yield number, raw, found


def _keyed(
    numbered: Iterator[Numbered], grouped: Grouped, on_row: Callable[[], object]
) -> Iterator[tuple[int, Any, str | BadRow]]:
    for number, raw in numbered:
        on_row()
        if isinstance(raw, Culprit):
            yield number, raw, raw.bad
            continue
        try:
            yield number, raw, grouped.key(raw)
        except BadRow as bad:
            yield number, raw, bad


def _group(grouped: Grouped, rows: list[tuple[int, Raw]]) -> Iterator[Read]:
    refused: list[Read] = []
    row = grouped.read(rows, lambda number, raw, bad: refused.append((number, raw, bad)))
    yield from refused
    if row is not None:
        row.lines = len(rows) - len(refused)
        yield rows[0][0], rows[0][1], row


def _adjacent(
    numbered: Iterator[Numbered], grouped: Grouped, on_row: Callable[[], object]
) -> Iterator[Read]:
    held: list[tuple[int, Raw]] = []
    last = ""
    for number, raw, key in _keyed(numbered, grouped, on_row):
        if isinstance(key, BadRow):
            yield number, raw, key
            continue
        if held and (key != last or len(held) >= grouped.most):
            yield from _group(grouped, held)
            held = []
        held.append((number, raw))
        last = key
    if held:
        yield from _group(grouped, held)


def _anywhere(
    numbered: Iterator[Numbered], grouped: Grouped, on_row: Callable[[], object]
) -> Iterator[Read]:
    digests, offsets = array("Q"), array("Q")
    with tempfile.TemporaryFile() as spool:
        at = 0
        for number, raw, key in _keyed(numbered, grouped, on_row):
            if isinstance(key, BadRow):
                yield number, raw, key
                continue
            # pickle keeps what JSON cannot: dates of Parquet, halves of surrogate pairs.
            data = pickle.dumps((number, raw), pickle.HIGHEST_PROTOCOL)
            spool.write(data)
            digests.append(_digest(key))
            offsets.append(at)
            at += len(data)
        spool.flush()
        for places in _by_item(digests, offsets):
            rows = []
            for place in places:
                spool.seek(place, os.SEEK_SET)
                rows.append(pickle.load(spool))
                if len(rows) >= grouped.most:
                    yield from _group(grouped, rows)
                    rows = []
            if rows:
                yield from _group(grouped, rows)


def _digest(key: str) -> int:
    data = key.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=KEY_BYTES).digest(), "big")


def _by_item(digests: array[int], offsets: array[int]) -> Iterator[list[int]]:
    """The offsets of each item's rows, items in the order in which they first came."""
    if not digests:
        return
    keys = np.frombuffer(digests, np.uint64)
    where = np.frombuffer(offsets, np.uint64)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
    ends = np.r_[starts[1:], len(order)]
    for item in np.argsort(order[starts], kind="stable"):
        yield where[order[starts[item] : ends[item]]].tolist()
