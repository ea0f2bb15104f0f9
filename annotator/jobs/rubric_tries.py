"""Runs that try a version of a rubric on a pair, on the queue of what they ask."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import rubric_tries


@shared_task(name="annotator.jobs.rubric_tries.try_rubric")
def try_rubric(*, run_id: int) -> None:
    """Ask a model about the criteria that it checks."""
    base.perform(run_id, rubric_tries.perform)
