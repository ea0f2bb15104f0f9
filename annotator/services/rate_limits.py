"""How often something may be asked for, by all web processes together."""

from __future__ import annotations

from typing import Final

from annotator.errors import TooMany
from annotator.services.shared_keys import key, redis

# The generic cell rate algorithm: one key says when the next request would be on time. Returns
# milliseconds to wait, 0 where it is granted. The clock is that of Redis.
TAKE: Final = """
local gap, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local due = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local early = due - now - (burst - 1) * gap
if early > 0 then return math.ceil(early) end
redis.call('SET', KEYS[1], string.format('%.3f', due + gap), 'PX', math.ceil(due + gap - now))
return 0
"""


def take(what: str, *, of: str, per_minute: int, burst: int) -> None:
    """Count one request of somebody. Raises TooMany, RedisError.

    ``burst`` may come at once; beyond it they come at ``per_minute``. 0 is no limit.
    """
    if per_minute <= 0:
        return
    arguments = [60_000 / per_minute, max(1, burst)]
    waits = int(redis().eval(TAKE, 1, key(f"rate:{what}:{of}"), *arguments))
    if waits:
        raise TooMany(
            f"At most {per_minute:,} of these requests a minute.",
            advice=f"Wait {max(1, -(-waits // 1000))} s, or send more in one request.",
            seconds=waits / 1000,
        )
