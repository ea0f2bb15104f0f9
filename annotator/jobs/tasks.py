"""Changes of many tasks in the background."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from annotator.jobs import base
from annotator.services import acceptance, runs, tasks


@shared_task(name="annotator.jobs.tasks.change")
def change(*, run_id: int) -> None:
    """Change every task that a run's filter or setting or a judge's trust reaches."""
    base.perform(run_id, _perform)


def _perform(pen: runs.Work) -> dict[str, Any]:
    is_trust = pen.run.config["action"] in acceptance.DONE
    return acceptance.perform(pen) if is_trust else tasks.perform(pen)
