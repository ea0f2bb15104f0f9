"""The loop of a judge's run by itself: bounded, without gaps, ended by whoever may end it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from annotator.queries.judging import Unshowable
from annotator.services.judging_pump import BROKEN_AFTER, DOWN_AFTER, Ended, Pump, Said
from rubrics.judging.types import Candidate, Decision, Item
from rubrics.llm.types import CallFailed


def item(number: int) -> Item:
    return Item(number, "pairwise", [], (Candidate("a"), Candidate("b")))


class World:
    """Items from 1 to ``count`` in chunks, what was written, and how many were read too early."""

    def __init__(self, count: int, *, chunk: int = 10) -> None:
        self.left = list(range(1, count + 1))
        self.chunk = chunk
        self.said: dict[int, Decision] = {}
        self.read = self.most_waiting = 0
        self.stop = False

    def next(self) -> Sequence[Item | Unshowable]:
        now, self.left = self.left[: self.chunk], self.left[self.chunk :]
        self.read += len(now)
        self.most_waiting = max(self.most_waiting, self.read - len(self.said))
        return [item(number) for number in now]

    def write(self, said: Said) -> None:
        for task, decision in said:
            assert task not in self.said, "written twice"
            self.said[task] = decision

    def pump(self, width: int = 4) -> Pump:
        return Pump(read=self.next, write=self.write, look=lambda: self.stop, width=width)


GOOD = Decision((1, 2), strength=1)


def test_every_item_is_judged_and_written_once() -> None:
    world = World(95)
    at_once = most = 0

    async def judge(_: Item) -> Decision:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return GOOD

    async def main() -> Ended:
        return await world.pump(width=7).run(judge)

    assert asyncio.run(main()) == Ended()
    assert sorted(world.said) == list(range(1, 96))
    assert most == 7, "as many at once as it may, never more"


def test_next_chunk_is_there_before_this_one_ends() -> None:
    """No dip between chunks: while the last item of a chunk hangs, the next ones are judged."""
    world = World(30, chunk=10)
    begun: list[int] = []

    async def main() -> Ended:
        gate = asyncio.Event()

        async def judge(one: Item) -> Decision:
            begun.append(one.id)
            if one.id == 10:
                await gate.wait()
            if one.id == 25:
                gate.set()
            return GOOD

        return await world.pump(width=2).run(judge)

    assert asyncio.run(main()) == Ended()
    assert 25 in begun
    assert len(world.said) == 30


def test_memory_does_not_grow_with_the_project() -> None:
    """Read ahead is one chunk, in flight is the width, waiting to be written is bounded."""
    world = World(6_000, chunk=50)

    async def judge(_: Item) -> Decision:
        await asyncio.sleep(0)
        return GOOD

    async def main() -> Ended:
        return await world.pump(width=16).run(judge)

    asyncio.run(main())
    assert len(world.said) == 6_000
    assert world.most_waiting < 1_000


def test_stop_ends_at_once_and_keeps_what_is_judged() -> None:
    world = World(1_000)

    async def judge(one: Item) -> Decision:
        if one.id > 20:
            world.stop = True
            await asyncio.Event().wait()  # an endpoint that never answers
        return GOOD

    async def main() -> Ended:
        return await world.pump().run(judge)

    assert asyncio.run(main()) == Ended("stopped")
    assert sorted(world.said) == list(range(1, 21))


def test_spent_budget_waits_for_what_is_paid() -> None:
    world = World(100)

    async def main() -> Ended:
        spent = asyncio.Event()

        async def judge(one: Item) -> Decision:
            if one.id == 3:
                spent.set()
                raise CallFailed("budget", "ten calls are spent")
            if one.id < 5:
                await spent.wait()
                await asyncio.sleep(0.05)  # its calls were on the wire
                return GOOD
            raise CallFailed("budget")

        return await world.pump(width=4).run(judge)

    assert asyncio.run(main()) == Ended("budget", "ten calls are spent")
    assert sorted(world.said) == [1, 2, 4]


def test_item_on_which_the_judge_breaks_is_a_failure_of_that_item() -> None:
    world = World(10)

    async def judge(one: Item) -> Decision:
        if one.id == 4:
            raise ZeroDivisionError
        return GOOD

    async def main() -> Ended:
        return await world.pump().run(judge)

    assert asyncio.run(main()) == Ended()
    assert world.said[4].error == "internal"
    assert world.said[4].detail == "ZeroDivisionError"
    assert len(world.said) == 10


def test_judge_that_breaks_on_everything_is_given_up() -> None:
    world = World(1_000)

    async def judge(_: Item) -> Decision:
        raise ZeroDivisionError

    async def main() -> Ended:
        return await world.pump().run(judge)

    assert asyncio.run(main()) == Ended("broken", "ZeroDivisionError")
    assert BROKEN_AFTER <= len(world.said) < 100


def test_endpoint_that_is_down_is_given_up_and_one_that_comes_back_is_not() -> None:
    async def judge(one: Item) -> Decision:
        if one.id % DOWN_AFTER == 0:
            return GOOD
        return Decision(None, error="connection", detail="refused")

    async def down(_: Item) -> Decision:
        return Decision(None, error="connection", detail="refused")

    async def main(world: World, judging: object) -> Ended:
        return await world.pump(width=1).run(judging)

    flaky, dead = World(500), World(500)
    assert asyncio.run(main(flaky, judge)) == Ended()
    assert len(flaky.said) == 500
    assert asyncio.run(main(dead, down)) == Ended("down", "refused")
    assert DOWN_AFTER <= len(dead.said) < 2 * DOWN_AFTER


def test_unshowable_items_fail_with_their_reason() -> None:
    world = World(0)
    given = [[Unshowable(7, "picture", "gone"), item(8)], []]

    async def judge(_: Item) -> Decision:
        return GOOD

    async def main() -> Ended:
        pump = Pump(
            read=lambda: given.pop(0) if given else [],
            write=world.write,
            look=lambda: False,
            width=2,
        )
        return await pump.run(judge)

    asyncio.run(main())
    assert (world.said[7].error, world.said[7].detail) == ("picture", "gone")
    assert world.said[8] == GOOD


@pytest.mark.parametrize("where", ["read", "write", "look"])
def test_what_the_database_raises_ends_the_run(where: str) -> None:
    world = World(10_000)

    def broken(*_: object) -> bool:
        raise ValueError(where)

    async def judge(_: Item) -> Decision:
        await asyncio.sleep(0.001)
        return GOOD

    async def main() -> None:
        work = {"read": world.next, "write": world.write, "look": lambda: False, where: broken}
        await Pump(**work, width=4).run(judge)

    with pytest.raises(ValueError, match=where):
        asyncio.run(main())
