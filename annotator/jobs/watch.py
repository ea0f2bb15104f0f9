"""A thread in every worker: says that it lives, and picks up the runs of those that died."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from celery.signals import worker_ready, worker_shutting_down
from django.db import connection
from redis import RedisError

from annotator.jobs import base
from annotator.services import runs, workers

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


def _watch(hostname: str, queues: list[str]) -> None:
    started = time.time()
    _tell(hostname, queues, started)
    while not _over.wait(EVERY_SECONDS):
        _tell(hostname, queues, started)
        try:
            look()
        except Exception:  # the boundary of a thread that must outlive every fault: logged
            log.exception("could not look for dead workers")
            connection.close()
    connection.close()
    _tell(hostname, [], 0.0)


def _tell(hostname: str, queues: list[str], started: float) -> None:
    """Say what this worker takes from; that it takes from nothing any more is its end."""
    try:
        if queues:
            workers.beat(hostname=hostname, queues=queues, started=started)
        else:
            workers.leave(hostname=hostname)
    except RedisError:  # then there is nothing to work on either; it is tried again
        log.warning("could not say how this worker is", exc_info=True)


@worker_ready.connect
def start_watching(sender: Any, **_: Any) -> None:
    _over.clear()
    queues = sorted(sender.app.amqp.queues.consume_from)
    arguments = (sender.hostname, queues)
    threading.Thread(target=_watch, args=arguments, name="run-watch", daemon=True).start()


@worker_shutting_down.connect
def stop_watching(**_: Any) -> None:
    _over.set()
