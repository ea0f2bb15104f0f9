"""When a failed attempt is worth another one, and how long to wait before it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from rubrics.llm.types import CallFailed

LONGEST_WAIT: Final = 60.0  # seconds; what an endpoint asks beyond that is tried earlier
# What may go better the next time. Anything else is the same however often it is asked.
PASSING: Final = frozenset({"timeout", "connection", "rate-limited", "server", "unreadable"})


class AttemptFailed(CallFailed):
    """One attempt without a reply. ``wait``: seconds the endpoint asked for, None if it did not."""

    def __init__(self, kind: str, detail: str = "", *, wait: float | None = None) -> None:
        super().__init__(kind, detail, attempts=1)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long. Times in seconds.

    ``timeouts`` is the share of ``attempts`` that may end in a timeout: each holds a place for as
    long as the endpoint's timeout.
    """

    attempts: int = 8
    timeouts: int = 3
    first: float = 0.5
    longest: float = LONGEST_WAIT

    def may_retry(self, failed: AttemptFailed, *, attempts: int, timeouts: int) -> bool:
        """Whether to go on after ``attempts`` attempts of which ``timeouts`` timed out."""
        return failed.kind in PASSING and attempts < self.attempts and timeouts < self.timeouts

    def pause(self, failed: AttemptFailed, *, attempts: int, dice: random.Random) -> float:
        """Seconds to wait after attempt number ``attempts``.

        What the endpoint asked for is the least; else the wait doubles with every attempt and is
        drawn between half of that and all of it, so that callers do not come back together.
        """
        backoff = min(self.longest, self.first * 2.0 ** (attempts - 1)) * dice.uniform(0.5, 1.0)
        if failed.wait is None:
            return backoff
        return min(self.longest, failed.wait) + min(backoff, 0.1 * failed.wait)

    def shared_pause(self, failed: AttemptFailed, *, attempts: int) -> float:
        """Seconds for which nobody should ask this endpoint after it said "too many requests".

        Without a word from the endpoint it is a tenth of the own wait: the others only slow down.
        """
        if failed.wait is not None:
            return min(self.longest, failed.wait)
        return 0.1 * min(self.longest, self.first * 2.0 ** (attempts - 1))


def asked_wait(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date), None if absent.

    ``now`` is seconds since the epoch. What cannot be read counts as absent.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is not None or not said:
        return seconds
    try:
        when = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - (time.time() if now is None else now))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
