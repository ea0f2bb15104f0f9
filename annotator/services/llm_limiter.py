"""How many calls an endpoint gets at once and per minute, from all processes together.

Every process settles with Redis a few times a second how many of an endpoint's places are its
own, and hands them to its calls by itself: a call costs no round trip. Places are shared fairly
among those who want some. They are leased, so those of a killed process come back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis import RedisError
from redis.asyncio import Redis

log = logging.getLogger(__name__)

LEASE: Final = 15.0  # seconds until the places of a process that went silent are free again
BEAT: Final = 0.25  # seconds between two settlements; how late others hear of a pause
RETRY: Final = (0.05, 0.15)  # seconds between two tries to get a place that others hold

# Settles what one holder may have. Returns: places, pause left (ms), permits, wait for one (ms).
# Shares are max-min fair; who is first among equals changes every second, so that more holders
# than places all get their turn. A holder never loses a place that is in use: it gives it back.
# Permits (requests per minute) follow the generic cell rate algorithm with a burst of a second.
SETTLE: Final = """
local holders, held, wants, pause, rate = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local me, in_use, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, lease = tonumber(ARGV[4]), tonumber(ARGV[5])
local per_minute, permits = tonumber(ARGV[6]), tonumber(ARGV[7])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', holders, '-inf', now)) do
  redis.call('ZREM', holders, gone)
  redis.call('HDEL', held, gone)
  redis.call('HDEL', wants, gone)
end
if want == 0 then
  redis.call('ZREM', holders, me)
  redis.call('HDEL', held, me)
  redis.call('HDEL', wants, me)
  return {0, 0, 0, 0}
end
redis.call('ZADD', holders, now + lease, me)
redis.call('HSET', wants, me, want)

local names = redis.call('HKEYS', wants)
table.sort(names)
local all = {}
for index, name in ipairs(names) do
  all[index] = {
    name = name,
    want = tonumber(redis.call('HGET', wants, name)),
    turn = (index + math.floor(now / 1000)) % #names,
  }
end
table.sort(all, function(a, b)
  if a.want ~= b.want then return a.want < b.want end
  return a.turn < b.turn
end)
local left, share = limit, 0
for index, one in ipairs(all) do
  local part = math.min(one.want, math.floor(left / (#all - index + 1)))
  left = left - part
  if one.name == me then share = part end
end
local others = 0
for _, name in ipairs(names) do
  if name ~= me then others = others + tonumber(redis.call('HGET', held, name) or 0) end
end
local places = math.max(0, math.min(share, limit - others))
redis.call('HSET', held, me, math.max(in_use, places))

local paused = math.max(0, redis.call('PTTL', pause))
local granted, wait = 0, 0
if per_minute > 0 and permits > 0 and paused == 0 then
  local burst = math.floor(per_minute / 60)
  local gap = 60000 / (per_minute - burst)
  local due = math.max(now, tonumber(redis.call('GET', rate) or 0))
  local room = now + burst * gap - due
  if room >= 0 then granted = math.min(permits, math.floor(room / gap) + 1) end
  if granted > 0 then
    due = due + granted * gap
    redis.call('SET', rate, string.format('%.3f', due), 'PX', math.ceil(due - now + gap))
  end
  wait = math.max(0, due - burst * gap - now)
end
for _, key in ipairs({holders, held, wants}) do redis.call('PEXPIRE', key, 4 * lease) end
return {places, paused, granted, math.ceil(wait)}
"""

PAUSE: Final = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
"""


class RedisLimiter:
    """A Limiter (rubrics.llm.caller) whose limits hold for all processes that share ``prefix``.

    ``concurrency`` is calls at once, ``per_minute`` requests per minute, 0 for no limit. Belongs
    to one event loop; ``close`` gives everything back.
    """

    def __init__(self, redis: Redis, *, prefix: str, concurrency: int, per_minute: int = 0) -> None:
        self._keys = [f"{prefix}{name}" for name in ("holders", "held", "wants", "pause", "rate")]
        self._settle = redis.register_script(SETTLE)
        self._pause = redis.register_script(PAUSE)
        self._limit = max(1, concurrency)
        self._per_minute = per_minute
        self._me = uuid.uuid4().hex
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._in_use = 0
        self._places = 0  # ours until the next settlement
        self._permits = 0
        self._most = 0  # calls wanted at once since the last settlement
        self._is_short = False  # Redis gave less than was asked for
        self._paused_until = 0.0  # by time.monotonic
        self._wake = asyncio.Event()
        self._agent: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._hand_out()
        if not turn.done():
            self._ask_for_more()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            raise
        try:
            yield
        finally:
            self._give_back()

    async def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        milliseconds = round(seconds * 1000)
        if milliseconds > 0:
            await self._pause(keys=[self._keys[3]], args=[milliseconds])

    async def close(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
        try:
            await self._settled(want=0, permits=0)
        except (RedisError, OSError):  # the lease runs out by itself
            log.warning("places of an endpoint were not given back", exc_info=True)

    def _give_back(self) -> None:
        self._in_use -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        self._most = max(self._most, self._in_use + len(self._waiting))
        if time.monotonic() < self._paused_until:
            return
        while self._waiting and self._in_use < self._places:
            if self._per_minute and not self._permits:
                return
            turn = self._waiting.popleft()
            if turn.done():  # canceled while it waited
                continue
            self._in_use += 1
            self._permits -= self._per_minute > 0
            turn.set_result(None)

    def _ask_for_more(self) -> None:
        if self._agent is None or self._agent.done():
            self._agent = asyncio.create_task(self._keep_settled())
        elif not self._is_short:
            self._wake.set()

    async def _keep_settled(self) -> None:
        away_since = None
        while True:
            while self._waiting and self._waiting[0].done():
                self._waiting.popleft()
            want = min(self._limit, max(self._most, self._in_use + len(self._waiting)))
            self._most = self._in_use + len(self._waiting)
            self._wake.clear()
            try:
                pause = await self._settled(want=want, permits=len(self._waiting))
                away_since = None
            except (RedisError, OSError) as error:
                away_since = away_since or time.monotonic()
                log.warning("Redis is away: places cannot be shared", exc_info=True)
                if time.monotonic() - away_since > LEASE:
                    self._fail(error)
                pause = BEAT
            if not want and not self._waiting:
                return
            self._hand_out()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _settled(self, *, want: int, permits: int) -> float:
        """Settle with Redis; returns seconds until the next time."""
        in_use = self._in_use
        before = self._places
        self._places = min(before, in_use)  # none is added while Redis is asked
        try:
            answer: Any = await self._settle(
                keys=self._keys,
                args=[
                    self._me, in_use, want, self._limit, round(LEASE * 1000),
                    self._per_minute, min(permits, max(0, self._limit - in_use)),
                ],
            )  # fmt: skip
        except (RedisError, OSError):
            self._places = before
            raise
        self._places, paused, granted, wait = (int(value) for value in answer)
        self._permits += granted
        self._is_short = self._places < want
        if paused:
            self._paused_until = max(self._paused_until, time.monotonic() + paused / 1000)
        left = self._paused_until - time.monotonic()
        if left > 0:
            return min(left, BEAT)
        if self._waiting and self._per_minute and wait:
            self._is_short = True
            return min(BEAT, wait / 1000 * random.uniform(1.0, 1.2))
        return random.uniform(*RETRY) if self._waiting and self._is_short else BEAT

    def _fail(self, error: Exception) -> None:
        """Redis has been away for longer than a lease: nobody knows who holds what."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)
