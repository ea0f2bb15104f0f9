"""Runs that score responses, on the queue of who scores them."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import reward_scores


@shared_task(name="annotator.jobs.scoring.score")
def score(*, run_id: int) -> None:
    """Score the responses of a run, from where it was left."""
    base.perform(run_id, reward_scores.perform)
