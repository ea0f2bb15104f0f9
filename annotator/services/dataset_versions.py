"""Deleting a dataset: its files go, its row, figures and number stay."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from annotator.models import AuditEvent, DatasetVersion, Project, User
from annotator.services import deliveries

# Parts of a manifest that show rows themselves.
SAMPLES: Final = frozenset({"samples", "examples", "preview"})


def delete(*, version: DatasetVersion, by: User | None) -> bool:
    """Take a version's files off the server for good. False where that was done before.

    The row goes first: whatever is killed after that, nothing is on offer, and what was left on
    the disk is removed with the next deletion in the project.
    """
    with transaction.atomic():
        held = DatasetVersion.objects.select_for_update(of=("self",)).select_related("project")
        found = held.get(pk=version.pk)
        is_first = found.deleted_at is None
        if is_first:
            found.deleted_at, found.deleted_by = timezone.now(), by
            found.manifest = without_samples(found.manifest)
            found.save(update_fields=["deleted_at", "deleted_by", "manifest"])
            AuditEvent.objects.create(
                project_id=found.project_id,
                actor=by,
                verb="dataset.delete",
                subject=str(found),
                data={"rows": found.rows, "checksum": found.checksum},
            )
    _sweep(found.project)
    return is_first


def without_samples(facts: Any) -> Any:
    """A manifest without what would show rows."""
    if isinstance(facts, dict):
        return {key: without_samples(facts[key]) for key in facts if key not in SAMPLES}
    return [without_samples(one) for one in facts] if isinstance(facts, list) else facts


def _sweep(project: Project) -> None:
    """Remove the files of every deleted version."""
    gone = DatasetVersion.objects.filter(project=project, deleted_at__isnull=False)
    for version in gone.only("folder").iterator():
        folder = deliveries.folder_of(version)
        if version.folder:
            remove(folder)


def remove(folder: Path) -> None:
    """A folder and all in it; another process may be removing it as well."""
    while folder.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
