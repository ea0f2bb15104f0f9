"""The judge that checks criteria one by one: every answer under every criterion, then a sum.

A criterion is asked of one answer at a time (rubrics.verifying), or checked by a program without a
call. No answer is ever shown beside another, so there is no order that could sway the judge, and
what stands beside a criterion does not change its verdict.

With s in 0..1 how far an answer meets a criterion of weight w, signed for a yes, its good is s
where w > 0 and 1 - s where w < 0, and its total the mean of its goods by the size of the weights.
The totals of two answers differ by their weighted sums' difference over the sum of all sizes.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics import asking
from rubrics.asking import each
from rubrics.judging import combine, scored
from rubrics.judging.llm import UNSUPPORTED
from rubrics.judging.rubric_options import RubricLine, RubricOptions, key_of
from rubrics.judging.rubric_rationale import rationale
from rubrics.judging.rubric_verdicts import Heard, Told, failed, only, plain
from rubrics.judging.rubric_verdicts import programs as programs_say
from rubrics.judging.types import Decision, Item, Opinion
from rubrics.llm.types import FAILURES, Call, CallFailed
from rubrics.verifying import Response, VerifyOptions, verify

AT_ONCE: Final = 16  # calls of one item under way, or waiting for their turn
STEEPNESS: Final = 6.0  # as of programs: totals a third apart are a probability of .88
CLEAR: Final = (0.25, 0.5)  # gaps of two totals from which a preference is clear, very clear
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call: which line of which candidate, of which model."""

    place: int
    line: int
    model: str


