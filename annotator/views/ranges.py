"""Files as answers, whole or one range of bytes (RFC 9110, section 14), never read into memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import patch_cache_control

PIECE: Final = 256 * 1024
RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """A range that begins after the end of the file."""


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """The first and last byte asked for; None where the whole file is to be sent.

    Malformed ranges and several at once are ignored, as the standard allows. Raises
    Unsatisfiable.
    """
    match = RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise Unsatisfiable
        return size - length, size - 1
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return int(first), min(int(last or size), size - 1)


def span_of(request: HttpRequest, size: int, etag: str) -> tuple[int, int] | None:
    """What this request asks of a file. ``If-Range`` with another tag asks for all of it."""
    condition = request.headers.get("If-Range")
    if condition is not None and condition != etag:
        return None
    return asked_range(request.headers.get("Range", ""), size)


def refuse(size: int) -> HttpResponse:
    """416: the range begins after the end."""
    return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})


def send(
    path: Path,
    *,
    span: tuple[int, int] | None,
    etag: str,
    media_type: str,
    name: str,
    is_head: bool = False,
) -> HttpResponseBase:
    """A file as a download: 200, or 206 with the bytes of ``span``, both ends included."""
    size = path.stat().st_size
    first, last = span or (0, size - 1)
    pieces = () if is_head else _pieces(path, first, last - first + 1)
    response = StreamingHttpResponse(pieces, status=206 if span else 200, content_type=media_type)
    if span:
        response["Content-Range"] = f"bytes {first}-{last}/{size}"
    response["Content-Length"] = str(last - first + 1)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["X-Content-Type-Options"] = "nosniff"
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _pieces(path: Path, first: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(first)
        while length > 0:
            piece = file.read(min(PIECE, length))
            if not piece:
                return
            length -= len(piece)
            yield piece
