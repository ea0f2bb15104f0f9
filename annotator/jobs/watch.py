"""Picking up the runs of workers that died, from inside every worker that lives."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery.signals import worker_ready, worker_shutting_down
from django.db import connection

from annotator.jobs import base
from annotator.services import runs

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 5.0
_over = threading.Event()


def look() -> int:
    """Send every run that needs sending; returns how many."""
    again = runs.reap()
    for run in again:
        base.send(run)
        log.info("run %s sent again", run.pk)
    return len(again)


def _watch() -> None:
    while not _over.wait(EVERY_SECONDS):
        try:
            look()
        except Exception:  # the boundary of a thread that must outlive every fault: logged
            log.exception("could not look for dead workers")
            connection.close()
    connection.close()


@worker_ready.connect
def start_watching(**_: Any) -> None:
    _over.clear()
    threading.Thread(target=_watch, name="run-watch", daemon=True).start()


@worker_shutting_down.connect
def stop_watching(**_: Any) -> None:
    _over.set()
