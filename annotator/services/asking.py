"""A coroutine that asks a model, driven by a job: its progress written down, stopped when asked.

The tables belong to the job's thread. The coroutine runs in a loop of its own, in another thread,
and tells a journal how far it is; what it asks is written by the ledger's own connection.
"""

from __future__ import annotations

import asyncio
import queue
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from django.db import connection

from annotator.errors import NotFound
from annotator.models import Judge, Project
from annotator.services import judges, llm, runs
from rubrics.llm.budget import Budget
from rubrics.llm.retry import Patience
from rubrics.llm.types import FAILURES, Call, CallFailed, Reply, Request

LOOK_SECONDS: Final = 0.5
KEPT: Final = ("retries", "errors")  # counted by a caller alone; what was paid is in the ledger

T = TypeVar("T")
Stage = Callable[[str, str], None]


class Journal:
    """What a coroutine says of itself; the job's thread hears it.

    A rubrics.generators.types.Journal.
    """

    def __init__(self) -> None:
        self.stages: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self.words = ""
        self.how_far: tuple[int, int, str] | None = None
        self.used: dict[str, Any] = {}
        self.failures: dict[str, str] = {}  # kind to the first detail of it
        self._is_stopping = False
        self._cancel: Callable[[], object] = lambda: None

    def stage(self, key: str, label: str) -> None:
        self.words, self.how_far = label, None
        self.stages.put((key, label))

    def progress(self, done: int, total: int, unit: str) -> None:
        self.how_far = (done, total, unit)

    def check(self) -> None:
        if self._is_stopping:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """End the coroutine at its next step. From any thread, any number of times."""
        self._is_stopping = True
        with suppress(RuntimeError):  # its loop has closed since: there is nothing left to end
            self._cancel()

    async def watch(self, work: Awaitable[T]) -> T:
        """Await ``work`` so that ``stop`` ends it."""
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            self.check()
            return await task
        finally:
            self._cancel = lambda: None
            task.cancel()


class Desk:
    """Where a run asks: of one judge's endpoint, within one budget; of nobody without a judge."""

    def __init__(
        self,
        work: runs.Work,
        *,
        judge: Judge | None,
        budget: Budget,
        patience: Patience | None = None,
    ) -> None:
        self.work, self.judge = work, judge
        self._budget, self._patience = budget, patience
        self._before: dict[str, Any] = {}
        self._told: set[str] = set()

    def drive(self, make: Callable[[Call | None, Journal], Awaitable[T]], *, on_stage: Stage) -> T:
        """What the coroutine returns; ``on_stage`` is called here, in the job's thread.

        ``make`` is given the call, None without a judge. Raises runs.Stopped, runs.LostRun, and
        what the coroutine does.
        """
        journal = Journal()
        self._before = dict(self.work.run.counters)
        with ThreadPoolExecutor(1, thread_name_prefix="asking") as pool:
            future: Future[T] = pool.submit(self._in_thread, make, journal)
            future.add_done_callback(lambda _: journal.stages.put(None))
            try:
                while not self._hear(journal, on_stage):
                    if self.work.should_stop():
                        journal.stop()
                    self._note(journal)
            except BaseException:  # another worker has the run, say: nothing more is to be asked
                journal.stop()
                raise
        self._note(journal)
        self.work.flush()
        try:
            return future.result()
        except asyncio.CancelledError:
            raise runs.Stopped from None

    def _in_thread(self, make: Callable[[Call | None, Journal], Awaitable[T]], to: Journal) -> T:
        try:
            return asyncio.run(to.watch(self._ask(make, to)))
        finally:
            connection.close()  # this thread's own, if reading the endpoint opened one

    async def _ask(self, make: Callable[[Call | None, Journal], Awaitable[T]], to: Journal) -> T:
        if self.judge is None:
            return await make(None, to)
        assert self.judge.endpoint is not None
        async with llm.open_caller(
            endpoint=self.judge.endpoint,
            run=self.work.run,
            budget=self._budget,
            patience=self._patience,
        ) as caller:

            async def call(request: Request) -> Reply:
                to.check()
                try:
                    return await caller(request)
                except CallFailed as failed:
                    to.failures.setdefault(failed.kind, failed.detail)
                    raise
                finally:
                    to.used = caller.counters.as_json()

            return await make(call, to)

    def _hear(self, journal: Journal, on_stage: Stage) -> bool:
        """Pass a stage on as soon as it is entered. True once the coroutine has ended."""
        try:
            entered = journal.stages.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return False
        if entered is not None:
            on_stage(*entered)
        return entered is None

    def _note(self, journal: Journal) -> None:
        if journal.used:
            self.work.count(self._counted(journal.used))
        if journal.words:
            self.work.say(journal.words)
        if journal.how_far is not None:
            done, total, unit = journal.how_far
            self.work.progress(done, total, unit=unit)
        for kind, detail in list(journal.failures.items()):
            self._tell(kind, detail)

    def _tell(self, kind: str, detail: str) -> None:
        """The first failure of a kind, in the log: a count of them does not say what to mend."""
        if kind in self._told or kind == "budget":
            return
        self._told.add(kind)
        words = FAILURES[kind]
        self.work.log(f"A call failed, {words}{'' if detail == words else f': {detail}'}")

    def _counted(self, used: dict[str, Any]) -> dict[str, Any]:
        """With what earlier callers of the run met: what was paid, the ledger has added up."""
        before = self._before
        counted = {**used, "cached": before.get("cached", 0) + used["cached"]}
        for name in KEPT:
            counted[name] = dict(sorted((Counter(before.get(name)) + Counter(used[name])).items()))
        return counted


def model_of(judge: Judge) -> str:
    """The model that is asked where one is: the first of a jury. Empty for judges that ask none."""
    named = judge.options.get("models") or [""]
    return str(named[0])


def find_judge(project: Project, pk: int | None) -> Judge | None:
    """The judge a run was begun with; None for none. Raises NotFound, Conflict if unusable."""
    if pk is None:
        return None
    rows = Judge.objects.select_related("endpoint", "project")
    found = rows.filter(project=project, pk=pk).first()
    if found is None:
        raise NotFound("The judge whose model was to be asked is not there any more.")
    judges.check_usable(found)
    return found
