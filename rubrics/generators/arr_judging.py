"""A judge that is given criteria, before pairs whose preference is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rubrics.generators.arr_figures import ORDERS, Judgment, judgment_of
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.types import PreferencePair
from rubrics.judging.llm import LlmJudge
from rubrics.judging.options import LlmOptions
from rubrics.judging.templates import Template
from rubrics.judging.types import Decision, Item
from rubrics.llm.types import Call, CallFailed, Reply, Request

MAX_REASONS: Final = 600  # characters of a judge's reasons in feedback


class Meter:
    """Counts calls by what they are for, those answered by a cache as well."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.calls: Counter[str] = Counter()

    def of(self, purpose: str) -> Call:
        async def call(request: Request) -> Reply:
            self.calls[purpose] += 1
            return await self._call(request)

        return call


@dataclass(frozen=True, slots=True)
class Check:
    """How one pair was judged under some criteria. ``told``: what went wrong, for refining."""

    pair: int
    judgment: Judgment
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judging:
    """Judges pairs as (chosen, rejected) in both orders. ``template`` is read once."""

    options: ArrOptions
    template: Template = field(repr=False)

    async def judge(
        self, pair: PreferencePair, criteria: Sequence[str], call: Call, *, may_tie: bool
    ) -> Decision:
        """Raises CallFailed("budget")."""
        settings: dict[str, Any] = {
            "models": [self.options.judge or self.options.model],
            "criteria": list(criteria),
            "repairs": self.options.repairs,
        }
        judge = LlmJudge(LlmOptions(**settings), template=self.template)
        item = Item(
            pair.id, "pairwise", pair.messages, (pair.chosen, pair.rejected), allow_tie=may_tie
        )
        return await judge.judge(item, call)

    async def check(self, pair: PreferencePair, criteria: Sequence[str], call: Call) -> Check:
        """Whether the criteria alone recover the preference. Raises CallFailed.

        A reply that cannot be read is wrong; a call that failed is no judgment at all.
        """
        decision = await self.judge(pair, criteria, call, may_tie=self.options.ties)
        judgment = judgment_of(pair, decision)
        if judgment.error:
            failed = next((one for one in decision.opinions if one.error == judgment.error), None)
            raise CallFailed(judgment.error, failed.detail if failed else decision.detail)
        return Check(pair.id, judgment, told=() if judgment.is_recovered else _told(decision))

    async def measure(self, pair: PreferencePair, criteria: Sequence[str], call: Call) -> Judgment:
        """A forced choice in both orders. Raises CallFailed("budget")."""
        return judgment_of(pair, await self.judge(pair, criteria, call, may_tie=False))


def _told(decision: Decision) -> tuple[str, ...]:
    """One line per order that did not name the chosen answer: expected, said, and why."""
    lines = []
    where = dict(zip(ORDERS.values(), ("first", "second"), strict=True))
    for one in decision.opinions:
        if one.ranks is not None and one.ranks[0] < one.ranks[1]:
            continue
        shown = f"the preferred answer shown {where.get(one.shown_order, 'somewhere')}"
        if one.error or one.ranks is None:
            said = "gave no verdict that could be read"
        elif one.ranks[0] == one.ranks[1]:
            said = "called a tie"
        else:
            said = "named the other answer"
        why = f" Its reasons: {one.reasoning[:MAX_REASONS]}" if one.reasoning else ""
        lines.append(f"With {shown}, the preferred one was expected and the judge {said}.{why}")
    return tuple(lines)
