"""Pictures to import: of a size, a color and a kind, with whatever may hide in a file."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from PIL import Image


def picture(
    size: tuple[int, int] = (40, 30), color: str = "red", kind: str = "PNG", **options: Any
) -> bytes:
    """One plain picture as a file's bytes."""
    target = io.BytesIO()
    Image.new("RGB", size, color).save(target, kind, **options)
    return target.getvalue()


def decoded(data: bytes) -> Image.Image:
    """The pixels of a file, all of them read."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def with_gps(kind: str = "JPEG", *, orientation: int = 1) -> bytes:
    """A picture, left half red and right half blue, that tells where it was taken."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "SECRET-DESCRIPTION"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 30.0)
    target = io.BytesIO()
    image.save(target, kind, exif=exif, quality=95)
    return target.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as this."""
    packed = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", packed)
        + _chunk(b"IDAT", zlib.compress(b""))
        + (_chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zip_of(path: Path, rows: Sequence[Any], files: Mapping[str, bytes]) -> Path:
    """A zip of rows.jsonl and some files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in rows))
        for name, data in files.items():
            archive.writestr(name, data)
    return path
