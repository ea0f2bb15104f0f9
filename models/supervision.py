"""Training in a child process: a crash or an out-of-memory kill there is a result here.

The child says what it does as JSON lines on its stdout. When the supervisor dies, however it dies,
the pipe to its stdin closes and the child ends. Several devices are several children, started by
``accelerate launch`` (models.launching): one of them hears by stdin that it is asked to stop, and
tells the others. Where memory runs out in one of them all are started again, with less at a time.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson
import psutil

from models.launching import Launch, exit_code
from models.workdir import STDERR, read_metrics

Event = dict[str, Any]

# What the child exits with, after sysexits.h where that has a word for it.
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 70
EXIT_STOPPED: Final = 75  # asked to stop; a checkpoint is saved, running again continues
EXIT_ORPHANED: Final = 76  # the supervisor is gone
EXIT_AGAIN: Final = 77  # of several processes: to be started again, with less at a time
MOST_STARTS: Final = 64  # of one run; each reads half as much at a time as the one before
STOP: Final = b"stop\n"

ROOT: Final = Path(__file__).resolve().parent.parent
QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
STDERR_TAIL_BYTES: Final = 4000
MEMORY_ADVICE: Final = (
    "Lower the batch size, the tokens per forward pass or the longest text, "
    "or train where there is more memory."
)


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. ``metrics`` where done; ``kind``, ``reason`` and ``advice`` where failed.

    ``kind`` is a word for programs: out-of-memory, bad-data, bad-options, bad-backbone, diverged,
    disk-full, busy, crashed, error. ``reason`` may also say how a run was stopped.
    """

    outcome: Literal["done", "stopped", "failed"]
    metrics: dict[str, Any] | None = None
    kind: str = ""
    reason: str = ""
    advice: str = ""
    exit_code: int = 0


def supervise(
    workdir: Path | str,
    *,
    on_event: Callable[[Event], object],
    should_stop: Callable[[], bool],
    poll: float = 0.5,
    grace: float = 30.0,
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    launch: Launch | None = None,
) -> TrainingResult:
    """Train what ``workdir`` describes in a child process and wait for it.

    A folder with checkpoints is continued from the last one; a finished one answers at once.
    ``on_event`` is called in this thread with every event as it comes. ``should_stop`` is asked
    every ``poll`` seconds; once true, the child is told to save a checkpoint and end, and is killed
    after ``grace`` seconds. ``environ`` is added to the child's environment, such as
    ``{"OMP_NUM_THREADS": "1"}``. ``pass_fds`` are file descriptors the child inherits: a lock held
    through one is held while the child lives, even where its supervisor was killed. ``launch`` is
    how to start several processes, one per device, instead of one. If
    ``on_event`` or ``should_stop`` raises, the child is ended in the same way and the error goes
    on to the caller.
    """
    folder = Path(workdir).resolve()
    watch = _Watch(
        is_launched=launch is not None,
        on_event=on_event,
        should_stop=should_stop,
        poll=poll,
        grace=grace,
    )
    for _ in range(MOST_STARTS):
        code, tail = _start(
            folder, watch=watch, environ=environ or {}, pass_fds=pass_fds, launch=launch
        )
        if not watch.again or watch.asked_at is not None:
            break
    return _result(folder, code, watch=watch, stderr_tail=tail)


def _start(
    folder: Path,
    *,
    watch: _Watch,
    environ: Mapping[str, str],
    pass_fds: Sequence[int],
    launch: Launch | None,
) -> tuple[int, str]:
    """One child from its start to its end. Returns its exit code and the end of its stderr."""
    with (folder / STDERR).open("ab") as stderr:
        start = stderr.tell()
        child = _spawn(folder, stderr=stderr, environ=environ, pass_fds=pass_fds, launch=launch)
        try:
            watch.run(child)
        finally:
            _end(child, grace=watch.grace)
    with (folder / STDERR).open("rb") as written:
        written.seek(max(start, written.seek(0, os.SEEK_END) - STDERR_TAIL_BYTES))
        return child.returncode, written.read().decode("utf-8", "replace")