class RubricJudge:
    """rubrics.judging.types.AskingJudge over any Call. It holds no state between items.

    Raises ValueError for no criteria, and for no model where a criterion needs one.
    """

    def __init__(self, options: RubricOptions, *, template: Any = None) -> None:
        if not options.criteria:
            raise ValueError("a judge of this kind needs at least one criterion")
        if needs_model(options) and not options.models:
            raise ValueError("criteria that a model checks need at least one model")
        self.options = options
        self._known = {key_of(one.text): one for one in options.criteria}

    def plan(self, item: Item) -> int:
        if self._unsupported(item):
            return 0
        asked = sum(line.verifier == "llm" for line in self._lines(item))
        return len(self.options.models) * asked * len(item.candidates)

    async def judge(self, item: Item, call: Call) -> Decision:
        if detail := self._unsupported(item):
            return Decision(None, error=UNSUPPORTED, detail=detail)
        lines = self._lines(item)
        opinions = await self._ask(item, lines, call)
        if broken := failed(opinions):
            return broken
        by_program = await asyncio.to_thread(programs_say, item, lines)
        told = Told(item, lines, opinions, by_program)
        if item.kind == "checklist":
            return self._check(told)
        if item.kind == "rating":
            return self._rate(told)
        return self._decide(told)

    def _unsupported(self, item: Item) -> str:
        """Why an item cannot be judged; empty where it can."""
        if not item.candidates:
            return "the task has no answers"
        if item.kind not in ("rating", "checklist") and len(item.candidates) < 2:
            return "one answer alone cannot be compared"
        if item.kind == "rating" and not item.attributes:
            return "nothing is named to rate"
        lines = self._lines(item)
        if not lines:
            return "none of the lines is a criterion of this judge, and it has no model to ask"
        is_blind = all(one.picture is not None and not one.text.strip() for one in item.candidates)
        if is_blind and all(line.verifier == "program" for line in lines):
            return "programs read text, and the answers are pictures alone"
        return ""

    def _lines(self, item: Item) -> list[RubricLine]:
        """What is checked: a checklist's own lines where it has some, else the judge's criteria.

        A line in the judge's words is checked as the judge has it, any other by the model.
        """
        asked = (*item.criteria, *item.failures) if item.kind == "checklist" else ()
        if not asked:
            return list(self.options.criteria)
        found = [(text, self._known.get(key_of(text))) for text in dict.fromkeys(asked)]
        if not self.options.models:
            found = [(text, line) for text, line in found if line is not None]
        return [
            # The name of the line is the task's, whatever it says: verdicts are kept by it.
            RubricLine.model_construct(
                text=text,
                weight=1.0,
                verifier=line.verifier if line else "llm",
                program=line.program if line else "",
            )
            for text, line in found
        ]

    async def _ask(self, item: Item, lines: list[RubricLine], call: Call) -> list[Opinion]:
        """Every line that a model checks, of every candidate and model. Raises budget failures."""
        asked = [
            _Asked(place, at, model)
            for place in range(len(item.candidates))
            for at, line in enumerate(lines)
            if line.verifier == "llm"
            for model in self.options.models
        ]

        async def one(what: _Asked) -> Opinion:
            return await self._opinion(item, lines[what.line], what, call)

        told = await each(asked, one, concurrency=AT_ONCE)
        spent = [one for one in told if isinstance(one, CallFailed)]
        if spent:  # those of the budget: others are opinions with their error
            raise max(spent, key=lambda one: one.detail != FAILURES[one.kind])
        return [said for said in told if isinstance(said, Opinion)]

    async def _opinion(self, item: Item, line: RubricLine, what: _Asked, call: Call) -> Opinion:
        heard = Heard(call)
        options = self.options
        verdict = await verify(
            line.text,
            Response(item.messages, item.candidates[what.place]),
            heard,
            options=VerifyOptions(
                model=what.model,
                concise=options.concise,
                not_applicable="half" if item.kind == "checklist" else options.not_applicable,
                max_tokens=options.max_tokens,
                repairs=options.repairs,
            ),
        )
        k = len(item.candidates)
        score = verdict.score
        if item.kind == "checklist" and not verdict.error:
            score = plain(verdict.score, verdict.neither)
        opinion = Opinion(
            shown_order=(what.place,),
            ranks=None if verdict.error else tuple(int(at == what.place) for at in range(k)),
            repeat=what.line,
            model=what.model,
            scores=None if verdict.error else {line.text: only(score, what.place, k)},
            call_key=verdict.call_key or heard.key,
        )
        if verdict.error:
            detail = heard.detail or FAILURES[verdict.error]
            opinion = replace(opinion, error=verdict.error, detail=detail)
        return opinion

    def _decide(self, told: Told) -> Decision:
        weights = np.array([line.weight for line in told.lines])
        if unread := told.unread(weights):
            return unread
        goods = self._goods(told, weights)
        sizes = np.abs(np.sign(weights) if self.options.total == "share" else weights)
        totals = _totals(goods, sizes)
        if totals is None:
            return told.undecided(UNSUPPORTED, "none of the criteria applies to these answers")
        item = told.item
        is_forced = item.kind == "best-worst"
        band = self.options.tie_band if item.allow_tie and not is_forced else 0.0
        ranks = combine.places(totals.tolist(), band=band)
        decision = self._decision(told, ranks, totals, goods=goods, sizes=sizes)
        return combine.best_worst(decision) if is_forced else decision

    def _goods(self, told: Told, weights: Array) -> Array:
        """How far each answer does right by each criterion, (answers, criteria), NaN not known."""
        goods = np.where(weights >= 0, told.values, 1 - told.values)
        if self.options.total == "share":
            sides = np.where(np.isnan(goods), np.nan, np.sign(goods - 0.5))
            goods = (1 + sides) / 2  # met, not met, or neither: one half
        return goods

    def _decision(
        self,
        told: Told,
        ranks: tuple[int, ...],
        totals: Array,
        *,
        goods: Array,
        sizes: Array,
        ratings: dict[str, list[int | None]] | None = None,
    ) -> Decision:
        plain = totals.tolist()
        chances = [[_sigmoid(STEEPNESS * (a - b)) for b in plain] for a in plain]
        strengths = combine.strengths(chances) if len(plain) > 1 else []
        is_pair = len(plain) == 2
        strength = combine.widest(ranks)
        if is_pair and strength:
            strength = 1 + sum(abs(plain[0] - plain[1]) >= least for least in CLEAR)
        probability = chances[0][1] if is_pair else None
        summary = Opinion(
            shown_order=tuple(range(len(plain))),
            ranks=ranks,
            strength=strength,
            probability=probability,
            scores={scored.SCORE: [round(one, 6) for one in plain], **told.by_program()},
        )
        return Decision(
            ranks,
            strength=strength,
            ratings=ratings,
            rationale=rationale(told.lines, told.values, goods, sizes, totals),
            confidence=max(strengths) if strengths else None,
            probability=probability,
            opinions=(*told.opinions, summary),
            detail=told.left_out(),
        )

    def _rate(self, told: Told) -> Decision:
        """Attributes that are a criterion by it, on the scale; else the first one by the total."""
        item = told.item
        weights = np.array([line.weight for line in told.lines])
        if unread := told.unread(weights):
            return unread
        goods = self._goods(told, weights)
        sizes = np.abs(np.sign(weights) if self.options.total == "share" else weights)
        totals = _totals(goods, sizes)
        if totals is None:
            return told.undecided(UNSUPPORTED, "none of the criteria applies to these answers")
        columns = {key_of(line.text): at for at, line in enumerate(told.lines)}
        rated: dict[str, Array] = {
            name: told.values[:, columns[key_of(name)]]
            for name in item.attributes
            if key_of(name) in columns
        } or {item.attributes[0]: totals}
        ratings = {
            name: [_on_scale(one, item) for one in rated.get(name, np.full(len(totals), np.nan))]
            for name in item.attributes
        }
        first = np.array([-1.0 if one is None else one for one in ratings[item.attributes[0]]])
        ranks = combine.places((first if first.min() >= 0 else totals).tolist(), band=0.0)
        return self._decision(told, ranks, totals, goods=goods, sizes=sizes, ratings=ratings)

    def _check(self, told: Told) -> Decision:
        """A yes where it is likelier than a no; a line that nobody could check has no answer."""
        item = told.item
        if unread := told.unread(np.ones(len(told.lines))):
            return unread
        lines = dict.fromkeys((*item.criteria, *item.failures) or (one.text for one in told.lines))
        checks: dict[str, list[int | None]] = {
            line: [None] * len(item.candidates) for line in lines
        }
        for line, column in zip(told.lines, told.values.T, strict=True):
            checks[line.text] = [
                None if math.isnan(one) else int(one > 0.5) for one in column.tolist()
            ]
        if all(one is None for values in checks.values() for one in values):
            return told.undecided(UNSUPPORTED, "none of the lines applies to these answers")
        decision = scored.of_checked(item, told.opinions, checks)
        return replace(decision, detail=told.left_out())


def needs_model(options: RubricOptions) -> bool:
    """Whether any of the criteria is a model's to check."""
    return any(one.verifier == "llm" for one in options.criteria)


def question_text() -> str:
    """The question as its file has it now: what a judge of this kind keeps the hash of."""
    parts = asking.template("verify")
    return f"=== system ===\n{parts['system']}\n=== user ===\n{parts['user']}\n"


def _totals(goods: Array, sizes: Array) -> Array | None:
    """(answers,) in 0..1; None where no criterion that counts applies to any answer.

    A criterion that applies to some answers only counts for the others as it does for those on
    average: it speaks for neither side.
    """
    applies = ~np.isnan(goods)
    known = applies.any(axis=0) & (sizes > 0)
    if not known.any():
        return None
    means = np.nanmean(goods[:, known], axis=0)
    filled = np.where(applies[:, known], goods[:, known], means)
    found: Array = filled @ sizes[known] / sizes[known].sum()
    return found


def _on_scale(value: float, item: Item) -> int | None:
    if math.isnan(value):
        return None
    return math.floor(item.low + value * (item.high - item.low) + 0.5)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
