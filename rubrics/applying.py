"""A rubric at work on one response or one pair: each criterion's verdict with its reason, the total.

Whoever can check a criterion is asked: a program at once, a language model through a call, a
person or a reward model only as far as the caller knows what they said. What nobody knows is
unknown and takes no part in a total.

A criterion has a score in [0, 1] of each response: P(yes), a "does not apply" as one half
(rubrics.verifying), a program's share. The weighted sum counts worth * score over the criteria
that are known of every response, so that the margin of a pair is the difference of its two sums,
as rubrics.sheet has it. The share satisfied counts verdicts: yes where a yes speaks for the
answer, no where it speaks against it, among the criteria that apply and are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from rubrics.asking import each
from rubrics.generators.types import Verifier
from rubrics.judging.types import Candidate
from rubrics.llm.types import FAILURES, Call, CallFailed
from rubrics.programs import PROGRAMS
from rubrics.programs.case import Case, Prompt
from rubrics.programs.evaluate import compute
from rubrics.programs.seen import explain
from rubrics.sheet import EVEN
from rubrics.verifying import Response, VerifyOptions, verify
from rubrics.verifying import Verdict as Verified

YES: Final = "yes"
NO: Final = "no"
NEITHER: Final = "n/a"
UNKNOWN: Final = ""
SAYS_YES: Final = 0.5  # a share from here on is a yes
NAMES: Final = ("a", "b")
Said = Literal["yes", "no", "n/a", ""]
Messages = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A criterion as it is applied. ``worth`` is what a yes counts, signed.

    ``program`` is a key of rubrics.programs where a program checks. ``outside``: in words why it
    does not concern this prompt, empty where it does.
    """

    id: int
    text: str
    worth: float
    verifier: Verifier = "llm"
    program: str = ""
    outside: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of one response under one criterion.

    ``said`` empty: unknown. ``score`` in [0, 1], None where unknown or out of scope;
    ``probability`` of a yes, where the checker gives one. ``by`` names who checked. ``error`` is
    a key of rubrics.llm.types.FAILURES where a call failed.
    """

    said: Said
    score: float | None = None
    probability: float | None = None
    reason: str = ""
    by: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule and its findings, in the order of the responses."""

    rule: Rule
    findings: tuple[Finding, ...]

    @property
    def is_counted(self) -> bool:
        """Whether it is known of every response, and so takes part in the weighted sum."""
        return all(one.score is not None for one in self.findings)

    @property
    def difference(self) -> float | None:
        """What it adds to the margin of a pair, positive for the first; None where unknown."""
        if len(self.findings) != len(NAMES) or not self.is_counted:
            return None
        first, second = (one.score or 0.0 for one in self.findings)
        return self.rule.worth * (first - second)


@dataclass(frozen=True, slots=True)
class Total:
    """Of one response: ``met`` of ``of`` criteria that apply and are known; ``weighted`` sum.

    ``not_applicable`` and ``unknown`` count the others.
    """

    met: int
    of: int
    weighted: float
    not_applicable: int
    unknown: int

    @property
    def share(self) -> float | None:
        return self.met / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which response of a pair comes out first. ``winner`` None: no criterion is known of both.

    ``margin`` is the weighted sum of the first minus that of the second, over ``counted``
    criteria, ``most`` the largest it could be.
    """

    winner: Literal["a", "b", "even"] | None
    margin: float
    counted: int
    most: float


@dataclass(frozen=True, slots=True)
class Applied:
    """Rows in the order of the rules, a total per response, the outcome of a pair."""

    rows: tuple[Row, ...]
    totals: tuple[Total, ...]
    outcome: Outcome | None

    @property
    def failures(self) -> dict[str, int]:
        """Calls without a verdict, by reason."""
        found: dict[str, int] = {}
        for row in self.rows:
            for one in row.findings:
                if one.error:
                    found[one.error] = found.get(one.error, 0) + 1
        return dict(sorted(found.items()))

    def as_json(self) -> dict[str, Any]:
        return {
            "criteria": [_row_json(row) for row in self.rows],
            "totals": {
                name: {
                    "met": one.met, "of": one.of, "share": one.share, "weighted": one.weighted,
                    "not_applicable": one.not_applicable, "unknown": one.unknown,
                }
                for name, one in zip(NAMES, self.totals, strict=False)
            },
            "outcome": None
            if self.outcome is None
            else {
                "winner": self.outcome.winner, "margin": self.outcome.margin,
                "counted": self.outcome.counted, "most": self.outcome.most,
            },
            "failures": self.failures,
        }  # fmt: skip


Findings = Mapping[tuple[int, int], Finding]  # (id of the rule, place of the response)


def to_ask(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that a language model checks and that concern this prompt."""
    return [one for one in rules if one.verifier == "llm" and not one.outside]


def apply_here(
    rules: Sequence[Rule],
    messages: Messages,
    candidates: Sequence[Candidate],
    *,
    known: Findings | None = None,
) -> Applied:
    """What can be said without asking anybody.

    ``known`` is what the caller has of rules that persons, reward models or language models check.
    """
    cases = [Case(Prompt(messages), one.text) for one in candidates]
    rows = [
        Row(
            rule,
            tuple(
                _find(rule, case, candidate, (known or {}).get((rule.id, place)))
                for place, (case, candidate) in enumerate(zip(cases, candidates, strict=True))
            ),
        )
        for rule in rules
    ]
    return total(rows, responses=len(candidates))


