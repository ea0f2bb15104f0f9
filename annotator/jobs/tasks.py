"""Changes of many tasks in the background."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from annotator.jobs import base
from annotator.services import acceptance, rubric_gaps, rubric_tasks, runs, tasks


@shared_task(name="annotator.jobs.tasks.change")
def change(*, run_id: int) -> None:
    """Change every task that a run's filter or setting or a judge's trust reaches, or make some."""
    base.perform(run_id, _perform)


def _perform(pen: runs.Work) -> dict[str, Any]:
    action = pen.run.config["action"]
    for service in (rubric_tasks, rubric_gaps):
        if action == service.ACTION:
            return service.perform(pen)
    return acceptance.perform(pen) if action in acceptance.DONE else tasks.perform(pen)
