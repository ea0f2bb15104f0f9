"""Reports on judges in the background."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import judge_report


@shared_task(name="annotator.jobs.reports.report")
def report(*, run_id: int) -> None:
    """Set a judge beside people."""
    base.perform(run_id, judge_report.perform)