class _Watch:
    """Passes events on and asks for the stop until the child's stdout closes."""

    def __init__(
        self,
        *,
        is_launched: bool,
        on_event: Callable[[Event], object],
        should_stop: Callable[[], bool],
        poll: float,
        grace: float,
    ) -> None:
        self.is_launched, self.on_event, self.should_stop = is_launched, on_event, should_stop
        self.poll, self.grace = poll, grace
        self.failure: Event = {}
        self.asked_at: float | None = None
        self.stopped = self.killed = self.again = False

    def run(self, child: subprocess.Popen[bytes]) -> None:
        self.child, self.again = child, False
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        assert child.stdout is not None
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        next_check = 0.0
        while True:
            try:
                line = lines.get(timeout=self.poll)
            except queue.Empty:
                line = b""
            if line is None:
                return
            if line:
                self._pass_on(line)
            if time.monotonic() >= next_check:
                self._check()
                next_check = time.monotonic() + self.poll

    def _pass_on(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            event = {"event": "log", "message": line.decode("utf-8", "replace").strip()}
        match event["event"]:
            case "again":
                self.again = True
            case "stopped":
                self.stopped = True
            case "failed":
                if self.failure or self.again or self.stopped:
                    return  # one of several was lost to the others: the cause has been told
                self.failure = event
        self.on_event(event)

    def _check(self) -> None:
        if self.asked_at is None:
            if self.should_stop():
                self.asked_at = time.monotonic()
                self._ask()
        elif time.monotonic() - self.asked_at > self.grace and not self.killed:
            self.killed = True
            _kill_tree(self.child)

    def _ask(self) -> None:
        if not self.is_launched:
            self.child.terminate()
            return
        # The launcher would pass a signal on and then call its processes failed.
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):
            self.child.stdin.write(STOP)
            self.child.stdin.flush()


def _spawn(
    folder: Path,
    *,
    stderr: IO[bytes],
    environ: Mapping[str, str],
    pass_fds: Sequence[int],
    launch: Launch | None,
) -> subprocess.Popen[bytes]:
    alone = [sys.executable, "-m", "models.neural.train"]
    command = launch.command(folder) if launch else alone
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [*command, "--supervised", str(folder)],
        cwd=ROOT,
        env={**os.environ, **QUIET, "PYTHONPATH": path, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,  # a Ctrl-C for the worker is not one for the child
    )


def _read(stdout: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    try:
        for line in stdout:
            lines.put(line)
    finally:
        lines.put(None)


def _end(child: subprocess.Popen[bytes], *, grace: float) -> None:
    """Whatever happened, no child is left: ask, wait, kill."""
    assert child.stdin is not None
    assert child.stdout is not None
    # A child whose stdout closed is on its way out; one that still talks must be asked.
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(timeout=grace)
    except subprocess.TimeoutExpired:
        _kill_tree(child)
        child.wait()
    child.stdout.close()


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    """The child and what it started: a launcher's processes have groups of their own."""
    with suppress(psutil.NoSuchProcess):  # it ended by itself in the meantime
        own = psutil.Process(child.pid)
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _result(folder: Path, code: int, *, watch: _Watch, stderr_tail: str) -> TrainingResult:
    if code == EXIT_DONE and (metrics := read_metrics(folder)) is not None:
        return TrainingResult("done", metrics=metrics)
    if code == EXIT_STOPPED or (watch.is_launched and watch.stopped):
        return TrainingResult("stopped", exit_code=code)
    was_killed = code in (-signal.SIGTERM, -signal.SIGKILL)
    if watch.asked_at is not None and (was_killed or watch.again):
        how = "It did not stop in time and was killed." if watch.killed else ""
        return TrainingResult("stopped", reason=how, exit_code=code)
    if watch.failure:
        kind, reason, advice = (
            str(watch.failure.get(name, "")) for name in ("kind", "reason", "advice")
        )
        return TrainingResult("failed", None, kind, reason, advice, code)
    first = exit_code(stderr_tail) if watch.is_launched else None
    return _unexplained(code if first is None else first, stderr_tail)


def _unexplained(code: int, stderr_tail: str) -> TrainingResult:
    """The child ended without a word: killed from outside, or broken before it could speak."""
    if code == -signal.SIGKILL:
        reason = "The training process was killed, most often because memory ran out."
        return TrainingResult("failed", None, "out-of-memory", reason, MEMORY_ADVICE, code)
    last = next((line for line in reversed(stderr_tail.splitlines()) if line.strip()), "")
    if code < 0:
        reason = f"The training process crashed ({signal.strsignal(-code)}). {last}".strip()
        return TrainingResult("failed", None, "crashed", reason, "Run it again.", code)
    reason = last.strip() or f"The training process ended with code {code}."
    return TrainingResult("failed", None, "error", reason, "See the end of the log.", code)
