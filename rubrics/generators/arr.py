"""ARR, Auto-Rubric as Reward: criteria that make a judge say what people said.

Few-shot: from each labeled pair criteria are proposed, verified by a judge that sees nothing else
of the preference, in both orders and on other pairs, refined where it disagrees, then sorted into
themes. Zero-shot: criteria from each prompt alone. The judge is measured without and with the
rubric on pairs of prompts that nothing was learned from. Source: arXiv 2605.08354.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final

from rubrics.asking import ask, each
from rubrics.generators import arr_questions as questions
from rubrics.generators import arr_structure as structure
from rubrics.generators.arr_figures import (
    Judgment,
    as_figures,
    positional_gap,
    rise,
    wilson,
)
from rubrics.generators.arr_induction import Accepted, Induction, Outcome
from rubrics.generators.arr_judging import Judging, Meter
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.arr_questions import Proposal
from rubrics.generators.arr_subset import as_sides, best_subset
from rubrics.generators.types import CandidateCriterion, Generated, Journal, PreferencePair
from rubrics.judging.templates import Template, load
from rubrics.llm.types import Call, CallFailed

LEAST_LEARNED: Final = 2  # groups: a criterion is verified on a pair of another one
LEARNING: Final = ("propose", "refine", "verify", "select")
JUDGE_TEMPLATE: Final = "pairwise"

CriteriaOf = Callable[[PreferencePair], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to learn from and pairs to measure on, of different groups."""

    learned: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]


class ArrGenerator:
    """rubrics.generators.types.Generator. ``select``: which of the accepted criteria to keep, the
    best first, in place of the options' own. Raises ValueError for options without a model."""

    def __init__(
        self,
        options: ArrOptions,
        *,
        select: structure.Select | None = None,
        template: Template | None = None,
    ) -> None:
        if not options.model:
            raise ValueError("a generator that asks needs a model")
        self.options = options
        limit = options.different
        if options.selection == "coding-rate":
            limit = limit or options.max_criteria
        if select is None and limit:
            select = structure.most_different(limit)
        self._select = select
        self._judging = Judging(options, template or load(JUDGE_TEMPLATE))

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None, journal: Journal
    ) -> Generated:
        """Raises ValueError for too few pairs and for none to call."""
        if call is None:
            raise ValueError("this method asks a model: it needs an endpoint")
        run = _Run(self.options, self._judging, self._select, Meter(call), journal)
        told = _distinct(pairs)
        run.dropped["same-answers"] = len(pairs) - len(told)
        if self.options.mode == "zero-shot":
            return await run.of_prompts(told)
        return await run.of_pairs(split(told, self.options))


