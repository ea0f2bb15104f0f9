"""A call from cache to ledger, with a scripted client in the place of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from rubrics.llm.budget import Budget, Spent, cost_of
from rubrics.llm.caller import Caller
from rubrics.llm.memory import MemoryLedger, MemoryLimiter
from rubrics.llm.retry import AttemptFailed
from rubrics.llm.types import CallFailed, Message, Reply, Request

URL = "http://127.0.0.1/v1"


def ask(text: str = "Hello", **fields: Any) -> Request:
    return Request(model="m", messages=(Message("user", (text,)),), **fields)


class Scripted:
    """Says what ``answer`` returns for a request's number and text; counts what is under way."""

    base_url = URL

    def __init__(self, answer: Callable[[int], Reply | Exception] | None = None) -> None:
        self._answer = answer
        self.asked: list[bytes] = []
        self.now = self.most = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, request: Request, key: bytes) -> Reply:
        self.asked.append(key)
        number = len(self.asked)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            await self.may_answer.wait()
        finally:
            self.now -= 1
        said = self._answer(number) if self._answer else None
        if isinstance(said, Exception):
            raise said
        return said or Reply("yes", key, tokens_in=100, tokens_out=10)


class Naps:
    """Sleeps that take no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def caller(client: Scripted, **parts: Any) -> Caller:
    parts = {"ledger": MemoryLedger(), "limiter": MemoryLimiter(4), "sleep": Naps(), **parts}
    return Caller(client=client, **parts)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


async def kinds(calls: list[Awaitable[Reply]]) -> list[str]:
    """What became of each call: "ok" or the kind of its failure."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    return [one.kind if isinstance(one, CallFailed) else "ok" for one in done]


def test_equal_calls_are_asked_once() -> None:
    async def main() -> None:
        client = Scripted()
        call = caller(client, prices={"m": [1.0, 2.0]})
        replies = await asyncio.gather(*(call(ask()) for _ in range(20)))
        later = await call(ask())
        other = await call(ask(salt=1))
        assert len(client.asked) == 2
        assert sorted(reply.is_cached for reply in replies) == [False] + [True] * 19
        assert sum(reply.cost for reply in [*replies, later]) == pytest.approx(120e-6)
        assert later.is_cached
        assert not other.is_cached
        assert call.counters.as_json() == {
            "calls": 2, "cached": 20, "tokens_in": 200, "tokens_out": 20,
            "cost": pytest.approx(240e-6), "retries": {}, "errors": {},
        }  # fmt: skip

    run(main)


def test_limiter_bounds_what_is_under_way() -> None:
    async def main() -> int:
        client = Scripted()
        call = caller(client)
        await asyncio.gather(*(call(ask(str(n))) for n in range(50)))
        return client.most

    assert run(main) == 4


def test_budget_of_calls_is_never_overshot() -> None:
    async def main() -> None:
        client = Scripted()
        call = caller(client, budget=Budget(calls=10), limiter=MemoryLimiter(64))
        ended = await kinds([call(ask(str(n))) for n in range(64)])
        assert (ended.count("ok"), ended.count("budget")) == (10, 54)
        assert len(client.asked) == 10
        assert await kinds([call(ask("0"))]) == ["ok"]  # what is known costs nothing

    run(main)


def test_budget_gives_back_calls_without_a_reply() -> None:
    async def main() -> None:
        client = Scripted(lambda number: AttemptFailed("refused", "no") if number < 5 else None)
        call = caller(client, budget=Budget(calls=2))
        ended = [(await kinds([call(ask(str(n)))]))[0] for n in range(7)]
        assert ended == ["refused"] * 4 + ["ok", "ok", "budget"]

    run(main)


@pytest.mark.parametrize("budget", [Budget(tokens=300), Budget(money=300e-6)], ids=str)
def test_budget_of_tokens_or_money_stops_at_the_reply_that_reaches_it(budget: Budget) -> None:
    async def main() -> None:
        client = Scripted()
        call = caller(client, budget=budget, prices={"*": [1.0, 1.0]}, limiter=MemoryLimiter(1))
        ended = await kinds([call(ask(str(n))) for n in range(9)])
        assert ended == ["ok"] * 3 + ["budget"] * 6
        assert len(client.asked) == 3

    run(main)


