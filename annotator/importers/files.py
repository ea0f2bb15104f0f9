"""Files that rows name: members of the zip a data file came in, or files beside it on disk.

Members are read by name out of the archive and never unpacked onto the disk, so that no name can
place a file anywhere. What is read is counted: a header's word for a size is not taken.
"""

from __future__ import annotations

import lzma
import posixpath
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from annotator.errors import Invalid
from annotator.importers.opening import MAX_BYTES, MAX_RATIO, RATIO_FROM
from annotator.importers.types import BadRow
from annotator.importers.values import shown

ZIP: Final = b"PK\x03\x04"
MAX_FILE: Final = 30 * 1024**2  # bytes of one image
MAX_DIRECTORY: Final = 128 * 1024**2  # bytes of a zip's list of contents: a million files
BLOCK: Final = 1 << 20
DATA_ENDINGS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TAIL: Final = 65_536 + 22 + 20  # the longest comment, the end record, the locator before it
END64: Final = 56  # bytes of zip64's own end record, which stands before its locator
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
                  NotImplementedError, ValueError, struct.error)  # fmt: skip


class Files(Protocol):
    """Where the images that rows name are read from."""

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises BadRow where there is none, or where it is too large."""


class NoFiles:
    """A lone upload: nothing lies beside it."""

    def read(self, path: str) -> bytes:
        raise BadRow("image-alone", shown(path))


class Folder:
    """Files in the folder of a data file, and below; never outside, whatever links say."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def read(self, path: str) -> bytes:
        try:
            found = (self._root / path).resolve()
            if not found.is_relative_to(self._root):
                raise BadRow("image-outside", shown(path))
            if not found.is_file():
                raise BadRow("image", shown(path))
            with found.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except (OSError, ValueError):
            raise BadRow("image", shown(path)) from None
        return _sized(data, path)


class Archive:
    """A zip with one data file in it, and the images that its rows name."""

    def __init__(self, path: Path) -> None:
        _check_directory(path)
        try:
            self._zip = zipfile.ZipFile(path)
            self._data = self._find()
        except DAMAGED as error:
            raise Invalid(f"The zip archive cannot be read ({error}).") from None

    def _find(self) -> zipfile.ZipInfo:
        """The one data file; hidden files and those that macOS adds are passed over."""
        found = [
            info
            for info in self._zip.infolist()
            if info.filename.lower().removesuffix(".gz").endswith(DATA_ENDINGS)
            and not any(part.startswith((".", "__MACOSX")) for part in info.filename.split("/"))
        ]
        if len(found) == 1:
            return found[0]
        several = ", ".join(shown(info.filename) for info in found[:5])
        self.close()
        raise Invalid(
            f"The zip archive has {len(found)} data files: {several}."
            if found
            else "The file is a zip archive (or an Excel sheet) without a data file in it.",
            advice="Put one JSON Lines, JSON, CSV, TSV or Parquet file into it, with the images"
            " that it names; or unpack it and send the data file alone.",
        )

    def unpack_data(self) -> BinaryIO:
        """The data file on disk, in a temporary file that is gone when closed."""
        target = tempfile.NamedTemporaryFile(prefix="touchstone-import-")  # noqa: SIM115
        try:
            with self._zip.open(self._data) as source:
                _copy(source, target, packed=self._data.compress_size)
        except DAMAGED as error:
            target.close()
            raise Invalid(f"The zip archive is damaged ({error}).") from None
        except BaseException:
            target.close()
            raise
        target.seek(0)
        return target

    @property
    def data_name(self) -> str:
        return posixpath.basename(self._data.filename)

    def read(self, path: str) -> bytes:
        inside = posixpath.normpath(path.replace("\\", "/"))
        if inside.startswith(("/", "../")) or inside in ("..", ".") or inside[1:2] == ":":
            raise BadRow("image-outside", shown(path))
        beside = posixpath.join(posixpath.dirname(self._data.filename), inside)
        for name in (beside, inside):
            try:
                info = self._zip.getinfo(name)
            except KeyError:
                continue
            try:
                with self._zip.open(info) as file:
                    return _sized(file.read(MAX_FILE + 1), path)
            except DAMAGED:
                raise BadRow("image-broken", f"{shown(path)} cannot be unpacked") from None
        raise BadRow("image", shown(path))

    def close(self) -> None:
        self._zip.close()


def _sized(data: bytes, path: str) -> bytes:
    if len(data) > MAX_FILE:
        raise BadRow("image-large", f"{shown(path)} has over {MAX_FILE // 1024**2} MB")
    return data


def _copy(source: BinaryIO, target: BinaryIO, *, packed: int) -> None:
    """Copy in blocks, within the limits that hold for every compressed file."""
    given = 0
    while block := source.read(BLOCK):
        given += len(block)
        if given > MAX_BYTES or (given > RATIO_FROM and given > MAX_RATIO * packed):
            raise Invalid("The data file in the zip archive unpacks to more than the limit.")
        target.write(block)


def _check_directory(path: Path) -> None:
    """Refuse a list of contents that would fill the memory before it could be looked at."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise Invalid("The zip archive is cut short.", advice="Nothing was imported.")
    length = struct.unpack_from("<I", tail, at + 12)[0]
    # Where there is a locator, zipfile goes by zip64's record, whatever the other one says.
    if at >= 20 and tail[at - 20 : at].startswith(b"PK\x06\x07"):
        with path.open("rb") as file:
            file.seek(max(0, size - len(tail) + at - 20 - END64))
            record = file.read(END64)
        if record.startswith(b"PK\x06\x06"):
            length = struct.unpack_from("<Q", record, 40)[0]
    if length > MAX_DIRECTORY:
        raise Invalid("The zip archive holds too many files.", advice="Split it in parts.")