class _Run:
    """One call of ``generate``: what it has counted so far."""

    def __init__(
        self,
        options: ArrOptions,
        judging: Judging,
        select: structure.Select | None,
        meter: Meter,
        journal: Journal,
    ) -> None:
        self.options = options
        self.judging = judging
        self.select = select
        self.meter = meter
        self.journal = journal
        self.dropped: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self.stopped = ""
        self.notes: list[str] = []

    async def of_pairs(self, chosen: Split) -> Generated:
        induction = Induction(self.options, self.judging, chosen.learned, self.meter)
        self._stage("propose", "Criteria from pairs, verified on others")
        outcomes = await self._each(list(enumerate(chosen.learned)), induction.of_pair, "pairs")
        self._count(outcomes, chosen)
        lines = structure.said_once([one for outcome in outcomes for one in outcome.accepted])
        lines = structure.selected(lines, self.select, self.dropped)
        lines = structure.supported(await self._themed(lines), self.options, self.dropped)
        lines = await self._best(lines, chosen.learned)
        lines = structure.limited(lines, self.options, self.dropped)
        by_id = {pair.id: pair for pair in chosen.learned}
        criteria = [structure.as_criterion(line, by_id) for line in lines]
        texts = [one.text for one in criteria]
        self.figures["criteria"]["kept"] = len(criteria)
        self.dropped["merged"] = sum(len(line.sources) - 1 for line in lines)
        await self._measure(chosen.held_out, lambda pair: texts)
        return self._generated(criteria)

    async def of_prompts(self, pairs: Sequence[PreferencePair]) -> Generated:
        """Every preference is held out: none was looked at."""
        if not pairs:
            raise ValueError("there are no pairs of different answers")
        by_group: dict[int, PreferencePair] = {}
        for pair in pairs:
            by_group.setdefault(pair.group, pair)
        asked = _drawn(by_group.values(), self.options.pairs, self.options.seed)
        self._stage("propose", "Criteria from prompts")
        told = await self._each(asked, self._of_prompt, "prompts")
        criteria: dict[int, tuple[str, ...]] = {}
        for pair, one in zip(asked, told, strict=True):
            if isinstance(one, Proposal):
                criteria[pair.group] = one.criteria
                self.dropped.update(one.refused)
            else:
                self._lost(one)
        self.figures["prompts"] = {
            "given": len(by_group),
            "asked": len(asked),
            "told": len(criteria),
        }
        if self.options.held_out > 0:
            shown = [pair for pair in pairs if pair.group in criteria]
            held_out = _drawn(shown, self.options.measured, self.options.seed)
            await self._measure(held_out, lambda pair: criteria[pair.group])
        return self._generated(
            [
                CandidateCriterion(text, scope="prompt", group=group)
                for group, texts in criteria.items()
                for text in texts
            ]
        )

    async def _of_prompt(self, pair: PreferencePair) -> Proposal | str:
        """The criteria, or the kind of failure."""
        request = questions.of_prompt(pair.messages, self.options)
        read = partial(questions.read_criteria, most=self.options.criteria)
        try:
            proposal, _ = await ask(
                self.meter.of("propose"), request, read, repairs=self.options.repairs
            )
        except CallFailed as failed:
            return failed.kind
        return proposal

    async def _themed(self, lines: list[structure.Line]) -> list[structure.Line]:
        """Themes are a convenience: without them the criteria stay as they are."""
        if not self.options.structure or not lines:
            return lines
        self._stage("structure", "Themes")
        try:
            return await structure.themed(lines, self.options, self.meter.of("structure"))
        except CallFailed as failed:
            self._lost(failed.kind, counts=False)
            self.notes.append(f"The criteria are not sorted into themes: {failed.detail}.")
            return lines

    async def _best(
        self, lines: list[structure.Line], learned: Sequence[PreferencePair]
    ) -> list[structure.Line]:
        """The subset of lines that makes most verdicts on learning pairs right, where asked for."""
        options = self.options
        self.figures["subset"] = None
        if options.selection != "best-subset" or len(lines) < 2:
            return lines
        pairs = _drawn(learned, options.subset_pairs, options.seed)
        self._stage("select", "The criteria that are right together most often")
        call = self.meter.of("select")

        async def work(pair: PreferencePair) -> list[int]:
            checks = [await self.judging.check(pair, (line.text,), call) for line in lines]
            return [check.judgment.side for check in checks]

        told = await self._each(pairs, work, "pairs")
        for one in told:
            if isinstance(one, CallFailed):
                self._lost(one.kind)
        rows = [one for one in told if not isinstance(one, CallFailed)]
        if not rows:
            self.notes.append("No pair could choose among the criteria: all are kept.")
            return lines
        subset = best_subset(as_sides(rows), limit=options.max_criteria, patience=options.patience)
        self.figures["subset"] = subset.as_dict()
        kept = [lines[at] for at in subset.picked]
        self.dropped["not-in-subset"] += sum(
            len(line.sources) for at, line in enumerate(lines) if at not in subset.picked
        )
        return kept

    async def _measure(self, held_out: Sequence[PreferencePair], criteria_of: CriteriaOf) -> None:
        """The same judge on the same pairs, without a rubric and with it."""
        self.figures["held_out"] = self.figures["positional_gap"] = None
        if not held_out or self.stopped:
            return
        self._stage("measure", "Held-out pairs, without and with the rubric")
        call = self.meter.of("measure")

        async def work(pair: PreferencePair) -> tuple[Judgment, Judgment]:
            criteria = criteria_of(pair)
            before = await self.judging.measure(pair, (), call)
            after = await self.judging.measure(pair, criteria, call) if criteria else before
            return before, after

        told = await self._each(held_out, work, "pairs")
        both = [one for one in told if not isinstance(one, CallFailed)]
        if len(both) < len(told):
            self._lost("budget", counts=False)
        before, after = [one for one, _ in both], [one for _, one in both]
        self.figures["held_out"] = {
            "pairs": len(held_out),
            "before": as_figures(before),
            "after": as_figures(after),
            "rise": rise(before, after),
        }
        gaps = {"before": positional_gap(before), "after": positional_gap(after)}
        self.figures["positional_gap"] = {
            name: {"value": gap.gap, "interval": list(gap.interval), "n": gap.n} if gap else None
            for name, gap in gaps.items()
        }

    def _count(self, outcomes: Sequence[Outcome], chosen: Split) -> None:
        learned_pairs, held_out = chosen.learned, len(chosen.held_out)
        rounds = Counter(outcome.accepted[0].round for outcome in outcomes if outcome.accepted)
        accepted: list[Accepted] = [one for outcome in outcomes for one in outcome.accepted]
        for outcome in outcomes:
            self.dropped.update(outcome.refused)
            if outcome.failed:
                self._lost(outcome.failed)
        learned, explained = len(outcomes), sum(rounds.values())
        self.figures["pairs"] = {
            "learned": learned,
            "held_out": held_out,
            "explained": explained,
            "share": explained / learned,
            "interval": list(wilson(explained, learned)),
            "by_round": [rounds[number] for number in range(self.options.max_rounds + 1)],
        }
        self.figures["pairs_with_reasons"] = sum(
            bool(questions.reasons_of(pair)) for pair in learned_pairs
        )
        self.figures["criteria"] = {
            "proposed": sum(len(outcome.proposed) for outcome in outcomes),
            "verified_as_one": sum(outcome.rubrics for outcome in outcomes),
            "accepted": len(accepted),
        }

    def _lost(self, kind: str, *, counts: bool = True) -> None:
        if counts:
            self.dropped[f"call-{kind}"] += 1
        if kind == "budget":
            self.stopped = "budget"

    def _generated(self, criteria: Iterable[CandidateCriterion]) -> Generated:
        calls = self.meter.calls
        asked = self.figures.get("pairs", {}).get("learned") or self.figures["prompts"]["asked"]
        self.figures["calls"] = dict(sorted(calls.items()))
        self.figures["calls_per_pair"] = sum(calls[name] for name in LEARNING) / asked
        return Generated(
            criteria=tuple(criteria),
            figures=self.figures,
            dropped={reason: n for reason, n in sorted(self.dropped.items()) if n},
            stopped=self.stopped,
            notes=tuple(self.notes),
        )

    def _stage(self, key: str, label: str) -> None:
        self.journal.check()
        self.journal.stage(key, label)

    async def _each(self, items: Sequence[Any], work: Any, unit: str) -> list[Any]:
        def tick(done: int) -> None:
            self.journal.check()
            self.journal.progress(done, len(items), unit)

        return await each(items, work, concurrency=self.options.concurrency, tick=tick)


