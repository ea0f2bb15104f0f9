"""Exports in the background."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import exports


@shared_task(name="annotator.jobs.exports.export")
def export(*, run_id: int) -> None:
    base.perform(run_id, exports.perform)