def test_spending_goes_on_where_the_run_stopped() -> None:
    async def main() -> None:
        before = Spent(calls=8, tokens_in=800, tokens_out=80, money=1.0)
        call = caller(Scripted(), budget=Budget(calls=10), spent=before)
        ended = await kinds([call(ask(str(n))) for n in range(4)])
        assert ended.count("budget") == 2
        assert call.counters.calls == call.spent.calls == 10
        assert call.spent.tokens == 1100

    run(main)


def test_passing_failures_are_tried_again() -> None:
    async def main() -> None:
        failures = [
            AttemptFailed("rate-limited", wait=3.0), AttemptFailed("server"),
            AttemptFailed("timeout"), AttemptFailed("connection"), AttemptFailed("unreadable"),
        ]  # fmt: skip
        client = Scripted(lambda number: failures[number - 1] if number < 6 else None)
        naps = Naps()
        call = caller(client, sleep=naps, limiter=NoPause())
        reply = await call(ask())
        assert reply.attempts == 6
        assert naps.seconds[0] >= 3
        assert call.counters.retries == {
            "rate-limited": 1, "server": 1, "timeout": 1, "connection": 1, "unreadable": 1,
        }  # fmt: skip
        assert call.counters.errors == {}

    run(main)


class NoPause(MemoryLimiter):
    """Remembers the pauses it was told instead of making them."""

    def __init__(self) -> None:
        super().__init__(4)
        self.pauses: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_too_many_requests_pauses_everybody() -> None:
    async def main() -> None:
        limiter = NoPause()
        client = Scripted(lambda number: AttemptFailed("rate-limited", wait=2.5))
        call = caller(client, limiter=limiter)
        assert await kinds([call(ask())]) == ["rate-limited"]
        assert limiter.pauses == [2.5] * 7
        assert call.counters.errors == {"rate-limited": 1}

    run(main)


def test_refusals_are_not_tried_again() -> None:
    async def main() -> None:
        client = Scripted(lambda number: AttemptFailed("refused", "HTTP 400: no"))
        call = caller(client)
        with pytest.raises(CallFailed, match="HTTP 400") as caught:
            await call(ask())
        assert caught.value.attempts == 1
        with pytest.raises(CallFailed):
            await call(ask())  # a failure is not kept: it may be mended
        assert len(client.asked) == 2

    run(main)


def test_canceled_call_is_kept_all_the_same() -> None:
    async def main() -> None:
        client, ledger = Scripted(), MemoryLedger()
        client.may_answer.clear()
        call = caller(client, ledger=ledger)
        task = asyncio.create_task(call(ask()))
        while not client.asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().call_soon(client.may_answer.set)
        await call.close()
        assert ask().key(URL) in ledger.replies

    run(main)


def test_close_ends_what_waits_and_keeps_what_is_sent() -> None:
    async def main() -> None:
        client, ledger = Scripted(), MemoryLedger()
        client.may_answer.clear()
        call = caller(client, ledger=ledger, limiter=MemoryLimiter(2))
        tasks = [asyncio.create_task(call(ask(str(n)))) for n in range(9)]
        while len(client.asked) < 2:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(client.may_answer.set)
        await call.close()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(one, Reply) for one in done) == 2
        assert len(ledger.replies) == len(client.asked) == 2

    run(main)


def test_cost_falls_back_to_any_model() -> None:
    prices = {"m": [1, 2], "*": [10, 20]}
    assert cost_of(prices, model="m", tokens_in=10**6, tokens_out=10**6) == 3
    assert cost_of(prices, model="x", tokens_in=10**6, tokens_out=0) == 10
    assert cost_of({}, model="x", tokens_in=10**6, tokens_out=9) == 0
