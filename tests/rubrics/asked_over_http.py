"""A caller at a server for the length of one coroutine: what tests of generators share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rubrics.llm.budget import Budget
from rubrics.llm.caller import Caller, Counters
from rubrics.llm.client import Client, Server
from rubrics.llm.memory import MemoryLedger, MemoryLimiter
from rubrics.llm.types import Call

Told = TypeVar("Told")


@dataclass(frozen=True)
class Ended(Generic[Told]):
    """What came of it and what it cost."""

    value: Told
    counters: Counters


def over_http(
    server: Any,
    work: Callable[[Call], Awaitable[Told]],
    *,
    ledger: MemoryLedger | None = None,
    budget: Budget | None = None,
) -> Ended[Told]:
    """``work`` with a Call to ``server``; ``ledger`` outlives it where it is given."""

    async def main() -> Ended[Told]:
        offers = Server(server.url, has_schema=True, has_logprobs=True, has_images=True)
        async with Client(offers) as client:
            caller = Caller(
                client=client,
                ledger=ledger or MemoryLedger(),
                limiter=MemoryLimiter(),
                budget=budget,
            )
            try:
                return Ended(await work(caller), caller.counters)
            finally:
                await caller.close()

    return asyncio.run(main())
