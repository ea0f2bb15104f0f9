"""Web and workers in the foreground of one terminal: start, restart what dies, stop together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

GRACE_SECONDS: Final = 15.0
# One person's terminal: that it runs as root there is no news.
QUIET: Final = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
# A process that dies sooner than this after its start waits before it is started again.
SHORT_LIFE: Final = 5.0
MAX_PAUSE: Final = 30.0


@dataclass
class Child:
    """One long-running command. ``pause`` doubles with each short life."""

    name: str
    command: list[str]
    process: subprocess.Popen | None = None
    started: float = 0.0
    pause: float = 0.0
    again_at: float = 0.0
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        self.started = time.monotonic()
        # A group of its own: Ctrl-C reaches the supervisor only, which stops them in order.
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.env}, start_new_session=True
        )

    def tend(self, say: Callable[[str], None]) -> None:
        """Start it again if it died, at once the first time, then ever more slowly."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.again_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        short = now - self.started < SHORT_LIFE
        self.pause = min(MAX_PAUSE, max(1.0, self.pause * 2)) if short else 0.0
        self.again_at = now + self.pause
        self.process = None
        say(f"{self.name} ended with {code}; starting it again in {self.pause:.0f} s")

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):  # it may go between the look and the signal
                os.killpg(self.process.pid, number)


def children(*, bind: str) -> list[Child]:
    """gunicorn, a worker for short and network-bound jobs, and one solo worker for training."""
    python = sys.executable
    worker = [python, "-m", "celery", "--quiet", "-A", "annotator", "worker"]
    worker += ["--loglevel=WARNING"]
    worker += ["--without-gossip", "--without-mingle"]
    return [
        Child(
            "web",
            [python, "-m", "gunicorn", "-c", "annotator/gunicorn_conf.py", "annotator.wsgi"],
            env={"BIND": bind},
        ),
        Child(
            "worker",
            [*worker, "--pool=threads", "--concurrency=4", "-Q", "default,llm", "-n", "work@%h"],
            env=QUIET,
        ),
        Child("gpu worker", [*worker, "--pool=solo", "-Q", "gpu", "-n", "gpu@%h"], env=QUIET),
    ]


def simulated_judge(host: str, port: int) -> Child:
    """The demo's simulated judge."""
    command = [sys.executable, "manage.py", "simulated_judge", "--host", host, "--port", str(port)]
    return Child("simulated judge", command)


def workers() -> list[Child]:
    """The children less the web process: what ``make worker`` runs."""
    return [child for child in children(bind="") if child.name != "web"]


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def run(
    processes: list[Child], *, say: Callable[[str], None], meanwhile: Callable[[], Any] | None
) -> None:
    """Keep the processes running until SIGINT or SIGTERM, then stop them all.

    ``meanwhile`` is called once, after the start.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        stopping = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for child in processes:
            child.start()
        if meanwhile is not None:
            meanwhile()
        while not stopping:
            for child in processes:
                child.tend(say)
            time.sleep(0.5)
    finally:
        _stop_all(processes)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_all(processes: list[Child]) -> None:
    for child in processes:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for child in processes:
        if child.process is None:
            continue
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.signal(signal.SIGKILL)
            child.process.wait()


if __name__ == "__main__":
    run(workers(), say=print, meanwhile=None)
