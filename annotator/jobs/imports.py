"""Imports in the background."""

from __future__ import annotations

from celery import shared_task

from annotator.jobs import base
from annotator.services import imports


@shared_task(name="annotator.jobs.imports.run_import")
def run_import(*, run_id: int) -> None:
    """Read an uploaded file into its project."""
    base.perform(run_id, imports.perform)
