"""Places and permits of an endpoint, shared through a real Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.conf import settings as django_settings
from redis import RedisError
from redis.asyncio import Redis

from annotator.services import llm_limiter
from annotator.services.llm_limiter import RedisLimiter
from tests.conftest import PREFIX


class Count:
    """How many hold a place now, and the most there ever were."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0

    async def use(self, limiter: RedisLimiter) -> None:
        async with limiter.slot():
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            self.done += 1


@asynccontextmanager
async def limiters(count: int, **limits: Any) -> AsyncIterator[tuple[Redis, list[RedisLimiter]]]:
    """As many processes have them, on one endpoint."""
    prefix = f"{PREFIX}{uuid.uuid4().hex}:"
    async with Redis.from_url(django_settings.REDIS_URL) as redis:
        made = [RedisLimiter(redis, prefix=prefix, **limits) for _ in range(count)]
        try:
            yield redis, made
        finally:
            for limiter in made:
                await limiter.close()


def key_of(limiter: RedisLimiter, name: str) -> str:
    return next(key for key in limiter._keys if key.endswith(name))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize(("holders", "places"), [(1, 1), (1, 8), (2, 8), (3, 4), (3, 2)])
def test_places_hold_for_all_holders_together(holders: int, places: int) -> None:
    async def main() -> None:
        count = Count()
        async with limiters(holders, concurrency=places) as (redis, made):
            await asyncio.gather(*(count.use(made[n % holders]) for n in range(40)))
            key = key_of(made[0], "holders")
        assert count.done == 40
        assert count.most <= places
        if holders == 1:
            assert count.most == places
        async with Redis.from_url(django_settings.REDIS_URL) as redis:
            assert await redis.zcard(key) == 0  # everything was given back

    run(main)


def test_newcomer_gets_its_share_of_a_busy_endpoint() -> None:
    async def main() -> None:
        count, late = Count(), Count()
        async with limiters(2, concurrency=4) as (_, (first, second)):
            over = asyncio.Event()

            async def busy() -> None:
                while not over.is_set():
                    await count.use(first)

            tasks = [asyncio.create_task(busy()) for _ in range(16)]
            while count.most < 4:
                await asyncio.sleep(0)
            await asyncio.gather(*(late.use(second) for _ in range(20)))
            over.set()
            await asyncio.gather(*tasks)
        assert late.done == 20

    run(main)


def test_pause_holds_back_everybody() -> None:
    async def main() -> None:
        async with limiters(2, concurrency=4) as (redis, (first, second)):
            await first.pause(0.2)
            for limiter in (first, second):
                async with limiter.slot():
                    assert not await redis.exists(key_of(first, "pause"))

    run(main)


def test_shorter_pause_does_not_shorten_a_longer_one() -> None:
    async def main() -> None:
        async with limiters(2, concurrency=4) as (redis, (first, second)):
            await first.pause(50)
            await second.pause(1)
            assert await redis.pttl(key_of(first, "pause")) > 10_000

    run(main)


def test_places_of_a_dead_holder_come_back() -> None:
    async def main() -> None:
        async with limiters(2, concurrency=2) as (redis, (dead, living)):
            held = [dead.slot() for _ in range(2)]
            for slot in held:
                await slot.__aenter__()
            assert dead._agent is not None
            dead._agent.cancel()  # as if its process were gone: it renews nothing
            waiting = asyncio.create_task(Count().use(living))
            wants = key_of(living, "wants")
            while await redis.hlen(wants) < 2:
                await asyncio.sleep(0.001)
            assert not waiting.done()
            await redis.zadd(key_of(dead, "holders"), {dead._me: 1}, xx=True)  # the lease is over
            await waiting

    run(main)


def test_requests_per_minute_hold_for_all_holders_together() -> None:
    async def main() -> None:
        async with limiters(2, concurrency=64, per_minute=6000) as (redis, made):
            seconds, micros = await redis.time()
            began = seconds * 1000 + micros / 1000
            count = Count()
            await asyncio.gather(*(count.use(made[n % 2]) for n in range(130)))
            due = float(await redis.get(key_of(made[0], "rate")))
            seconds, micros = await redis.time()
            took = seconds * 1000 + micros / 1000 - began
        gap = 60_000 / 5900
        assert due - began >= 130 * gap - 1  # every request took its permit
        assert took >= (130 - 101) * gap - 1  # a burst of a second's worth, then one by one

    run(main)


def test_canceled_waiters_leave_no_place_behind() -> None:
    async def main() -> None:
        count = Count()
        async with limiters(1, concurrency=2) as (_, (limiter,)):
            tasks = [asyncio.create_task(count.use(limiter)) for _ in range(20)]
            while count.now < 2:
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert limiter._in_use == 0
            again = Count()
            await asyncio.gather(*(again.use(limiter) for _ in range(10)))
        assert again.most == 2

    run(main)


def test_calls_fail_when_redis_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_limiter, "LEASE", 0.0)
    monkeypatch.setattr(llm_limiter, "BEAT", 0.01)

    async def main() -> None:
        async with Redis.from_url("unix:///nowhere/redis.sock") as redis:
            limiter = RedisLimiter(redis, prefix=PREFIX, concurrency=2)
            with pytest.raises(RedisError):
                await Count().use(limiter)
            await limiter.close()

    run(main)
