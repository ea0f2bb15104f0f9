"""A child process that scores (models.neural.serve): torch and its faults stay in there.

A CUDA fault spoils a process for good and a lack of memory kills it; here both are an error with a
reason, and the next request starts a new child.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

import orjson

from models.errors import ScoringFailed
from models.supervision import EXIT_DONE, QUIET, ROOT, STDERR_TAIL_BYTES

POLL_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 5.0
MEMORY_ADVICE: Final = "Choose a smaller model or shorter texts, or run it where more memory is."


class Helper:
    """One child, started when it is first asked and again when it has ended.

    ``module`` is what it runs (models.neural.serve.run with something that answers), ``work`` what
    an error calls it.
    """

    def __init__(self, module: str = "models.neural.serve", *, work: str = "scoring") -> None:
        self.module, self.work = module, work
        self.child: subprocess.Popen[bytes] | None = None
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.stderr: IO[bytes] | None = None
        self.lock = threading.Lock()

    def ask(
        self, request: Mapping[str, Any], *, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """The child's reply. ``check`` is called about once a second while it works or is at work
        for another; what that raises ends the child and goes on to the caller.
        Raises ScoringFailed."""
        with self._turn(check):
            line = orjson.dumps(request) + b"\n"
            reply = self._try(line, check)
            if reply is None and self._was_idle():
                reply = self._try(line, check)
            if reply is None:
                raise self._died()
        if "reason" in reply:
            raise ScoringFailed(reply["reason"], advice=reply["advice"], kind=reply["kind"])
        return reply

    @contextmanager
    def _turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Alone with the child."""
        while not self.lock.acquire(timeout=POLL_SECONDS):
            check()
        try:
            yield
        finally:
            self.lock.release()

    def close(self) -> None:
        """End the child and with it all it holds of the device."""
        with self.lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.child is not None and self.child.poll() is not None:
            self._end()  # it had nothing to do for long
        if self.child is None:
            self._start()
        assert self.child is not None
        return self.child

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self.child = subprocess.Popen(
            [sys.executable, "-m", self.module],
            cwd=ROOT,
            env={**os.environ, **QUIET, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            start_new_session=True,  # a Ctrl-C for the worker is not one for the child
        )
        self.lines = queue.SimpleQueue()
        arguments = (self.child.stdout, self.lines)
        self.reader = threading.Thread(target=_read, args=arguments, daemon=True)
        self.reader.start()

    def _try(self, line: bytes, check: Callable[[], None]) -> dict[str, Any] | None:
        child, is_over = self._running(), False
        try:
            reply = self._exchange(child, line, check)
            is_over = True
        finally:
            if not is_over:
                self._end()  # its answer would be taken for that to the next request
        return reply

    def _was_idle(self) -> bool:
        """Whether the child ended by itself, for want of work, just when there was some."""
        assert self.child is not None
        return self.child.wait() == EXIT_DONE

    def _exchange(
        self, child: subprocess.Popen[bytes], request: bytes, check: Callable[[], None]
    ) -> dict[str, Any] | None:
        """Send and wait. None where the child ended instead."""
        assert child.stdin is not None
        try:
            child.stdin.write(request)
            child.stdin.flush()
        except BrokenPipeError:
            return None
        while True:
            try:
                line = self.lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                check()
                continue
            reply: dict[str, Any] | None = orjson.loads(line) if line else None
            return reply

    def _died(self) -> ScoringFailed:
        assert self.child is not None
        code, told = self.child.wait(), self._tail()
        self._end()
        if code == -signal.SIGKILL:
            reason = f"The {self.work} process was killed, most often because memory ran out."
            return ScoringFailed(reason, advice=MEMORY_ADVICE, kind="out-of-memory")
        how = signal.strsignal(-code) if code < 0 else f"code {code}"
        reason = f"The {self.work} process crashed ({how}). {told}".strip()
        return ScoringFailed(reason, advice="Run it again.", kind="crashed")

    def _tail(self) -> str:
        """The last line the child wrote to stderr."""
        assert self.stderr is not None
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - STDERR_TAIL_BYTES))
        lines = self.stderr.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _end(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        assert self.stderr is not None
        with suppress(BrokenPipeError):
            child.stdin.close()  # the child ends at once when this closes
        try:
            child.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self.reader.join()
        child.stdout.close()
        self.stderr.close()


def _read(stdout: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    try:
        for line in stdout:
            lines.put(line)
    finally:
        lines.put(None)
