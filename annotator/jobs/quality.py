"""Quality runs in the background."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import quality


@shared_task(name="annotator.jobs.quality.measure")
def measure(*, run_id: int) -> None:
    """Compute consensus and figures of a run's project."""
    base.perform(run_id, quality.perform)
