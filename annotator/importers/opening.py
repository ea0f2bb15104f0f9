"""Bytes of a file, whatever it is packed in: gzip by its magic number, with limits on both.

Limits hold against decompression bombs: gzip can grow a thousandfold, text rarely more than
thirtyfold.
"""

from __future__ import annotations

import codecs
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from annotator.errors import Invalid

BUFFER: Final = 1 << 18
MAX_BYTES: Final = 64 * 1024**3  # after decompression
RATIO_FROM: Final = 256 * 1024**2  # the ratio is not looked at below this many bytes
MAX_RATIO: Final = 150
SAMPLE: Final = 1 << 16

GZIP: Final = b"\x1f\x8b"
PARQUET: Final = b"PAR1"
PACKED: Final = {
    b"PK\x03\x04": "a zip archive (or an Excel sheet)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstandard",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"ARROW1": "an Arrow file (save it as Parquet)",
}
UTF16: Final = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}  # longest first: the UTF-32 mark begins with the UTF-16 one


class Meter(io.RawIOBase):
    """The file as it lies on disk, counting what was read: this is what progress shows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.bytes_read += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class Gunzip(io.RawIOBase):
    """Decompressed bytes of a gzip stream of any number of members, within the limits."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(wbits=31)
        self._taken = self._given = 0
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:
        # Filled as far as it goes: what detection sees does not depend on how it was packed.
        filled = 0
        while filled < len(buffer):
            data = self._step(len(buffer) - filled)
            if data is None:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self._given += len(data)
            self._check_limits()
        return filled

    def _step(self, size: int) -> bytes | None:
        """Some bytes, none yet (b""), or None at the end."""
        if self._inflate.eof:
            left = self._inflate.unused_data or self._read()
            while left and not left.strip(b"\0"):
                left = self._read()  # padding after the last member is allowed
            if not left:
                return None
            self._inflate, self._waiting = zlib.decompressobj(wbits=31), left.lstrip(b"\0")
        data = self._waiting or self._read()
        try:
            result = self._inflate.decompress(data, size)
        except zlib.error as error:
            raise Invalid(f"The gzip file is damaged ({error}). Nothing was imported.") from None
        self._waiting = self._inflate.unconsumed_tail
        if not data and not result and not self._inflate.eof:
            raise Invalid(
                "The gzip file is cut short.",
                advice="The upload or download broke off. Nothing was imported; send it again.",
            )
        return result

    def _read(self) -> bytes:
        data = self._source.read1(BUFFER)
        self._taken += len(data)
        return data

    def _check_limits(self) -> None:
        if self._given > MAX_BYTES:
            raise Invalid(f"The file unpacks to more than {MAX_BYTES // 1024**3} GB.")
        if self._given > RATIO_FROM and self._given > MAX_RATIO * self._taken:
            raise Invalid(
                f"The file unpacks to more than {MAX_RATIO} times its size: this is not text."
            )

    def close(self) -> None:
        self._source.close()
        super().close()


class Recode(io.RawIOBase):
    """UTF-16 and UTF-32 as UTF-8."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:
        while not self._ready:
            data = self._source.read1(BUFFER)
            try:
                text = self._decoder.decode(data, final=not data)
                self._ready = text.encode()
            except UnicodeError as error:
                raise Invalid(f"The file is not what its first bytes say: {error}.") from None
            if not data:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


@dataclass
class Opened:
    """A readable stream of UTF-8 (or Parquet) bytes and what it was unpacked from."""

    stream: io.BufferedReader
    meter: Meter
    size: int  # bytes on disk
    encoding: str
    is_gzip: bool
    sample: bytes  # the first bytes, not consumed

    def close(self) -> None:
        self.stream.close()


def open_bytes(path: Path) -> Opened:
    """Open a file for reading once, front to back. Raises Invalid for what cannot be text."""
    try:
        file = path.open("rb", buffering=0)
        size = path.stat().st_size
    except OSError as error:
        raise Invalid(f"The file cannot be opened: {error.strerror or error}.") from None
    meter = Meter(file)
    try:
        return _unpack(meter, size)
    except BaseException:
        meter.close()
        raise


def _unpack(meter: Meter, size: int) -> Opened:
    stream = io.BufferedReader(meter, BUFFER)
    is_gzip = stream.peek(2).startswith(GZIP)
    if is_gzip:
        stream = io.BufferedReader(Gunzip(stream), BUFFER)
    sample = stream.peek(SAMPLE)
    if not sample:
        raise Invalid("The file is empty.")
    for magic, name in {**PACKED, GZIP: "compressed twice"}.items():
        if sample.startswith(magic):
            raise Invalid(
                f"The file is {name}.",
                advice="Unpack it first. JSON Lines, JSON, CSV and Parquet are read, plain or"
                " gzipped.",
            )
    encoding = "UTF-8"
    for mark, name in UTF16.items():
        if sample.startswith(mark):
            stream.read(len(mark))
            stream = io.BufferedReader(Recode(stream, name), BUFFER)
            sample, encoding = stream.peek(SAMPLE), name.upper().removesuffix("-LE")
            break
    if sample.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
        sample = stream.peek(SAMPLE)
    if not sample:
        raise Invalid("The file is empty.")
    if not sample.startswith(PARQUET):
        _refuse_binary(sample)
    return Opened(stream, meter, size, encoding, is_gzip, sample)


def _refuse_binary(sample: bytes) -> None:
    """UTF-16 without its mark, or no text at all: every other byte of the sample is NUL."""
    head = sample[:4096]
    if len(head) >= 4 and head.count(0) * 3 > len(head):
        raise Invalid(
            "The file is not UTF-8 text.",
            advice="It looks like UTF-16 without its byte order mark, or like a binary file."
            " Save it as UTF-8.",
        )
