"""The judge that asks a language model: questions, calls, repairs, one decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rubrics.judging import combine, logprobs, reading, scored
from rubrics.judging.options import LlmOptions
from rubrics.judging.orders import Order, balanced, drawn, pairs_both, pairs_once
from rubrics.judging.prompts import Question, answer_limit, ask, clean, lines_of, one_line
from rubrics.judging.rationale import ordinal
from rubrics.judging.templates import BY_KIND, Template, from_text, template_of
from rubrics.judging.types import Decision, Item, Opinion, Scores
from rubrics.llm.types import Call, CallFailed, Message, Reply, Request

MAX_TOKENS: Final = 32_768
MAX_QUOTED: Final = 4_000  # characters of an unreadable reply that are shown to its author again
CUT: Final = "length"  # finish_reason
REPAIR: Final = (
    "That reply could not be read: {why}. Reply again with the JSON object asked for and nothing "
    "else."
)
UNSUPPORTED: Final = "unsupported"  # beside rubrics.llm.types.FAILURES: no call was made


@dataclass(frozen=True, slots=True)
class _Asked:
    """One opinion to be had: of whom, for which time, on what."""

    model: str
    repeat: int
    question: Question


class LlmJudge:
    """rubrics.judging.types.AskingJudge over any Call. It holds no state between items.

    ``template``: the text a judge version stored (or a Template); None for the files as they are
    now. Raises ValueError for no model, rubrics.judging.templates.BadTemplate for a template that
    is not there or cannot be filled.
    """

    def __init__(self, options: LlmOptions, *, template: Template | str | None = None) -> None:
        if not options.models:
            raise ValueError("a judge that asks needs at least one model")
        self.options = options
        if isinstance(template, str):
            template = from_text(template)
        self.template = template or template_of(options)
        self.template.check()

    def mode(self, item: Item) -> str:
        """A task that asks for ratings or a checklist is asked that, any other the judge's mode."""
        return item.kind if item.kind in BY_KIND else self.options.mode

    def plan(self, item: Item) -> int:
        if self._unsupported(item):
            return 0
        per_repeat = [len(self._orders(item, repeat)) for repeat in range(self.options.repeats)]
        return len(self.options.models) * sum(per_repeat)

    async def judge(self, item: Item, call: Call) -> Decision:
        if detail := self._unsupported(item):
            return Decision(None, error=UNSUPPORTED, detail=detail)
        asked = self._asked(item)
        # Every call is waited for, also where the budget ended one: what is paid is in the ledger.
        told = await asyncio.gather(
            *(self._opinion(item, one, call) for one in asked), return_exceptions=True
        )
        opinions = []
        for one in told:
            if isinstance(one, BaseException):
                raise one
            opinions.append(one)
        decision = self._decide(item, opinions)
        if cut := _cut_detail(item, max(len(one.question.shown) for one in asked)):
            decision = replace(decision, detail=f"{decision.detail} {cut}".strip())
        return decision

    def _unsupported(self, item: Item) -> str:
        """Why an item cannot be asked about; empty where it can."""
        mode = self.mode(item)
        if not item.candidates:
            return "the task has no answers"
        if mode not in BY_KIND and len(item.candidates) < 2:
            return "one answer alone cannot be compared"
        if mode in BY_KIND and not lines_of(item, mode=mode, options=self.options):
            return "nothing is named to rate" if mode == "rating" else "nothing is named to check"
        if not self.template.has(mode):
            return f"the judge's template does not ask {mode}"
        return ""

    def _orders(self, item: Item, repeat: int) -> Sequence[Order]:
        k, mode = len(item.candidates), self.mode(item)
        if mode in (*BY_KIND, "pointwise"):
            return [(place,) for place in range(k)]
        if self.options.orders == "both":
            return pairs_both(k) if mode == "pairwise" else balanced(k)
        if mode == "pairwise":
            return pairs_once(k, item=item.id, repeat=repeat)
        return [drawn(k, item=item.id, repeat=repeat)]

    def _asked(self, item: Item) -> list[_Asked]:
        """All that is to be asked; what differs in model or repeat only shares its question."""
        questions: dict[Order, Question] = {}
        asked = []
        for repeat in range(self.options.repeats):
            for shown in self._orders(item, repeat):
                if shown not in questions:
                    questions[shown] = ask(
                        item,
                        shown,
                        mode=self.mode(item),
                        options=self.options,
                        template=self.template,
                    )
                asked += [_Asked(model, repeat, questions[shown]) for model in self.options.models]
        return asked

    def _request(self, asked: _Asked) -> Request:
        options, question = self.options, asked.question
        reads_tokens = question.mode == "pairwise" and not options.reasoning
        return Request(
            model=asked.model,
            messages=question.messages,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            seed=asked.repeat if options.temperature > 0 else None,
            schema=question.schema,
            top_logprobs=logprobs.TOP if reads_tokens else 0,
            salt=asked.repeat,
        )

    async def _opinion(self, item: Item, asked: _Asked, call: Call) -> Opinion:
        """Ask, and ask again where the reply was cut (once, for twice the length) or unreadable."""
        shown = asked.question.shown
        opinion = Opinion(shown, None, repeat=asked.repeat, model=asked.model)
        request = self._request(asked)
        repairs, is_lengthened = self.options.repairs, False
        while True:
            try:
                reply = await call(request)
            except CallFailed as failed:
                if failed.kind == "budget":
                    raise
                return replace(opinion, error=failed.kind, detail=failed.detail)
            opinion = replace(opinion, call_key=reply.key)
            if reply.finish_reason == CUT and not reading.is_whole(reply.text):
                if is_lengthened or request.max_tokens >= MAX_TOKENS:
                    detail = f"cut at {request.max_tokens:,} tokens"
                    return replace(opinion, error="cut", detail=detail)
                is_lengthened = True
                request = replace(request, max_tokens=min(2 * request.max_tokens, MAX_TOKENS))
                continue
            try:
                return _read(opinion, item, asked.question, reply)
            except reading.Unreadable as error:
                if not repairs:
                    return replace(opinion, error="unreadable", detail=str(error))
                repairs -= 1
                request = _asked_again(request, asked.question, reply, str(error))

    def _decide(self, item: Item, opinions: list[Opinion]) -> Decision:
        mode, options = self.mode(item), self.options
        is_forced = item.kind == "best-worst"
        band = 0.0 if is_forced else options.tie_band
        if mode == "rating":
            return scored.of_ratings(item, opinions)
        if mode == "checklist":
            lines = lines_of(item, mode=mode, options=options)
            return scored.of_checks(item, opinions, lines)
        if mode == "pointwise":
            decision = scored.of_scores(item, opinions, tie_band=band)
        else:
            decision = combine.of_orders(
                item, opinions, combine=options.combine, tie_band=band, orders=options.orders
            )
        return combine.best_worst(decision) if is_forced else decision


