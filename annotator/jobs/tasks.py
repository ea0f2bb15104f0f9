"""Changes of many tasks in the background."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import tasks


@shared_task(name="annotator.jobs.tasks.change")
def change(*, run_id: int) -> None:
    """Change every task that a run's filter or setting reaches."""
    base.perform(run_id, tasks.perform)
