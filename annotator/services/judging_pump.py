"""Many items in flight at once, few in memory: the loop of a run whose judge asks a model.

Items are read a chunk ahead and judged side by side; decisions are written in groups. Reading and
writing block, so they happen in one thread of their own, with its own connection. Nothing waits
for a chunk to end: the endpoint's concurrency stays used until the last item.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.db import connection

from annotator.queries.judging import Unshowable
from rubrics.judging.types import Decision, Item
from rubrics.llm.types import CallFailed

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5  # between two looks at whether someone asked to stop
GRACE_SECONDS: Final = 1.0  # what items in flight get to end when a run stops
GATHER_SECONDS: Final = 0.1  # what is judged within it is written together
OFFLINE_AT_ONCE: Final = 16  # items of a judge that could ask a model and has no need to
GROUP: Final = 200  # decisions of one transaction
# One after another, all for the endpoint's fault: it is away, or does not want us.
DOWN_AFTER: Final = 50
ENDPOINT_FAULTS: Final = frozenset({"timeout", "connection", "rate-limited", "server", "refused"})
BROKEN_AFTER: Final = 20  # items in a row on which the judge itself broke

T = TypeVar("T")
Judging = Callable[[Item], Awaitable[Decision]]
Said = Sequence[tuple[int, Decision]]


@dataclass(frozen=True)
class Ended:
    """Why the pump ended: "" at the end of the items, "stopped", "budget", "down" or "broken"."""

    why: str = ""
    detail: str = ""


class Pump:
    """One run's loop.

    ``read()`` returns the next items, empty at the end; ``write(said)`` records decisions by
    task; ``look()`` notes progress and says whether to stop. These three are called in the
    database thread; what they raise ends the run. ``judge`` may raise CallFailed("budget") only.
    ``width`` is how many items are in flight.
    """

    def __init__(
        self,
        *,
        read: Callable[[], Sequence[Item | Unshowable]],
        write: Callable[[Said], None],
        look: Callable[[], bool],
        width: int,
    ) -> None:
        self._read, self._write, self._look = read, write, look
        self._width = width
        self._database = ThreadPoolExecutor(1, thread_name_prefix="judging-database")
        self._slots = asyncio.Semaphore(width)
        self._said: asyncio.Queue[tuple[int, Decision] | None] = asyncio.Queue(2 * GROUP)
        self._items: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ended = Ended()
        self._error: Exception | None = None
        self._faults = self._breaks = 0

    async def run(self, judge: Judging) -> Ended:
        """Judge everything that ``read`` gives, or as much as there is leave for."""
        feeding = asyncio.create_task(self._guarded(self._feed(judge)))
        looking = asyncio.create_task(self._guarded(self._keep_looking()))
        writing = asyncio.create_task(self._guarded(self._keep_writing()))
        try:
            await _first(feeding, self._ending.wait())
            feeding.cancel()
            await self._let_items_end()
        finally:
            for task in (feeding, looking, *self._items):
                task.cancel()
            await asyncio.gather(feeding, looking, *self._items, return_exceptions=True)
            if not writing.done():
                await self._said.put(None)
                await writing
            await self._in_database(_disconnect)
            self._database.shutdown()
        if self._error is not None:
            raise self._error
        return self._ended

    async def _in_database(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._database, work, *args)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """What reading, writing or looking raises ends the run, and ``run`` raises it."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised again by ``run``, in the job
            self._error = self._error or error
            self._ending.set()

    def _end(self, why: str, detail: str = "") -> None:
        if not self._ending.is_set():
            self._ended = Ended(why, detail)
            self._ending.set()

    async def _feed(self, judge: Judging) -> None:
        async with aclosing(self._ahead()) as items:
            async for item in items:
                await self._slots.acquire()
                task = asyncio.create_task(self._guarded(self._one(item, judge)))
                self._items.add(task)
                task.add_done_callback(self._items.discard)

    async def _ahead(self) -> AsyncGenerator[Item | Unshowable, None]:
        """Items, with the next chunk read while one is judged."""
        chunk = await self._in_database(self._read)
        while chunk:
            following = asyncio.ensure_future(self._in_database(self._read))
            try:
                for item in chunk:
                    yield item
                chunk = await following
            finally:
                following.cancel()

    async def _one(self, item: Item | Unshowable, judge: Judging) -> None:
        try:
            decision = await self._decide(item, judge)
            await self._said.put((item.id, decision))
            self._count_faults(decision)
        except CallFailed as failure:
            if failure.kind != "budget":
                raise
            self._end("budget", failure.detail)
        finally:
            self._slots.release()

    async def _decide(self, item: Item | Unshowable, judge: Judging) -> Decision:
        if isinstance(item, Unshowable):
            return Decision(ranks=None, error=item.error, detail=item.detail)
        try:
            return await judge(item)
        except CallFailed:
            raise
        except Exception as error:  # the boundary of one item: recorded as its outcome
            log.exception("task %s: the judge broke", item.id)
            return Decision(ranks=None, error="internal", detail=type(error).__name__)

    def _count_faults(self, decision: Decision) -> None:
        """End a run that would only add failures, a million of them perhaps."""
        self._faults = self._faults + 1 if decision.error in ENDPOINT_FAULTS else 0
        self._breaks = self._breaks + 1 if decision.error == "internal" else 0
        if self._faults >= max(DOWN_AFTER, 2 * self._width):
            self._end("down", decision.detail)
        if self._breaks >= BROKEN_AFTER:
            self._end("broken", decision.detail)

    async def _let_items_end(self) -> None:
        """Until all are judged; not much longer once someone has asked to stop.

        Where the budget is spent none can ask for more: each ends with the calls it has paid for.
        """
        if self._items and not self._ending.is_set():
            await _first(asyncio.wait(set(self._items)), self._ending.wait())
        if self._items and self._error is None and self._ended.why == "budget":
            await _first(asyncio.wait(set(self._items)), self._hurry.wait())
        if self._items and self._error is None:
            await asyncio.wait(set(self._items), timeout=GRACE_SECONDS)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self._in_database(self._look):
                self._end("stopped")
                self._hurry.set()

    async def _keep_writing(self) -> None:
        """Decisions in groups, those judged meanwhile in the next one; None is the end."""
        is_over = False
        while not is_over:
            group = [await self._said.get()]
            if self._said.qsize() < GROUP:
                await asyncio.sleep(GATHER_SECONDS)
            while len(group) < GROUP and not self._said.empty():
                group.append(self._said.get_nowait())
            is_over = group[-1] is None
            said = [one for one in group if one is not None]
            if said:
                await self._in_database(self._write, said)


def _disconnect() -> None:
    """Close the connection of the thread this is called in."""
    connection.close()


async def _first(*waits: Awaitable[Any]) -> None:
    """Until the first of these is over; those that are coroutines end with it."""
    own = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, given in zip(own, waits, strict=True):
            if task is not given:
                task.cancel()