def _asked_again(request: Request, question: Question, reply: Reply, why: str) -> Request:
    """The same question with the reply that could not be read and what it lacks."""
    said = clean(reply.text[:MAX_QUOTED])
    quoted = [Message("assistant", (said,))] if said.strip() else []  # none takes an empty turn
    note = Message("user", (REPAIR.format(why=why),))
    return replace(request, messages=(*question.messages, *quoted, note))


def _read(opinion: Opinion, item: Item, question: Question, reply: Reply) -> Opinion:
    """A reply as an opinion in canonical order. Raises rubrics.judging.reading.Unreadable."""
    k, shown, text = len(item.candidates), question.shown, reply.text
    if question.mode == "pairwise":
        return _read_pair(opinion, k, reply)
    if question.mode == "listwise":
        by_slot, scores, reasoning = reading.read_list(text, len(shown))
        listed = {scored.SCORE: _canonical(scores, shown, k, empty=None)}
        ranks = tuple(_canonical(by_slot, shown, k, empty=0))
        return replace(opinion, ranks=ranks, scores=listed, reasoning=reasoning)
    if question.mode == "rating":
        values, reasoning = reading.read_ratings(
            text, list(map(one_line, question.lines)), low=item.low, high=item.high
        )
        told: dict[str, Any] = dict(zip(question.lines, values, strict=True))
    elif question.mode == "checklist":
        checks, reasoning = reading.read_checks(text, len(question.lines))
        told = dict(zip(question.lines, checks, strict=True))
    else:
        score, reasoning = reading.read_score(text)
        told = {scored.SCORE: score}
    each: Scores = {name: _canonical([value], shown, k, empty=None) for name, value in told.items()}
    return replace(
        opinion, ranks=tuple(_canonical([1], shown, k, empty=0)), scores=each, reasoning=reasoning
    )


def _read_pair(opinion: Opinion, k: int, reply: Reply) -> Opinion:
    """``probability`` is of the one of the two that is earlier in canonical order."""
    said = reading.read_pair(reply.text)
    by_slot = [1, 1]
    first_wins = None
    if said.winner is not None:
        by_slot[1 - said.winner] = 2
        if said.sure is not None:
            first_wins = said.sure if said.winner == 0 else 1 - said.sure
    by_token = logprobs.first_wins(reply)
    if by_token is not None:
        first_wins = by_token
    shown = opinion.shown_order
    is_turned = shown[0] > shown[1]
    return replace(
        opinion,
        ranks=tuple(_canonical(by_slot, shown, k, empty=0)),
        strength=said.strength if said.winner is not None else 0,
        probability=1 - first_wins if is_turned and first_wins is not None else first_wins,
        reasoning=said.reasoning,
    )


def _canonical(by_slot: Sequence[Any], shown: Order, k: int, *, empty: Any) -> list[Any]:
    """Values per slot in canonical order; ``empty`` for those that were not shown."""
    values = [empty] * k
    for value, place in zip(by_slot, shown, strict=True):
        values[place] = value
    return values


def _cut_detail(item: Item, shown: int) -> str:
    """Which answers the judge saw without their middle, for people to read."""
    limit = answer_limit(shown)
    lengths = {at: len(one.text) for at, one in enumerate(item.candidates)}
    return " ".join(
        f"The {ordinal(at)} answer was shown without {length - limit:,} of its {length:,} "
        "characters."
        for at, length in lengths.items()
        if length > limit
    )
