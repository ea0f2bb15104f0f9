"""Stored pictures as files that another process opens: where they lie, or brought there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from django.core.files.storage import default_storage

from models.pairs import Answer, BadRow, is_picture

# A link is not possible here: another disk, another owner, a file system without links.
NO_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
)


def bring(name: str, folder: Path) -> Path:
    """The stored picture ``name`` as ``folder/name``, which costs no room where disks allow it.

    Raises FileNotFoundError where the storage has lost it, OSError where it cannot be written.
    """
    target = folder / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    source = _path(name)
    if source is not None and _link(source, target):
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with default_storage.open(name) as stored, partial.open("wb") as file:
            shutil.copyfileobj(stored, file)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def bring_answers(answers: Iterable[Answer], folder: Path) -> None:
    """``bring`` those of some answers that are pictures. Raises BadRow for one that is lost."""
    for answer in answers:
        if is_picture(answer):
            try:
                bring(answer["image"], folder)
            except FileNotFoundError:
                raise BadRow("the file of its picture is gone") from None


def locate(name: str, folder: Path) -> Path:
    """Where the stored picture ``name`` can be opened: where it is, else brought into ``folder``.

    Raises FileNotFoundError, OSError.
    """
    source = _path(name)
    if source is None:
        return bring(name, folder)
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return source


def _path(name: str) -> Path | None:
    try:
        return Path(default_storage.path(name))
    except NotImplementedError:  # a storage elsewhere
        return None


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:  # another attempt was quicker
        return True
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    return True
