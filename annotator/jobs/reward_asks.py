"""Scores that somebody asked for just now, for the ``gpu`` queue."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import reward_asks


@shared_task(name="annotator.jobs.reward_asks.ask")
def ask(*, run_id: int) -> None:
    """Score the answers of a run."""
    base.perform(run_id, reward_asks.perform)
