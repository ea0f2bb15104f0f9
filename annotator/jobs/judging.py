"""Judging, mostly waiting for endpoints: the ``llm`` queue, unless the run names another."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import judging


@shared_task(name="annotator.jobs.judging.judge")
def judge(*, run_id: int) -> None:
    """Judge the tasks of a run, from where it was left."""
    base.perform(run_id, judging.perform)
