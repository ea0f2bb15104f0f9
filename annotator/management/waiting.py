"""Seeing a run through from the command line: by a worker that answers, else by this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from django.core.management.base import CommandError
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotator.celery import app
from annotator.errors import AppError
from annotator.jobs import base
from annotator.models import Run, RunState
from annotator.services import runs

POLL_SECONDS: Final = 0.5
ASK_SECONDS: Final = 1.0  # how long workers have to answer
ASK_AGAIN_SECONDS: Final = 10.0
INTERRUPTED: Final = 130  # what a shell calls a command that Ctrl-C ended

Say = Callable[[str], object]


def queue_of(run: Run) -> str:
    """The Celery queue that works on runs of this kind."""
    if chosen := base.routing(run).get("queue"):
        return chosen
    task = base.TASKS[Run.Kind(run.kind)]
    return str(app.amqp.router.route({}, task)["queue"].name)


def worker_answers(run: Run) -> bool:
    """Whether some worker takes runs of this kind.

    A worker with a solo pool is silent while it works, so a run of the same queue whose heart
    beats counts as an answer.
    """
    queue = queue_of(run)
    try:
        taken = app.control.inspect(timeout=ASK_SECONDS).active_queues() or {}
    except OperationalError as error:
        raise CommandError(f"Redis does not answer: {error}") from error
    if any(entry["name"] == queue for entries in taken.values() for entry in entries):
        return True
    alive = Run.objects.filter(
        state__in=[RunState.RUNNING, RunState.STOPPING],
        heartbeat_at__gt=timezone.now() - runs.stale_after(),
    )
    return any(queue_of(other) == queue for other in alive.exclude(pk=run.pk))


def see_through(run: Run, *, work: Callable[[int], object], say: Say) -> Run:
    """Have a queued run done and wait for its end; returns it as it ended.

    A worker that takes its queue does it. Where none answers, or the one that had it died,
    ``work(run_id)`` does it here, and ``say`` tells so. Raises CommandError where Ctrl-C ended the
    waiting: a worker's run goes on, one that was done here is canceled.
    """
    answers = worker_answers(run)
    if answers:
        base.send(run)
    try:
        return _wait(run, work, say, answers=answers)
    except KeyboardInterrupt:
        run.refresh_from_db()
        if run.worker == base.worker_name():  # it was done here: base.perform has ended it
            raise CommandError(f"Run {run.pk} is canceled.", returncode=INTERRUPTED) from None
        raise CommandError(f"Run {run.pk} goes on in its worker.", returncode=INTERRUPTED) from None


def _wait(run: Run, work: Callable[[int], object], say: Say, *, answers: bool) -> Run:
    asked = time.monotonic()
    while True:
        run.refresh_from_db()
        if not run.is_active:
            return run
        if _is_waiting(run):
            if time.monotonic() - asked > ASK_AGAIN_SECONDS:
                answers, asked = worker_answers(run), time.monotonic()
            if not answers:
                say(f"No worker answers on the queue {queue_of(run)!r}: working in this process.")
                work(run.pk)
                continue
        time.sleep(POLL_SECONDS)


def _is_waiting(run: Run) -> bool:
    """Whether nobody works on an active run: it is queued, or its worker is dead."""
    if run.state == RunState.QUEUED:
        return True
    return run.heartbeat_at is None or run.heartbeat_at < timezone.now() - runs.stale_after()


def require_done(run: Run) -> None:
    """Raise CommandError with the run's reason where it did not end well."""
    if run.state != RunState.DONE:
        parts = [run.error or f"The run is {run.state}.", run.advice]
        raise CommandError(f"Run {run.pk}: {' '.join(filter(None, parts))}")


def as_command_error(error: AppError) -> CommandError:
    return CommandError(" ".join(filter(None, [error.message, error.advice])))
