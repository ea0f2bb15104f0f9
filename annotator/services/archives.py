"""A folder as a ZIP archive that is made while it is sent: memory does not grow with its size."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

PIECE: Final = 1024 * 1024


class _Pipe:
    """What the archive writes to: bytes wait here until they are taken."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do: whoever takes the bytes sends them."""

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken


def files_of(folder: Path) -> list[Path]:
    """The regular files below a folder, in order of name. Links are never followed."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in files_of(folder))


def stream(
    folder: Path,
    *,
    inside: str,
    more: Mapping[str, bytes] | None = None,
    only: Collection[str] | None = None,
) -> Iterator[bytes]:
    """The files below ``folder`` as a ZIP archive, under the name ``inside``.

    ``more`` are small files by name that come first, instead of those of the folder so named;
    ``only``: of the folder's files those so named.

    Stored, not compressed: weights hardly shrink and would only cost time.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, content in (more or {}).items():
            archive.writestr(f"{inside}/{name}", content)
            yield pipe.take()
        for path in files_of(folder):
            name = str(path.relative_to(folder))
            if name in (more or {}) or (only is not None and name not in only):
                continue
            info = zipfile.ZipInfo.from_file(path, f"{inside}/{name}")
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield pipe.take()
    yield pipe.take()
