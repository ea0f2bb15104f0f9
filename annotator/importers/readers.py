"""Numbered rows out of a stream: JSON Lines, JSON, CSV, Parquet. Memory flat in the file's size.

Each reader yields ``(number, row)``; instead of a dict, ``row`` is a ``Culprit`` where that row
could not be read. What breaks the whole file raises ``errors.Invalid``.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, BinaryIO, Final

import orjson

from annotator.errors import Invalid
from annotator.importers import json_stream, values
from annotator.importers.opening import MAX_BYTES
from annotator.importers.types import BadRow

MAX_LINE: Final = 16 * 1024**2
DELIMITERS: Final = ",\t;|"
MAX_COLUMNS: Final = 2000
BATCH_ROWS: Final = 512
EXCERPT: Final = 120


@dataclass(slots=True)
class Culprit:
    """A row that could not be read at all: why, and what it looked like around ``at``."""

    bad: BadRow
    text: str = ""
    at: int = 0


Numbered = tuple[int, dict[str, Any] | Culprit]


def lines(stream: BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """(number, line); None in place of a line over the limit, which is passed over."""
    number = 0
    while True:
        line = stream.readline(MAX_LINE + 1)
        if not line:
            return
        number += 1
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE)
            yield number, None
        else:
            yield number, line


def read_jsonl(stream: BufferedReader) -> Iterator[Numbered]:
    loads = orjson.loads
    for number, line in lines(stream):
        if line is None:
            yield number, Culprit(BadRow("line-too-long"))
            continue
        try:
            row = loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip():
                yield number, not_json(line, error)
            continue
        if type(row) is dict:
            yield number, row
        else:
            yield number, Culprit(BadRow("not-an-object"), _shown(line[:EXCERPT]))


def read_json(stream: BufferedReader) -> Iterator[Numbered]:
    """Elements of a list; their numbers count elements, since many may share a line."""
    for number, text in enumerate(json_stream.rows(stream), start=1):
        try:
            row = orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            yield number, not_json(text.encode(errors="replace"), error)
            continue
        if type(row) is dict:
            yield number, row
        else:
            yield number, Culprit(BadRow("not-an-object"), text[:EXCERPT])


def not_json(line: bytes, error: ValueError) -> Culprit:
    """Why a line is no JSON, told from the ways in which real files go wrong."""
    at = getattr(error, "pos", 0)
    said = str(error).lower()
    text = line.decode(errors="replace").strip()
    if "surrogate" in said or b"\xff" in line or not _is_utf8(line):
        code, detail = "encoding", "" if not _is_utf8(line) else "half of a surrogate pair"
    elif "recursion" in said or "depth" in said:
        code, detail = "nested", ""
    elif "\0" in text:
        code, detail = "nul", ""
    elif text[at : at + 3] == "NaN" or text[at : at + 8].endswith("Infinity"):
        code, detail = "not-json", "NaN and Infinity are no JSON numbers"
    elif at >= len(text):
        code, detail = "not-json", "it ends in the middle"
    else:
        code, detail = "not-json", f"at character {at + 1}"
    begin = max(0, at - EXCERPT // 2)
    return Culprit(BadRow(code, detail), text[begin : begin + EXCERPT], at - begin)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(line: bytes) -> str:
    return line.decode(errors="replace").strip()


def find_delimiter(head: bytes) -> str:
    """The separator that cuts the first line into most fields."""
    first = _shown(head.split(b"\n", 1)[0])
    return max(DELIMITERS, key=lambda mark: _fields(first, mark))


def _fields(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:  # a carriage return in the middle
        return 0


def read_csv(stream: BufferedReader, delimiter: str) -> Iterator[Numbered]:
    """Rows under their header's names; a row's number is that of the line it begins on."""
    csv.field_size_limit(MAX_LINE)
    skipped: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in lines(stream):
            if line is None:
                skipped.append(number)
            # Bytes that are no UTF-8 come through as lone surrogates and cost only their row.
            yield "" if line is None else line.decode(errors="surrogateescape")

    reader = csv.reader(texts(), delimiter=delimiter)
    header = _header(reader)
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield begin, Culprit(BadRow("fields", str(error)))
            continue
        if skipped:
            skipped.clear()
            yield begin, Culprit(BadRow("line-too-long"))
        elif len(cells) == len(header):
            yield begin, dict(zip(header, cells, strict=True))
        elif cells:
            detail = f"{len(cells)} instead of {len(header)}"
            yield begin, Culprit(BadRow("fields", detail), delimiter.join(cells)[:EXCERPT])


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next((cells for cells in reader if any(cells)), [])
    except csv.Error as error:
        raise Invalid(f"The header of the table cannot be read: {error}.") from None
    names = [cell.strip() or f"column {place}" for place, cell in enumerate(header, start=1)]
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise Invalid(
            "The header of the table is not UTF-8.", advice="Save the file as UTF-8."
        ) from None
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)[:5]
    if len(names) > MAX_COLUMNS:
        raise Invalid(f"The table has {len(names):,} columns.")
    if doubled:
        raise Invalid(f"Two columns have the same name: {values.listed(doubled)}.")
    if len(names) < 2:
        raise Invalid(
            "No known file type: neither JSON, nor Parquet, nor a table of two columns or more.",
            advice="JSON Lines, JSON, CSV, TSV and Parquet are read, plain or gzipped.",
        )
    return names


class ParquetRows:
    """Rows of a Parquet file in small batches. A gzipped one is unpacked to a file first."""

    def __init__(self, stream: BufferedReader, path: str | None) -> None:
        import pyarrow
        from pyarrow import parquet

        self._errors = (pyarrow.ArrowException, OSError, ValueError, NotImplementedError)
        self._spool: BinaryIO | None = None
        if path is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the reader
            shutil.copyfileobj(stream, self._spool, 1 << 20)
            self._spool.seek(0, os.SEEK_SET)
        try:
            # Buffering ahead would keep every column chunk of the file until the end.
            self._file = parquet.ParquetFile(self._spool or path, pre_buffer=False)
            metadata = self._file.metadata
            self.total = metadata.num_rows
            groups = (metadata.row_group(at) for at in range(metadata.num_row_groups))
            unpacked = sum(group.total_byte_size for group in groups)
        except self._errors as error:
            self.close()
            raise Invalid(f"The Parquet file cannot be read: {_first_line(error)}.") from None
        if unpacked > MAX_BYTES:
            self.close()
            raise Invalid("The Parquet file unpacks to more than the limit.")

    def __iter__(self) -> Iterator[Numbered]:
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except self._errors as error:
            raise Invalid(
                f"The Parquet file is damaged after row {number:,}: {_first_line(error)}.",
                advice="Nothing was imported.",
            ) from None

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
