"""One thing to read rows from: a file on disk or a data set on the Hugging Face hub."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Self

from annotator.errors import Invalid
from annotator.importers import hub, opening, readers
from annotator.importers.files import ZIP, Archive, Files, Folder, NoFiles
from annotator.importers.readers import Culprit, Numbered

SAMPLE_ROWS: Final = 50
# How a row's number is called for each kind of file.
UNITS: Final = {"JSON Lines": "line", "CSV": "line", "TSV": "line", "JSON": "item"}


@dataclass
class Source:
    """Numbered rows, read once, and what is known about where they come from."""

    name: str
    container: str  # "JSON Lines", "JSON", "CSV", "TSV", "Parquet", "Hugging Face"
    encoding: str
    is_gzip: bool
    size: int  # bytes on disk, 0 where unknown
    rows: Iterator[Numbered]
    total_rows: int | None = None
    bytes_read: Callable[[], int] = lambda: 0
    files: Files = field(default_factory=NoFiles)  # the images that rows name
    closers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def unit(self) -> str:
        return UNITS.get(self.container.removesuffix(" in a zip"), "row")

    def sample(self) -> list[dict[str, Any]]:
        """The first readable rows, not consumed. Raises Invalid where there is none."""
        first: list[Numbered] = []
        good: list[dict[str, Any]] = []
        for numbered in islice(self.rows, SAMPLE_ROWS * 20):
            first.append(numbered)
            if isinstance(numbered[1], dict):
                good.append(numbered[1])
                if len(good) == SAMPLE_ROWS:
                    break
        self.rows = chain(first, self.rows)
        if not first:
            raise Invalid("The file has no rows.")
        return good

    def close(self) -> None:
        for close in reversed(self.closers):
            close()
        self.closers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(where: str | Path, *, beside: bool = False) -> Source:
    """Open a path or an ``hf://org/name[:split]`` id. Raises Invalid or MethodFailed.

    Of a zip its one data file is read. ``beside``: rows may name images in the file's folder.
    """
    if str(where).startswith(hub.SCHEME):
        rows, total = hub.open_rows(str(where))
        return Source(str(where), "Hugging Face", "UTF-8", False, 0, rows, total_rows=total)
    path = Path(where)
    if path.is_dir():
        raise Invalid(f"“{path.name}” is a folder.")
    if _is_zip(path):
        return _from_archive(path)
    source = _open(path)
    if beside:
        source.files = Folder(path.parent)
    return source


def _is_zip(path: Path) -> bool:
    if not path.is_file():
        return False  # a pipe can be read once only
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP)) == ZIP
    except OSError as error:
        raise Invalid(f"The file cannot be opened: {error.strerror or error}.") from None


def _from_archive(path: Path) -> Source:
    """The data file of a zip, its rows' images read from the zip itself."""
    archive = Archive(path)
    try:
        unpacked = archive.unpack_data()
        try:
            source = _open(Path(unpacked.name))
        except BaseException:
            unpacked.close()
            raise
    except BaseException:
        archive.close()
        raise
    source.name, source.files = archive.data_name, archive
    source.container = f"{source.container} in a zip"
    source.closers[:0] = [archive.close, unpacked.close]
    return source


def _open(path: Path) -> Source:
    opened = opening.open_bytes(path)
    try:
        return _source(path, opened)
    except BaseException:
        opened.close()
        raise


def _source(path: Path, opened: opening.Opened) -> Source:
    source = Source(
        name=path.name,
        container="JSON Lines",
        encoding=opened.encoding,
        is_gzip=opened.is_gzip,
        size=opened.size,
        rows=iter(()),
        bytes_read=lambda: opened.meter.bytes_read,
        closers=[opened.close],
    )
    head = opened.sample.lstrip()
    if opened.sample.startswith(opening.PARQUET):
        parquet = readers.ParquetRows(opened.stream, None if opened.is_gzip else str(path))
        source.closers.append(parquet.close)
        source.container, source.total_rows, source.rows = "Parquet", parquet.total, iter(parquet)
    elif (head.startswith(b"[") and not _is_lines_of_lists(head)) or (
        head.startswith(b"{") and _is_one_object(head)
    ):
        source.container, source.rows = "JSON", readers.read_json(opened.stream)
    elif head.startswith((b"{", b"[")) or not head:
        source.rows = readers.read_jsonl(opened.stream)
    else:
        delimiter = readers.find_delimiter(head)
        source.container = "TSV" if delimiter == "\t" else "CSV"
        source.rows = readers.read_csv(opened.stream, delimiter)
    return source


def _is_lines_of_lists(head: bytes) -> bool:
    """JSON Lines that hold lists: each of the first two lines closes what it opens."""
    first, _, rest = head.partition(b"\n")
    return first.rstrip().endswith(b"]") and rest.lstrip().startswith(b"[")


KEY: Final = re.compile(rb'\s*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|$)', re.DOTALL)


def _is_one_object(head: bytes) -> bool:
    """Whether ``{`` opens one object written over several lines, or one that holds the rows.

    In JSON Lines the first line closes its object, or the second line opens another.
    """
    first, newline, rest = head.partition(b"\n")
    rest = rest.lstrip()
    if not newline or not rest:
        return not _is_row(first)
    if first.rstrip().endswith(b"}") or rest.startswith(b"{"):
        return False
    return KEY.match(first) is not None


def _is_row(line: bytes) -> bool:
    """Whether the only line of a file is a row of JSON Lines: it does not hold a list of rows."""
    if len(line) >= opening.SAMPLE:
        return False
    first = next(readers.read_json(io.BufferedReader(io.BytesIO(line))), None)
    return first is not None and isinstance(first[1], Culprit)
