"""Verdicts of a language model on chunks of responses, asked for while the job does other things.

The tables belong to the job's thread. Here a thread of its own runs the event loop; chunks are
handed in and taken out as futures, several at a time, so that the endpoint's concurrency stays used
while verdicts are written. What is paid for is in the ledger when a call returns.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from annotator.models import Endpoint, Run
from annotator.services import llm
from rubrics.asking import each
from rubrics.llm.budget import Budget
from rubrics.llm.caller import Caller
from rubrics.llm.types import CallFailed
from rubrics.verifying import Response, Verdict, VerifyOptions, verify

LOOK_SECONDS: Final = 0.5
ENDPOINT_FAULTS: Final = frozenset({"timeout", "connection", "rate-limited", "server", "refused"})
DOWN_AFTER: Final = 10  # calls of one chunk, all of them failed for the endpoint's fault


class Place(NamedTuple):
    """One question: a row and a column of a chunk, and what is asked."""

    row: int
    column: int
    criterion: str
    response: Response


class Answer(NamedTuple):
    """``yes`` and ``neither`` are probabilities, NaN where the call failed."""

    row: int
    column: int
    yes: float
    neither: float
    key: bytes | None


@dataclass(frozen=True)
class Answers:
    """What came of a chunk. ``failures`` by reason; ``is_spent``: the budget ended it."""

    found: list[Answer] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def is_spent(self) -> bool:
        return self.failures["budget"] > 0

    @property
    def is_down(self) -> bool:
        """Whether every call failed because the endpoint is away, or does not want us."""
        faults = sum(self.failures[kind] for kind in ENDPOINT_FAULTS)
        return len(self.found) >= DOWN_AFTER and faults == len(self.found)


class Asker:
    """Asks one endpoint for as long as the block lasts. Raises AppError if it cannot be used."""

    def __init__(
        self, endpoint: Endpoint, *, run: Run, budget: Budget, options: VerifyOptions
    ) -> None:
        self._endpoint, self._run, self._budget = endpoint, run, budget
        self._options = options
        self._opened: Future[Caller] = Future()
        self._thread = threading.Thread(target=self._work, name="reward-asking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._caller = self._opened.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    @property
    def used(self) -> dict[str, Any]:
        """What the run has paid for, and what this caller met."""
        return self._caller.counters.as_json()

    def submit(self, places: Sequence[Place]) -> Future[Answers]:
        """Have a chunk asked, in the order given."""
        return asyncio.run_coroutine_threadsafe(self._ask(places), self._loop)

    def wait(self, asked: Future[Answers], *, look: Callable[[], None]) -> Answers:
        """The answers; ``look`` is called now and then meanwhile, and may raise."""
        while True:
            try:
                return asked.result(timeout=LOOK_SECONDS)
            except TimeoutError:
                look()

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with llm.open_caller(
            endpoint=self._endpoint, run=self._run, budget=self._budget
        ) as caller:
            self._opened.set_result(caller)
            await self._ending.wait()
            # What still waits has nobody to take it; the caller lets calls on the wire come back.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                if task.get_name() == CHUNK:
                    task.cancel()

    async def _ask(self, places: Sequence[Place]) -> Answers:
        current = asyncio.current_task()
        assert current is not None
        current.set_name(CHUNK)
        answers = Answers()

        async def one(place: Place) -> Verdict:
            return await verify(
                place.criterion, place.response, self._caller, options=self._options
            )

        said = await each(places, one, concurrency=self._options.concurrency)
        for place, verdict in zip(places, said, strict=True):
            error = verdict.kind if isinstance(verdict, CallFailed) else verdict.error
            if error:
                answers.failures[error] += 1
            answers.found.append(_read(place, verdict))
        return answers


CHUNK: Final = "reward-chunk"


def _read(place: Place, verdict: Verdict | CallFailed) -> Answer:
    """P(yes) apart from what "does not apply" adds to a score of the policy "half"."""
    if isinstance(verdict, CallFailed) or verdict.error or math.isnan(verdict.score):
        return Answer(place.row, place.column, math.nan, math.nan, None)
    yes = min(1.0, max(0.0, verdict.score - verdict.neither / 2))
    return Answer(place.row, place.column, yes, verdict.neither, verdict.call_key)