async def apply(
    rules: Sequence[Rule],
    messages: Messages,
    candidates: Sequence[Candidate],
    *,
    call: Call,
    options: VerifyOptions,
    known: Findings | None = None,
    tick: Callable[[int], Any] | None = None,
) -> Applied:
    """The same after asking a language model, one call per rule of its own and response.

    A call that fails leaves its finding unknown, with the reason; so does a budget that is spent.
    """
    asked = await ask(rules, messages, candidates, call=call, options=options, tick=tick)
    return apply_here(rules, messages, candidates, known={**(known or {}), **asked})


async def ask(
    rules: Sequence[Rule],
    messages: Messages,
    candidates: Sequence[Candidate],
    *,
    call: Call,
    options: VerifyOptions,
    tick: Callable[[int], Any] | None = None,
) -> dict[tuple[int, int], Finding]:
    """What the model says of every response under the rules that are its own."""
    options = replace(options, not_applicable="half")  # what a finding is read from
    places = [(rule, place) for rule in to_ask(rules) for place in range(len(candidates))]

    async def one(at: tuple[Rule, int]) -> Verified:
        rule, place = at
        response = Response(messages, candidates[place])
        return await verify(rule.text, response, call, options=options)

    said = await each(places, one, concurrency=options.concurrency, tick=tick)
    finding = partial(_of_model, model=options.model)
    return {
        (rule.id, place): finding(found) for (rule, place), found in zip(places, said, strict=True)
    }


def total(rows: Sequence[Row], *, responses: int) -> Applied:
    """Rows added up."""
    totals = tuple(_total(rows, place) for place in range(responses))
    outcome = _outcome(rows, totals) if responses == len(NAMES) else None
    return Applied(tuple(rows), totals, outcome)


def _find(rule: Rule, case: Case, candidate: Candidate, known: Finding | None) -> Finding:
    if rule.outside:
        return Finding(NEITHER, reason=rule.outside)
    if rule.verifier == "program":
        return _of_program(rule, case, candidate)
    return known or Finding(UNKNOWN, reason=UNKNOWABLE[rule.verifier])


# What is said where the caller brings no finding.
UNKNOWABLE: Final[Mapping[str, str]] = {
    "llm": "no model was asked",
    "person": "a person has to say",
    "reward-model": "the reward model has not scored this answer",
}


def _of_program(rule: Rule, case: Case, candidate: Candidate) -> Finding:
    row = PROGRAMS.get(rule.program)
    if row is None:
        return Finding(UNKNOWN, reason=f"there is no program “{rule.program}”", by="program")
    if candidate.picture is not None and not case.bare:
        return Finding(UNKNOWN, reason="a program reads text, and this is a picture", by="program")
    value = compute(rule.program, case)
    reason = explain(rule.program, case, value)
    if value is None:
        return Finding(NEITHER, reason=reason, by="program")
    share = float(value)
    if row.half:
        share = share / (share + row.half)
    return Finding(YES if share >= SAYS_YES else NO, share, reason=reason, by="program")


def _of_model(found: Verified | CallFailed, *, model: str) -> Finding:
    """The likeliest of its three words; P(yes) apart from what n/a adds to the score."""
    if isinstance(found, CallFailed):
        return Finding(UNKNOWN, reason=FAILURES[found.kind], by=model, error=found.kind)
    if found.error:
        return Finding(UNKNOWN, reason=FAILURES[found.error], by=model, error=found.error)
    if math.isnan(found.score):
        return Finding(NEITHER, reason=found.reason, by=model)
    yes = min(1.0, max(0.0, found.score - found.neither / 2))
    shares: dict[Said, float] = {YES: yes, NO: 1 - yes - found.neither, NEITHER: found.neither}
    said = max(shares, key=lambda word: shares[word])
    return Finding(said, found.score, yes, found.reason, by=model)


def _total(rows: Sequence[Row], place: int) -> Total:
    met = of = not_applicable = unknown = 0
    weighted = 0.0
    for row in rows:
        said, worth = row.findings[place].said, row.rule.worth
        not_applicable += said == NEITHER
        unknown += said == UNKNOWN
        if said in (YES, NO) and worth:
            of += 1
            met += (said == YES) == (worth > 0)
        if row.is_counted:
            weighted += worth * (row.findings[place].score or 0.0)
    return Total(met, of, weighted, not_applicable, unknown)


def _outcome(rows: Sequence[Row], totals: Sequence[Total]) -> Outcome:
    counted = [row for row in rows if row.is_counted]
    margin = totals[0].weighted - totals[1].weighted
    most = sum(abs(row.rule.worth) for row in counted)
    if not counted:
        return Outcome(None, 0.0, 0, 0.0)
    if abs(margin) <= EVEN:
        return Outcome("even", 0.0, len(counted), most)
    return Outcome("a" if margin > 0 else "b", margin, len(counted), most)


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "id": row.rule.id,
        "text": row.rule.text,
        "worth": row.rule.worth,
        "verifier": row.rule.verifier,
        "difference": row.difference,
        **{
            name: {
                "said": one.said, "score": one.score, "probability": one.probability,
                "reason": one.reason, "by": one.by, "error": one.error,
            }
            for name, one in zip(NAMES, row.findings, strict=False)
        },
    }  # fmt: skip
