"""The same work once more: a new run with the configuration of an ended one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from django.db import transaction

from annotator.errors import Conflict, Gone
from annotator.models import Run, User
from annotator.services import runs


@transaction.atomic
def retry(*, run: Run, by: User | None) -> Run:
    """A queued run like this one, from the start; the caller enqueues its job.

    Raises Conflict while the run is under way, Gone when the file it read is not kept any more.
    """
    if run.is_active:
        raise Conflict("The run is still under way.", advice="Cancel it first.")
    upload = _upload(run)
    if upload is not None and not upload.is_file():
        raise Gone("The file of this import is no longer kept.", advice="Upload it again.")
    fresh = runs.start(
        project=run.project, kind=run.kind, title=run.title, config=run.config, by=by, retry_of=run
    )
    if upload is not None:
        _carry_over(upload, fresh.folder / run.config["path"])
    return fresh


def _upload(run: Run) -> Path | None:
    """The uploaded file in the folder of an import; None where there is none to carry over."""
    if run.kind != Run.Kind.IMPORT or run.config.get("absolute", True):
        return None
    return run.folder / run.config["path"]


def _carry_over(upload: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(upload, target)  # no second copy of a file of gigabytes
    except OSError:
        shutil.copyfile(upload, target)
