"""Judging, mostly waiting for endpoints: the ``llm`` queue, unless the run names another."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import battery as batteries
from annotator.services import judging


@shared_task(name="annotator.jobs.judging.judge")
def judge(*, run_id: int) -> None:
    """Judge the tasks of a run, from where it was left."""
    base.perform(run_id, judging.perform)


@shared_task(name="annotator.jobs.judging.battery")
def battery(*, run_id: int) -> None:
    """Try the attacks on a run's judge."""
    base.perform(run_id, batteries.perform)
