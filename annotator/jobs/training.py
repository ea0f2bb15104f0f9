"""Training jobs, for the ``gpu`` queue: one worker with a solo pool per device."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import training


@shared_task(name="annotator.jobs.training.train")
def train(*, run_id: int) -> None:
    """Train the reward model of a run, from its last checkpoint where there is one."""
    base.perform(run_id, training.perform)
