"""Handing out the files of a dataset version: paths, copies, and who took what."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import transaction
from django.db.models import F

from annotator.errors import Gone
from annotator.exporters import manifest as manifests
from annotator.models import AuditEvent, DatasetVersion, User
from annotator.services import archives

PREVIEW: Final = "preview.json"  # written by the build, for the page
ARCHIVE: Final = "all.zip"  # every file of a version, made while it is sent


def folder_of(version: DatasetVersion) -> Path:
    return Path(settings.WORK_ROOT) / version.folder


def file_names(version: DatasetVersion) -> list[str]:
    """Everything a version offers, data first."""
    more = version.manifest.get("extra_files", [])  # what the format put beside its rows
    return [*(entry["name"] for entry in version.files), *more, *manifests.EXTRAS]


def path_of(version: DatasetVersion, name: str) -> Path:
    """Where one file of a version lies. Raises Gone where it is not, or not on the disk."""
    require_kept(version)
    path = folder_of(version) / name
    if name not in file_names(version) or not path.is_file():
        raise Gone(f"{version} has no file {name}.")
    return path


def require_kept(version: DatasetVersion) -> None:
    """Raises Gone where a version was deleted."""
    if version.deleted_at is not None:
        raise Gone(
            f"{version} was deleted on {version.deleted_at:%Y-%m-%d}.",
            advice="Its recipe and figures are kept; building the recipe again makes a new version.",
        )


def are_there(version: DatasetVersion) -> bool:
    """Whether a version's files are on the server."""
    return version.deleted_at is None and folder_of(version).is_dir()


def require(version: DatasetVersion, name: str) -> None:
    """Raises Gone where a version does not offer a file; ``ARCHIVE`` stands for all of them."""
    for one in file_names(version) if name == ARCHIVE else [name]:
        path_of(version, one)


def tag_of(version: DatasetVersion, name: str) -> str:
    """What changes whenever a file does; of data files the SHA-256."""
    known = {entry["name"]: entry["sha256"] for entry in version.files}
    return known.get(name, f"{version.checksum}-{name}")


def preview_of(version: DatasetVersion) -> list[dict[str, Any]]:
    """The first rows of every file, texts cut short; empty where the files are gone."""
    try:
        rows: list[dict[str, Any]] = orjson.loads((folder_of(version) / PREVIEW).read_bytes())
    except FileNotFoundError:
        return []
    return rows


def record_download(
    *,
    version: DatasetVersion,
    name: str,
    by: User | None,
    span: tuple[int, int] | None,
    via: str = "page",
    link: dict[str, Any] | None = None,
) -> None:
    """Note who took what.

    ``span`` is the part asked for, (first, last) byte, or None for all. ``via``: "page", "token",
    "link" or "hub". Whoever has a ``link`` is nobody we know: it says who made it.
    """
    with transaction.atomic():
        if span is None or span[0] == 0:
            DatasetVersion.objects.filter(pk=version.pk).update(downloads=F("downloads") + 1)
        AuditEvent.objects.create(
            project_id=version.project_id,
            actor=by,
            verb="dataset.download",
            subject=str(version),
            data={"file": name, "via": via}
            | ({"bytes": list(span)} if span else {})
            | ({"link": link} if link else {}),
        )


def zip_name(version: DatasetVersion) -> str:
    """What the archive of a version is called, and the folder in it."""
    return f"{version.project.slug}-v{version.number}"


def zip_pieces(version: DatasetVersion) -> Iterator[bytes]:
    """All files that a version offers as a ZIP archive. Raises Gone before the first piece."""
    names = file_names(version)
    require(version, ARCHIVE)
    return archives.stream(folder_of(version), inside=zip_name(version), only=names)


def deliver(version: DatasetVersion, target: Path) -> list[Path]:
    """Copy all files of a version to a folder; the data files' paths, in the order of splits.

    A folder that is not there appears whole. In one that is, files are replaced one by one, the
    manifest last, and files of rows and of their format that an earlier delivery left there are
    removed. Copies, not links: what is done to them must not reach the version.
    """
    names = file_names(version)
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for name in names:
            shutil.copyfile(path_of(version, name), fresh / name)
        if target.exists():
            _replace_files(fresh, target, names)
        else:
            os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return [target / entry["name"] for entry in version.files]


def _replace_files(fresh: Path, target: Path, names: list[str]) -> None:
    stale = _delivered(target) - set(names)
    for name in sorted(names, key=lambda name: name == manifests.MANIFEST):
        os.replace(fresh / name, target / name)
    for name in stale:
        (target / name).unlink(missing_ok=True)


def _delivered(folder: Path) -> set[str]:
    """Data files, and what a format put beside them, that the manifest in a folder speaks of."""
    try:
        facts = orjson.loads((folder / manifests.MANIFEST).read_bytes())
        names = [str(entry["name"]) for entry in facts["files"]]
        names += map(str, facts.get("extra_files", []))
        return {name for name in names if Path(name).name == name != ".."}
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return set()
