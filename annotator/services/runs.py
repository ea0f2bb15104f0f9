"""The life of a run: queued, begun by one worker, written by it alone, ended once.

A worker owns a run by its ``token``. Every write names the token, so a worker that was presumed
dead and wakes up again changes nothing: its first write raises ``LostRun``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from annotator.errors import Conflict
from annotator.models import AuditEvent, Project, Run, RunPoint, RunState, User

# A queued run whose message nobody took is sent again: Redis may have lost it.
RESEND: Final = timedelta(minutes=5)
MAX_ATTEMPTS: Final = 5
RESUMABLE: Final = (RunState.PAUSED, RunState.CANCELED, RunState.FAILED)
LOG_CHARS: Final = 60_000
WRITE_EVERY: Final = 0.5  # seconds between progress writes


def stale_after() -> timedelta:
    """A begun run whose heart has not beaten for this long is taken to be dead.

    Hearts beat in a thread of their own (jobs.base), so long computations do not look like death.
    """
    return timedelta(seconds=settings.RUN_STALE_SECONDS)


def is_stale(run: Run) -> bool:
    """Whether its heart has not beaten for so long."""
    return run.heartbeat_at is None or run.heartbeat_at < timezone.now() - stale_after()


class LostRun(Exception):
    """Another worker owns this run now."""


class Stopped(Exception):
    """Someone asked this run to stop."""


def start(
    *,
    project: Project,
    kind: str,
    title: str,
    config: dict[str, Any],
    by: User | None,
    retry_of: Run | None = None,
) -> Run:
    """A queued run. The caller enqueues its job on commit."""
    run = Run.objects.create(
        project=project,
        kind=kind,
        title=title[:200],
        config=config,
        created_by=by,
        retry_of=retry_of,
        heartbeat_at=timezone.now(),
    )
    AuditEvent.objects.create(
        project=project, actor=by, verb=f"{kind}.start", subject=f"run {run.pk}"
    )
    return run


@transaction.atomic
def begin(*, run_id: int, worker: str) -> Work | None:
    """Make this worker the run's owner; None if it is not there to be begun.

    A second delivery of the same message, or of a run that ended meanwhile, gets None.
    """
    run = Run.objects.select_for_update().filter(pk=run_id).first()
    if run is None:
        return None
    now = timezone.now()
    lost = run.state in (RunState.RUNNING, RunState.STOPPING) and is_stale(run)
    if run.state != RunState.QUEUED and not lost:
        return None
    run.attempt += 1
    if run.attempt > 1:
        _append_log(run, f"attempt {run.attempt} by {worker}")
    run.state = RunState.STOPPING if run.cancel_requested_at else RunState.RUNNING
    run.token = uuid.uuid4()
    run.worker = worker[:120]
    run.started_at = run.started_at or now
    run.heartbeat_at = now
    run.finished_at = None
    run.error = run.advice = ""
    for stage in run.stages:  # what the last attempt did not finish is still to be done
        if stage["state"] != "done":
            stage |= {"state": "", "seconds": None}
    run.save()
    return Work(run)


def cancel(*, run: Run, by: User | None, is_pause: bool = False) -> None:
    """Stop a run: at once if nobody has begun it, else at its worker's next chunk.

    A paused run differs in its word only: either can be resumed.
    """
    now = timezone.now()
    ended = RunState.PAUSED if is_pause else RunState.CANCELED
    with transaction.atomic():
        state = Run.objects.select_for_update().values_list("state", flat=True).get(pk=run.pk)
        mine = Run.objects.filter(pk=run.pk)
        if state == RunState.QUEUED:
            mine.update(state=ended, cancel_requested_at=now, finished_at=now)
        elif state == RunState.RUNNING:
            mine.update(state=RunState.STOPPING, cancel_requested_at=now, is_pausing=is_pause)
        AuditEvent.objects.create(
            project_id=run.project_id,
            actor=by,
            verb=f"{run.kind}.{'pause' if is_pause else 'cancel'}",
            subject=f"run {run.pk}",
        )


def resume(*, run: Run, by: User | None) -> None:
    """Queue a stopped or failed run again; it goes on from its last chunk or checkpoint."""
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, state__in=RESUMABLE).update(
            state=RunState.QUEUED,
            cancel_requested_at=None,
            is_pausing=False,
            finished_at=None,
            error="",
            advice="",
            attempt=0,  # it counts the deaths of workers since somebody last asked for the run
            heartbeat_at=timezone.now(),
        )
        if not changed:
            raise Conflict("Only a run that was paused, canceled or failed can be resumed.")
        AuditEvent.objects.create(
            project_id=run.project_id, actor=by, verb=f"{run.kind}.resume", subject=f"run {run.pk}"
        )


@transaction.atomic
def reap() -> list[Run]:
    """Put runs of dead workers back in the queue; returns every run whose job must be sent.

    Also returns queued runs whose message seems lost. A run that killed its worker
    ``MAX_ATTEMPTS`` times fails with its reason instead of going round for ever.
    """
    now = timezone.now()
    again = []
    dead = Run.objects.select_for_update(skip_locked=True).filter(
        state__in=[RunState.RUNNING, RunState.STOPPING], heartbeat_at__lt=now - stale_after()
    )
    for run in dead:
        run.token = None
        if run.cancel_requested_at:
            run.state = RunState.PAUSED if run.is_pausing else RunState.CANCELED
            run.finished_at = now
        elif run.attempt >= MAX_ATTEMPTS:
            run.state, run.finished_at = RunState.FAILED, now
            run.error = f"Its worker died {run.attempt} times."
            run.advice = "Most often the machine ran out of memory: try a smaller batch."
        else:
            run.state = RunState.QUEUED
            run.heartbeat_at = now
            run.message = "its worker was lost; picked up again"
            _append_log(run, f"worker {run.worker} was lost; queued again")
            again.append(run)
        run.save()
    silent = Run.objects.select_for_update(skip_locked=True).filter(
        state=RunState.QUEUED, heartbeat_at__lt=now - RESEND
    )
    for run in silent:
        run.heartbeat_at = now
        run.save(update_fields=["heartbeat_at"])
        again.append(run)
    return again


def postpone(*, run: Run) -> None:
    """Leave a queued run to the next look of a worker's watch: its message was not sent."""
    Run.objects.filter(pk=run.pk, state=RunState.QUEUED).update(
        heartbeat_at=timezone.now() - RESEND - timedelta(seconds=1)
    )