def split(pairs: Sequence[PreferencePair], options: ArrOptions) -> Split:
    """Groups are drawn, whole, for measuring; pairs of the others for learning.

    Neither depends on the order of ``pairs``. Raises ValueError where fewer than two groups are
    left to learn from.
    """
    groups = sorted({pair.group for pair in pairs}, key=partial(_draw, options.seed, "group"))
    held = math.ceil(options.held_out * len(groups))
    held_groups = set(groups[:held])
    if len(groups) - held < LEAST_LEARNED:
        raise ValueError(
            f"{len(groups)} prompts with pairs of different answers are too few: criteria are "
            f"verified on pairs of other prompts, and {held} are held out"
        )
    return Split(
        _drawn((p for p in pairs if p.group not in held_groups), options.pairs, options.seed),
        _drawn((p for p in pairs if p.group in held_groups), options.measured, options.seed),
    )


def _drawn(pairs: Iterable[PreferencePair], most: int, seed: int) -> tuple[PreferencePair, ...]:
    return tuple(heapq.nsmallest(most, pairs, key=lambda pair: _draw(seed, "pair", pair.id)))


def _draw(seed: int, *key: Hashable) -> bytes:
    return sha256("\x1f".join(map(str, (seed, *key))).encode()).digest()


def _distinct(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Pairs whose answers differ. Raises ValueError where two have one id."""
    ids: Mapping[int, int] = Counter(pair.id for pair in pairs)
    if len(ids) < len(pairs):
        twice = next(id_ for id_, count in ids.items() if count > 1)
        raise ValueError(f"two pairs have the id {twice}")
    return [pair for pair in pairs if pair.chosen != pair.rejected]
