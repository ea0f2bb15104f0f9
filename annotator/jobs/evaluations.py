"""Evaluations of reward models, on the queue of the device."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import reward_evaluation


@shared_task(name="annotator.jobs.evaluations.evaluate")
def evaluate(*, run_id: int) -> None:
    """Set a reward model beside people and everything else on the same pairs."""
    base.perform(run_id, reward_evaluation.perform)
