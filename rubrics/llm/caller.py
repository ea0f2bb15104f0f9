"""One call from beginning to end: cache, budget, limits, retries, ledger."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from rubrics.llm.budget import Budget, Prices, Spending, Spent, cost_of
from rubrics.llm.retry import AttemptFailed, Patience
from rubrics.llm.types import CallFailed, Reply, Request

# Seconds that calls on the wire get to come back when the caller is closed: they may be billed.
GRACE: Final = 10.0


class Asks(Protocol):
    """One attempt at a request. Raises AttemptFailed. See rubrics.llm.client.Client."""

    base_url: str

    async def ask(self, request: Request, key: bytes) -> Reply: ...


class Ledger(Protocol):
    """Every reply that was paid for, by key; it lets one caller at a time ask for a key."""

    async def claim(self, key: bytes) -> Reply | None:
        """The reply if there is one, at no cost and marked as cached.

        None: the key is now this caller's alone, until ``put`` or ``release``. Waits while it is
        another's.
        """

    async def put(self, request: Request, reply: Reply) -> None:
        """Keep a reply. It is durable when this returns, and the claim has ended."""

    async def release(self, key: bytes) -> None:
        """Give up a claim without a reply."""


class Limiter(Protocol):
    """How many calls may be under way, shared by all who call the same endpoint."""

    def slot(self) -> AbstractAsyncContextManager[None]:
        """A place for one attempt; entering waits for it."""

    async def pause(self, seconds: float) -> None:
        """Let nobody begin an attempt for so long."""


@dataclass(slots=True)
class Counters:
    """What a run has used and met. ``retries`` and ``errors`` by kind (rubrics.llm.types)."""

    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "cached": self.cached,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost": self.cost,
            "retries": dict(sorted(self.retries.items())),
            "errors": dict(sorted(self.errors.items())),
        }


class Caller:
    """A ``Call`` (rubrics.llm.types): await it with a Request, get a Reply or CallFailed.

    Equal requests under way at the same time are asked once. A call goes on when the one who
    waits for it is canceled: what is paid for is kept. ``close`` waits for the calls on the wire.
    """

    def __init__(
        self,
        *,
        client: Asks,
        ledger: Ledger,
        limiter: Limiter,
        budget: Budget | None = None,
        spent: Spent | None = None,
        prices: Prices | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        dice: random.Random | None = None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._limiter = limiter
        self._spending = Spending(budget or Budget(), spent)
        self._prices = prices or {}
        self._patience = patience or Patience()
        self._sleep = sleep
        self._dice = dice or random.Random()
        self._under_way: dict[bytes, asyncio.Task[Reply]] = {}
        self._on_wire: set[asyncio.Task[Any]] = set()
        self._is_closing = False
        paid = self._spending.spent
        self.counters = Counters(
            calls=paid.calls,
            tokens_in=paid.tokens_in,
            tokens_out=paid.tokens_out,
            cost=paid.money,
        )

    @property
    def spent(self) -> Spent:
        """What was paid so far, with what the caller was begun with."""
        return self._spending.spent

    async def __call__(self, request: Request) -> Reply:
        """Raises CallFailed."""
        key = request.key(self._client.base_url)
        task = self._under_way.get(key)
        is_first = task is None
        if task is None:
            task = asyncio.create_task(self._answer(request, key))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        reply = await asyncio.shield(task)
        if not is_first and not reply.is_cached:
            reply = replace(reply, is_cached=True, cost=0.0)
        if reply.is_cached:
            self.counters.cached += 1
        return reply

    def _ended(self, key: bytes, task: asyncio.Task[Reply]) -> None:
        del self._under_way[key]
        self._on_wire.discard(task)
        if not task.cancelled():
            task.exception()  # seen: those who wait for it are told, if there still are any

    async def _answer(self, request: Request, key: bytes) -> Reply:
        cached = await self._ledger.claim(key)
        if cached is not None:
            return cached
        try:
            return await self._pay(request, key)
        except BaseException as error:
            if isinstance(error, CallFailed):
                self.counters.errors[error.kind] += 1
            await self._ledger.release(key)
            raise

    async def _pay(self, request: Request, key: bytes) -> Reply:
        self._spending.reserve()
        try:
            reply = await self._ask(request, key)
        except BaseException:
            self._spending.release()
            raise
        self._spending.settle(reply)
        self.counters.calls += 1
        self.counters.tokens_in += reply.tokens_in
        self.counters.tokens_out += reply.tokens_out
        self.counters.cost += reply.cost
        await self._ledger.put(request, reply)
        return reply

    async def _ask(self, request: Request, key: bytes) -> Reply:
        attempts = timeouts = 0
        while True:
            attempts += 1
            try:
                reply = await self._attempt(request, key)
            except AttemptFailed as failed:
                timeouts += failed.kind == "timeout"
                go_on = self._patience.may_retry(failed, attempts=attempts, timeouts=timeouts)
                if not go_on or self._is_closing:
                    raise CallFailed(failed.kind, failed.detail, attempts=attempts) from failed
                self.counters.retries[failed.kind] += 1
                if failed.kind == "rate-limited":
                    shared = self._patience.shared_pause(failed, attempts=attempts)
                    await self._limiter.pause(shared)
                await self._sleep(self._patience.pause(failed, attempts=attempts, dice=self._dice))
            else:
                cost = cost_of(
                    self._prices,
                    model=request.model,
                    tokens_in=reply.tokens_in,
                    tokens_out=reply.tokens_out,
                )
                return replace(reply, attempts=attempts, cost=cost)

    async def _attempt(self, request: Request, key: bytes) -> Reply:
        async with self._limiter.slot():
            self._spending.check()  # others may have spent the rest while this one waited
            task = asyncio.current_task()
            assert task is not None
            self._on_wire.add(task)  # and with a reply it stays there until the ledger has it
            try:
                return await self._client.ask(request, key)
            except BaseException:
                self._on_wire.discard(task)
                raise

    async def close(self, *, grace: float = GRACE) -> None:
        """End what has not been sent; wait up to ``grace`` seconds for what has."""
        self._is_closing = True
        for task in set(self._under_way.values()) - self._on_wire:
            task.cancel()
        left = list(self._under_way.values())
        if left:
            _, late = await asyncio.wait(left, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
