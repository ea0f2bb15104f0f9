"""What every job shares: owning the run, its heartbeat, its one way to end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import current_task
from django.db import DatabaseError, connection, transaction
from kombu.exceptions import OperationalError
from redis import RedisError

from annotator.celery import app
from annotator.errors import AppError
from annotator.models import Run
from annotator.services import runs, turns, workers

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0

QUEUES: Final = frozenset({"default", "llm", "gpu"})
# Kind of run -> the Celery task that works on it. Queues are in settings.CELERY_TASK_ROUTES.
TASKS: Final = {
    Run.Kind.IMPORT: "annotator.jobs.imports.run_import",
    Run.Kind.TRAIN: "annotator.jobs.training.train",
    Run.Kind.EXPORT: "annotator.jobs.exports.export",
    Run.Kind.QUALITY: "annotator.jobs.quality.measure",
    Run.Kind.TASKS: "annotator.jobs.tasks.change",
    Run.Kind.JUDGE: "annotator.jobs.judging.judge",
    Run.Kind.BATTERY: "annotator.jobs.judging.battery",
    Run.Kind.REPORT: "annotator.jobs.reports.report",
    Run.Kind.RUBRIC: "annotator.jobs.induction.induce",
    Run.Kind.MEASURE: "annotator.jobs.induction.measure",
    Run.Kind.SCORE: "annotator.jobs.scoring.score",
    Run.Kind.TRY: "annotator.jobs.rubric_tries.try_rubric",
    Run.Kind.EVALUATE: "annotator.jobs.evaluations.evaluate",
    Run.Kind.ASK: "annotator.jobs.reward_asks.ask",
}


def enqueue(run: Run) -> None:
    """Send the run's message once the transaction at hand has committed."""
    transaction.on_commit(lambda: send(run))


def send(run: Run) -> bool:
    """Send a run's message. False when Redis is away: every worker's watch sends it then."""
    try:
        app.send_task(TASKS[Run.Kind(run.kind)], kwargs={"run_id": run.pk}, **routing(run))
    except (OperationalError, RedisError, OSError):
        log.warning("run %s: the queue is away; it will be sent again", run.pk, exc_info=True)
        runs.postpone(run=run)
        return False
    return True


def routing(run: Run) -> dict[str, str]:
    """Where a run wants another queue than its kind: a judge may be a model on the gpu worker."""
    return {"queue": run.config["queue"]} if run.config.get("queue") in QUEUES else {}


def worker_name() -> str:
    return workers.name_here()


def perform(run_id: int, work: Callable[[runs.Work], dict[str, Any]]) -> bool:
    """Do a run's work and record how it ended. False if the run was not there to be done.

    ``work`` returns the run's result. It raises AppError to fail with a message for the user
    and ``runs.Stopped`` when it was asked to stop.
    """
    while (turn := _turn_of_another(run_id)) is not None:
        # Its own job does it; this run is begun by the message of another.
        app.tasks[TASKS[Run.Kind(turn.kind)]](run_id=turn.pk)
        if _was_done_here(turn):
            return False
    pen = runs.begin(run_id=run_id, worker=worker_name())
    if pen is None:
        return False
    if turns.is_on_gpu(pen.run):
        turns.took(pen.run.project_id)
    try:
        with _beating(pen):
            try:
                pen.check()
                result = work(pen)
            except AppError as error:
                pen.fail(error.message, advice=error.advice)
            except runs.Stopped:
                pen.canceled()
            except runs.LostRun:
                raise
            except KeyboardInterrupt:  # Ctrl-C on a command: nobody else should go on with it
                pen.canceled()
                raise
            except Exception as error:  # the boundary: whatever it is, the row says so
                log.exception("run %s failed", run_id)
                pen.log(f"{type(error).__name__}: {error}")
                pen.fail(
                    f"An unexpected error: {type(error).__name__}",
                    advice="The server's log has the details. The run can be resumed.",
                )
            else:
                pen.finish(result)
    except runs.LostRun:
        log.warning("run %s was taken over by another worker", run_id)
    return True


def _turn_of_another(run_id: int) -> Run | None:
    """Where a message of the gpu queue is for a run whose turn it is not: the run whose turn it is.

    None as well where a job is called by hand, which does what it was called for.
    """
    if not current_task or current_task.request.called_directly:
        return None
    run = Run.objects.filter(pk=run_id).only("kind", "config", "state", "heartbeat_at").first()
    if run is None or not turns.is_on_gpu(run):
        return None
    if run.state in turns.BEGUN and runs.is_stale(run):  # its worker died
        return None
    found = turns.next_on_gpu()
    return found if found is not None and found.pk != run_id else None


def _was_done_here(run: Run) -> bool:
    """False where another worker was quicker to begin it."""
    by = Run.objects.filter(pk=run.pk).values_list("worker", flat=True).first()
    return by is None or by == worker_name()


@contextmanager
def _beating(pen: runs.Work) -> Iterator[None]:
    """Beat the run's heart from a thread, so that long computations do not look like death."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                pen.heartbeat()
            except runs.LostRun:
                break
            except DatabaseError:
                log.warning("run %s: heartbeat not written", pen.run.pk, exc_info=True)
                connection.close()
        connection.close()

    thread = threading.Thread(target=beat, name=f"heartbeat-{pen.run.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