def _append_log(run: Run, line: str) -> None:
    run.log = f"{run.log}{_stamped(line)}"[-LOG_CHARS:]


def _stamped(line: str) -> str:
    return f"{timezone.now():%Y-%m-%dT%H:%M:%SZ} {line.rstrip()}\n"


class Work:
    """The pen of the one worker that owns a run. Progress writes are throttled."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._token = run.token
        self._last_write = 0.0
        self._pending: dict[str, Any] = {}
        self._lines: list[str] = []
        self._stage_began = time.monotonic()

    def _mine(self) -> Any:
        return Run.objects.filter(pk=self.run.pk, token=self._token)

    def _write(self, **values: Any) -> None:
        if not self._mine().update(heartbeat_at=timezone.now(), **values):
            raise LostRun(f"run {self.run.pk} belongs to another worker")

    def heartbeat(self) -> None:
        self._write()

    def should_stop(self) -> bool:
        """Whether someone asked to stop. Raises LostRun if the run is another's."""
        state = self._mine().values_list("state", flat=True).first()
        if state is None:
            raise LostRun(f"run {self.run.pk} belongs to another worker")
        return state == RunState.STOPPING

    def check(self) -> None:
        """Between two chunks: raises Stopped when asked to stop."""
        if self.should_stop():
            self.flush()
            raise Stopped

    def progress(
        self, done: int, total: int | None = None, *, unit: str = "", message: str = ""
    ) -> None:
        self._pending.update(progress=done)
        if total is not None:
            self._pending.update(total=total)
        if unit:
            self._pending.update(unit=unit)
        if message:
            self._pending.update(message=message[:300])
        self._flush_if_due()

    def stage(self, key: str, label: str) -> None:
        """The run enters a stage; the one before is done."""
        now = time.monotonic()
        stages = self.run.stages
        for stage in stages:
            if stage["state"] == "running":
                stage |= {"state": "done", "seconds": round(now - self._stage_began, 3)}
        known = next((stage for stage in stages if stage["key"] == key), None)
        if known is None:
            stages.append({"key": key, "label": label, "state": "running", "seconds": None})
        else:
            known |= {"state": "running", "seconds": None}
        self._stage_began = now
        self._pending["stages"] = stages
        self.flush()

    def count(self, counters: dict[str, Any]) -> None:
        """What the run has used and met so far: shown while it works, kept when it is resumed."""
        self.run.counters = counters
        self._pending.update(counters=counters)
        self._flush_if_due()

    def log(self, line: str) -> None:
        self._lines.append(_stamped(line))
        self._flush_if_due()

    def say(self, message: str) -> None:
        """What the run is doing where no number moves."""
        self._pending["message"] = message[:300]
        self._flush_if_due()

    def resumed(self, where: str) -> None:
        """Say from which chunk or checkpoint this attempt goes on."""
        self._pending["resumed_from"] = where[:80]
        self.log(f"resumed from {where}")

    def points(self, kind: str, values: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Add points to the run's curves; a step that is there already is replaced."""
        rows = [
            RunPoint(run_id=self.run.pk, kind=kind, step=step, values=named)
            for step, named in values
        ]
        RunPoint.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["run", "kind", "step"],
            update_fields=["values", "at"],
        )

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._last_write >= WRITE_EVERY:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        self._write(**pending)
        if self._lines:
            text, self._lines = "".join(self._lines), []
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE annotator_run SET log = right(log || %s, %s)"
                    " WHERE id = %s AND token = %s",
                    [text, LOG_CHARS, self.run.pk, self._token],
                )
        self._last_write = time.monotonic()

    def finish(self, result: dict[str, Any]) -> None:
        self._end(RunState.DONE, result=result)

    def fail(self, error: str, *, advice: str = "") -> None:
        self._end(RunState.FAILED, error=error, advice=advice)

    def canceled(self, result: dict[str, Any] | None = None) -> None:
        asked = self._mine().values_list("is_pausing", flat=True).first()
        ended = RunState.PAUSED if asked else RunState.CANCELED
        self._end(ended, **({"result": result} if result is not None else {}))

    def _end(self, state: RunState, **values: Any) -> None:
        ended = "done" if state == RunState.DONE else state.value
        for stage in self.run.stages:
            if stage["state"] == "running":
                seconds = round(time.monotonic() - self._stage_began, 3)
                stage |= {"state": ended, "seconds": seconds}
        self._pending["stages"] = self.run.stages
        self.flush()
        self._write(state=state, finished_at=timezone.now(), token=None, **values)
