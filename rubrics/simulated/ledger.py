"""What a simulated server remembers: charges, attempts, counts. It outlives a restart."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

MOST_KEYS: Final = 50_000  # idempotency keys whose answers are kept
MOST_REQUESTS: Final = 200_000  # requests whose attempts are counted

Value = TypeVar("Value")


class Bounded(Generic[Value]):
    """A mapping that forgets the oldest once it is full."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[bytes, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> Value | None:
        return self._values.get(key)

    def put(self, key: bytes, value: Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Paid:
    """A reply that was charged: what was asked, and what was answered."""

    request: bytes
    completion: dict[str, Any]


@dataclass
class Ledger:
    """Counts of one server. ``charged`` counts replies that cost tokens, delivered or not."""

    paid: Bounded[Paid] = field(default_factory=lambda: Bounded(MOST_KEYS))
    charges: Bounded[int] = field(default_factory=lambda: Bounded(MOST_KEYS))
    attempts: Bounded[int] = field(default_factory=lambda: Bounded(MOST_REQUESTS))
    requests: int = 0
    completed: int = 0
    charged: int = 0
    replayed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    in_flight: int = 0
    high_water: int = 0
    charged_per_key_max: int = 0
    by_model: Counter[str] = field(default_factory=Counter)
    at_once: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def attempt(self, request: bytes) -> int:
        """How often this request was here before."""
        before = self.attempts.get(request) or 0
        self.attempts.put(request, before + 1)
        return before

    def enter(self, model: str) -> None:
        self.at_once[model] += 1
        self.in_flight += 1
        self.high_water = max(self.high_water, self.in_flight)

    def leave(self, model: str) -> None:
        self.at_once[model] -= 1
        self.in_flight -= 1

    def charge(self, key: bytes, request: bytes, completion: dict[str, Any]) -> None:
        """Bill a reply. ``key`` is the caller's Idempotency-Key, empty where there was none."""
        usage = completion["usage"]
        self.charged += 1
        self.tokens_in += usage["prompt_tokens"]
        self.tokens_out += usage["completion_tokens"]
        if key:
            self.paid.put(key, Paid(request, completion))
            times = (self.charges.get(key) or 0) + 1
            self.charges.put(key, times)
            self.charged_per_key_max = max(self.charged_per_key_max, times)

    def stats(self) -> dict[str, Any]:
        """Counts since the ledger was opened."""
        return {
            "requests": self.requests,
            "completed": self.completed,
            "charged": self.charged,
            "replayed": self.replayed,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "in_flight": self.in_flight,
            "high_water": self.high_water,
            "charged_per_key_max": self.charged_per_key_max,
            "by_model": dict(self.by_model),
            "faults": dict(self.faults),
        }
