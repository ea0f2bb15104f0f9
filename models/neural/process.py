"""Being a child: events on stdout and in a file, one child per folder, no life without a parent."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import orjson
import torch

from models.errors import WorkdirBusy
from models.supervision import EXIT_ORPHANED
from models.workdir import EVENTS, LOCK

ORPHAN_GRACE: Final = 10.0  # seconds to save a checkpoint once the supervisor is gone
SECONDS_BETWEEN_STEPS: Final = 0.5  # of step events
LOCK_WAIT: Final = 15.0  # a little longer, so a new child outlasts an orphan of the old supervisor


class Stopped(Exception):
    """Raised between two pieces of work once the run was asked to stop."""


class StartAgain(Exception):
    """One of several processes ran out of memory: what each reads at a time is written down, and
    only a new start gets all of them to where they can go on together."""


class Stop:
    """Set by SIGTERM or by the parent's end; looked at between two pieces of work."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __bool__(self) -> bool:
        return self.event.is_set()

    def check(self) -> None:
        """Raise Stopped if asked to stop."""
        if self:
            raise Stopped

    def on_sigterm(self) -> None:
        """Turn SIGTERM into a request."""
        signal.signal(signal.SIGTERM, lambda *_: self.event.set())

    def on_orphaned(self) -> None:
        """Watch stdin: a word there asks to stop, as SIGTERM does; when the parent is gone, stop,
        and end by force if that takes too long."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while os.read(0, 4096):
            self.event.set()
        self.event.set()
        time.sleep(ORPHAN_GRACE)
        os._exit(EXIT_ORPHANED)


class Events:
    """Writes events as JSON lines to a stream and appends them to ``events.jsonl``."""

    def __init__(self, stream: IO[bytes] | None, *, only: Container[str] | None = None) -> None:
        self.stream, self.only = stream, only  # names of events that are told, or all
        self.file: IO[bytes] | None = None

    @contextmanager
    def keep(self, workdir: Path) -> Iterator[None]:
        """Keep events in the folder too; a line cut short by a kill is dropped first."""
        path = workdir / EVENTS
        with path.open("ab") as self.file:
            self.file.truncate(path.read_bytes().rfind(b"\n") + 1)
            yield
        self.file = None

    def __call__(self, event: str, **fields: Any) -> None:
        if self.only is not None and event not in self.only:
            return
        line = orjson.dumps({"event": event, **fields}) + b"\n"
        if self.stream is not None:
            try:
                self.stream.write(line)
                self.stream.flush()
            except BrokenPipeError:
                self.stream = None  # the parent is gone; the watch on stdin ends this process
        if self.file is not None:
            self.file.write(line)
            self.file.flush()


class Throttle:
    """True at most every ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, float("-inf")

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class Stage:
    """Tells when a part of the run begins and, if nothing went wrong, when it ends."""

    def __init__(self, emit: Events, stage: str) -> None:
        self.emit, self.stage = emit, stage

    def __enter__(self) -> None:
        self.emit("stage", stage=self.stage, state="running")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.emit("stage", stage=self.stage, state="done")


class Meter:
    """Step events, at most two a second, each averaged over the updates since the last."""

    def __init__(self, emit: Events) -> None:
        self.emit, self.due = emit, Throttle(SECONDS_BETWEEN_STEPS)
        self.values: list[list[float]] = []
        self.since: tuple[int, float] | None = None

    def __call__(
        self, values: list[float], *, progress: Any, total_steps: int, epoch: float, lr: float
    ) -> None:
        """Note loss, margin and gradient norm of the update just made."""
        self.values.append(values)
        last = progress.step == total_steps
        if not (self.due() or last):
            return
        columns = zip(*self.values, strict=True)
        loss, margin, norm = (sum(column) / len(self.values) for column in columns)
        pairs, seconds = self.since or (0, 0.0)
        speed = (progress.pairs - pairs) / max(progress.seconds - seconds, 1e-9)
        self.emit(
            "step",
            step=progress.step,
            total_steps=total_steps,
            epoch=epoch,
            loss=loss,
            margin=margin,
            grad_norm=norm,
            lr=lr,
            pairs_per_second=speed,
            memory_mb=peak_memory_mb(),
        )
        self.values, self.since = [], (progress.pairs, progress.seconds)


def peak_memory_mb() -> float:
    """The most memory held so far: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts kilobytes


def take_stdout() -> IO[bytes]:
    """The real stdout for events alone; whatever else prints goes to stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def lock(workdir: Path, check: Callable[[], None], wait: float) -> IO[bytes]:
    """Hold the folder for this process; released by the kernel when the process ends.

    Raises WorkdirBusy if another process still holds it after ``wait`` seconds.
    """
    file = (workdir / LOCK).open("wb")
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise WorkdirBusy(
                    "Another process is training in this folder.",
                    advice="Wait until it has ended, or stop it first.",
                ) from None
            check()
            time.sleep(0.2)
        else:
            return file
