"""What a run may spend, what it has spent, what a call costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rubrics.llm.types import CallFailed, Reply

PER: Final = 1_000_000  # prices are per so many tokens
ANY_MODEL: Final = "*"

Prices = Mapping[str, Sequence[float]]


def cost_of(prices: Prices, *, model: str, tokens_in: int, tokens_out: int) -> float:
    """What a call costs, in the unit of ``prices``: ``{model: [per million in, per million out]}``.

    "*" prices any model that is not named; without it such a model is free.
    """
    price = prices.get(model) or prices.get(ANY_MODEL) or (0.0, 0.0)
    return (tokens_in * price[0] + tokens_out * price[1]) / PER


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a run; None is no limit. ``tokens`` counts those sent and those received."""

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None


@dataclass(slots=True)
class Spent:
    """What was paid for: replies, their tokens, their cost."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


class Spending:
    """A budget in use. A call is reserved before it is sent, so that concurrent calls stay within.

    How many tokens a call takes is known afterwards: tokens and money stop at the first reply that
    reaches the limit, and what was sent beside it is still paid.
    """

    def __init__(self, budget: Budget, spent: Spent | None = None) -> None:
        self.budget = budget
        self.spent = spent or Spent()
        self._reserved = 0

    def reserve(self) -> None:
        """Take one call out of the budget. Raises CallFailed("budget")."""
        calls = self.budget.calls
        if calls is not None and self.spent.calls + self._reserved >= calls:
            raise CallFailed("budget", f"the run's budget of {calls:,} calls is spent")
        self.check()
        self._reserved += 1

    def check(self) -> None:
        """Raises CallFailed("budget") when tokens or money are spent."""
        tokens, money = self.budget.tokens, self.budget.money
        if tokens is not None and self.spent.tokens >= tokens:
            raise CallFailed("budget", f"the run's budget of {tokens:,} tokens is spent")
        if money is not None and self.spent.money >= money:
            raise CallFailed("budget", f"the run's budget of {money:,g} is spent")

    def settle(self, reply: Reply) -> None:
        """A reserved call was answered and is paid."""
        self._reserved -= 1
        self.spent.calls += 1
        self.spent.tokens_in += reply.tokens_in
        self.spent.tokens_out += reply.tokens_out
        self.spent.money += reply.cost

    def release(self) -> None:
        """A reserved call had no reply: nothing is paid."""
        self._reserved -= 1
