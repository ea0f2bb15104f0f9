"""A ledger and a limiter within one process: for notebooks, tests and small scripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from rubrics.llm.types import Reply, Request


class MemoryLedger:
    """Replies by the request's key, for as long as the object lives."""

    def __init__(self) -> None:
        self.replies: dict[bytes, Reply] = {}

    async def claim(self, key: bytes) -> Reply | None:
        reply = self.replies.get(key)
        return replace(reply, is_cached=True, cost=0.0) if reply else None

    async def put(self, request: Request, reply: Reply) -> None:
        del request
        self.replies[reply.key] = reply

    async def release(self, key: bytes) -> None:
        """Nothing: one process has one Caller per ledger."""


class MemoryLimiter:
    """At most ``concurrency`` calls at once; a pause holds back all of them."""

    def __init__(self, concurrency: int = 16) -> None:
        self._places = asyncio.Semaphore(concurrency)
        self._paused_until = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._places:
            while (left := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(left)
            yield

    async def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
