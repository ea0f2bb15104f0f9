"""The same work once more: a new run with the configuration of an ended one."""

from __future__ import annotations

from annotator.errors import Conflict
from annotator.models import Run, User
from annotator.services import imports, runs


def retry(*, run: Run, by: User | None) -> Run:
    """A queued run like this one, from the start; the caller enqueues its job.

    Raises Conflict while the run is under way, Gone when the file it read is not kept any more.
    """
    if run.is_active:
        raise Conflict("The run is still under way.", advice="Cancel it first.")
    if run.kind == Run.Kind.IMPORT:
        return imports.read_again(run=run, config=run.config, by=by)
    return runs.start(
        project=run.project, kind=run.kind, title=run.title, config=run.config, by=by, retry_of=run
    )
