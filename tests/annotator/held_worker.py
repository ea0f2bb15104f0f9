"""Workers that a test holds in a stage of a run, and kills there. Used by test_induction_worker.

``nursery`` starts one process with the product imported; it forks a worker, which is the product's
own with its queue, whenever a test wants one. Killed ones are then replaced in less than a second.

Where a run is held stands in a file: {"stage": key of a row of Run.stages, "asked": what the
coroutine that asks calls it (of measuring, the held-out pairs come first, without a name), "replies": how many come before the one that never arrives}. Without
"asked" the job's thread waits where it has entered the stage; in the stage "write", after the draft
is written and before it is committed.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HANG: Final = 120.0  # seconds after which a test gives up; nothing waits for so long
WORKER: Final = ("worker", "--pool=threads", "--concurrency=2", "-Q", "default,llm",
                 "--without-gossip", "--without-mingle", "--loglevel=WARNING")  # fmt: skip


@dataclass
class Nursery:
    """Forks workers on demand, one at a time. ``sent`` are the keys of all requests ever sent."""

    folder: Path
    process: subprocess.Popen = field(repr=False)
    pid: int = 0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def sent(self) -> list[str]:
        path = self.folder / "sent"
        return path.read_text().split() if path.exists() else []

    @property
    def is_holding(self) -> bool:
        return (self.folder / "held").exists()

    def hold(self, stage: str = "", asked: str | None = None, replies: int = 0) -> None:
        """From here on a run is held there; nowhere without a stage."""
        (self.folder / "held").unlink(missing_ok=True)
        wanted = json.dumps({"stage": stage, "asked": asked, "replies": replies})
        fresh = self.folder / "hold.new"
        fresh.write_text(wanted)
        fresh.replace(self.folder / "hold")

    def start(self) -> None:
        """A worker, if there is none."""
        if self.pid:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"fork\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said.strip(), f"no worker was started\n{self.log}"
        self.pid = int(said)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone: none of its threads writes anything after that."""
        if not self.pid:
            return
        os.kill(self.pid, signal.SIGKILL)
        assert self.process.stdout is not None
        gone = self.process.stdout.readline()
        assert int(gone) == self.pid
        self.pid = 0

    def wait(self, seen: Callable[[], object], told: Callable[[], object]) -> None:
        """Until it is seen. Whoever waits in vain is told of it, with the worker's log."""
        deadline = time.monotonic() + HANG
        while not seen():
            assert time.monotonic() < deadline, f"{told()}\n{self.log[-6000:]}"
            time.sleep(0.02)


@contextmanager
def nursery(folder: Path, env: dict[str, str]) -> Iterator[Nursery]:
    """``env`` is that of the workers."""
    from tests import serving

    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.annotator.held_worker", str(folder)],
            cwd=serving.ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    found = Nursery(folder, process)
    try:
        yield found
    finally:
        found.kill()
        process.communicate()  # the end of its input is its end


# In the processes that are started here.


def _serve(folder: Path) -> None:
    import django

    django.setup()
    from annotator.celery import app

    app.loader.init_worker()
    app.finalize()
    # What a worker and its jobs import when they run: a process that is forked has it already.
    import celery.bin.celery
    import celery.concurrency.thread  # noqa: F401
    import py3langid  # noqa: F401
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401

    import rubrics.llm.client
    import rubrics.refinement  # noqa: F401
    from rubrics.generators import GENERATORS

    for row in GENERATORS.values():
        row.load()
    _hold_where_told(folder)
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            os.dup2(2, 1)
            with open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
            app.worker_main([*WORKER, "-n", f"held-{os.getpid()}@%h"])
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print(pid, flush=True)


@dataclass
class _Hold:
    """Where this process stands. Threads of one run alone look at it."""

    folder: Path
    asked: str = ""
    replies: Counter[str] = field(default_factory=Counter)
    is_held: bool = False

    def wanted(self) -> dict[str, Any]:
        path = self.folder / "hold"
        return json.loads(path.read_text()) if path.exists() else {}

    def now(self) -> None:
        self.is_held = True
        (self.folder / "held").touch()

    def keeps_reply(self) -> bool:
        """A reply has come. Whether it is the one to be held, or comes after it."""
        self.replies[self.asked] += 1
        wanted = self.wanted()
        due = wanted.get("asked") == self.asked and self.replies[self.asked] > wanted["replies"]
        if due and not self.is_held:
            self.now()
        return self.is_held

    def job(self, key: str) -> None:
        """The job's thread has entered a stage, or written its draft."""
        wanted = self.wanted()
        if wanted.get("stage") == key and wanted["asked"] is None:
            self.now()
            threading.Event().wait()


def _hold_where_told(folder: Path) -> None:
    import asyncio

    from annotator.services import asking, induction, rubrics, runs
    from rubrics.llm.client import Client

    hold = _Hold(folder)
    enter, say, propose, ask = (
        runs.Work.stage, asking.Journal.stage, rubrics.propose, Client.ask,
    )  # fmt: skip

    @functools.wraps(enter)
    def entered(self: runs.Work, key: str, label: str) -> None:
        if key == induction.MEASURE[0]:
            hold.asked = ""  # nobody has said yet what is asked there
        enter(self, key, label)
        if key != induction.WRITE[0]:
            hold.job(key)

    @functools.wraps(propose)
    def proposed(**values: Any) -> Any:
        made = propose(**values)
        hold.job(induction.WRITE[0])
        return made

    @functools.wraps(say)
    def said(self: asking.Journal, key: str, label: str) -> None:
        hold.asked = key
        say(self, key, label)

    @functools.wraps(ask)
    async def asked(self: Client, request: Any, key: bytes) -> Any:
        if hold.is_held:  # what is on the wire already may come back; nothing more is sent
            await asyncio.Event().wait()
        with (folder / "sent").open("a") as sent:
            sent.write(f"{key.hex()}\n")
        reply = await ask(self, request, key)
        if hold.keeps_reply():
            await asyncio.Event().wait()
        return reply

    runs.Work.stage, asking.Journal.stage = entered, said
    rubrics.propose, Client.ask = proposed, asked


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
