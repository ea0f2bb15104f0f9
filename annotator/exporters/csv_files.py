"""CSV for spreadsheets, and as safe in them as text can be.

A spreadsheet runs a cell that begins like a formula, whoever wrote the text. Such a text gets an
apostrophe before it, and so does one that begins with an apostrophe: who takes one apostrophe off
every text that begins with one has the texts back as they were.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from annotator.exporters.files import FLAT, BadFile, FileFacts, Hashing, Row

MARK: Final = "'"
# What spreadsheets take for the beginning of a formula, as is or after what they trim.
RUN: Final = frozenset("=+-@\t\r\n＝＋－＠" + MARK)
FIRST: Final = 5
CHECK_ROWS: Final = 10_000


def escaped(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return MARK + text if text[:1] in RUN else text


def unescaped(cell: str) -> str:
    """The text of a cell."""
    return cell.removeprefix(MARK)


class Csv:
    """A header and one line per row; numbers are bare, an empty cell is null or an empty text."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        if odd := [name for name, kind in columns.items() if kind not in FLAT]:
            raise ValueError(f"no cell of a table holds {odd}")
        self._path, self._names, self._rows = path, list(columns), 0
        self._texts = [kind == "text" for kind in columns.values()]
        self._raw = Hashing(path)
        self._write([self._names])

    def _write(self, lines: Sequence[Sequence[Any]]) -> None:
        out = io.StringIO(newline="")
        # Lines end as RFC 4180 has it; with another end a bare return would not be quoted.
        csv.writer(out, lineterminator="\r\n").writerows(lines)
        self._raw.write(out.getvalue().encode())

    def write(self, rows: list[Row]) -> None:
        texts, names = self._texts, self._names
        self._write(
            [
                [
                    escaped(cell) if is_text and cell is not None else cell
                    for cell, is_text in zip(map(row.__getitem__, names), texts, strict=True)
                ]
                for row in rows
            ]
        )
        self._rows += len(rows)

    def close(self) -> list[FileFacts]:
        self._raw.close()
        digest = self._raw.digest.hexdigest()
        return [FileFacts(self._path.name, self._rows, self._raw.size, digest)]


def read(path: Path, check: Callable[[], object]) -> tuple[int, list[Row]]:
    """Number of rows and the first ones, cells as texts. Raises BadFile."""
    limit = csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _read(path.name, csv.reader(file), check)
    except csv.Error as error:
        raise BadFile(f"{path.name}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _read(
    name: str, lines: Iterator[list[str]], check: Callable[[], object]
) -> tuple[int, list[Row]]:
    header = next(lines, [])
    count = 0
    first: list[Row] = []
    for count, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise BadFile(f"{name}: row {count:,} has {len(line)} cells, not {len(header)}")
        if len(first) < FIRST:
            first.append(dict(zip(header, map(unescaped, line), strict=True)))
        if count % CHECK_ROWS == 0:
            check()
    return count, first
