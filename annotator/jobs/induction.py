"""Runs that induce rubrics and measure them, on the queue of what they ask."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import induction, rubric_measure


@shared_task(name="annotator.jobs.induction.induce")
def induce(*, run_id: int) -> None:
    """Propose a draft of a rubric from a project's preferences."""
    base.perform(run_id, induction.perform)


@shared_task(name="annotator.jobs.induction.measure")
def measure(*, run_id: int) -> None:
    """Measure a version of a rubric on prompts it never saw."""
    base.perform(run_id, rubric_measure.perform)
