"""Whether responses meet criteria, as a language model sees it: one criterion, one response, a call.

Criteria are never asked about together: what stands beside a criterion changes its verdict. The
score is P(yes) of the token that says the verdict, summed over the ways to write a word, where the
endpoint gives log-probabilities (METHODS 2.5), else the verdict as 1 or 0.

"Does not apply" is an answer of its own and its probability stands beside every score. What it
counts is a policy: with p, q and a the probabilities of yes, no and n/a,

    satisfied    p + a      AutoRule's: a rule that does not apply is satisfied
    half         p + a / 2  neither for nor against: what a difference of two responses wants
    unsatisfied  p
    missing      p / (p + q), NaN where n/a is the likeliest

A call that failed is NaN, and its reason is counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rubrics.asking import Section, ask, conversation, each, question, reply_words
from rubrics.judging import logprobs, reading
from rubrics.judging.prompts import one_line
from rubrics.judging.schemas import YES_NO
from rubrics.judging.types import Candidate
from rubrics.llm.parsing import without_thoughts
from rubrics.llm.types import Call, CallFailed, Reply, Request

NotApplicable = Literal["satisfied", "half", "unsatisfied", "missing"]
Array = NDArray[np.float64]

YES, NO, NEITHER = "yes", "no", "n/a"
TOP: Final = 20  # alternatives asked for: as many as endpoints give
WORTH: Final[Mapping[str, float]] = {"satisfied": 1.0, "half": 0.5, "unsatisfied": 0.0}
REPLY: Final = reply_words({"verdict": '"yes", "no" or "n/a"'})
# The verdict comes first, so that its probability is that of the question without a reason.
REASONED: Final = reply_words(
    {
        "verdict": '"yes", "no" or "n/a"',
        "reason": "one short sentence: what in the answer decides it",
    }
)
MAX_REASON: Final = 600  # characters that are kept of one
CONCISE: Final = (
    "Say yes only if the answer does so concisely: one that gets there by padding, repetition or "
    "words that serve nothing gets no, also where it is the padding that meets the criterion."
)
SCHEMA: Final[Mapping[str, Any]] = {
    "title": "yes-no",
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": list(YES_NO)}},
    "required": ["verdict"],
    "additionalProperties": False,
}
SCHEMA_REASONED: Final[Mapping[str, Any]] = {
    **SCHEMA,
    "properties": {**SCHEMA["properties"], "reason": {"type": "string"}},
    "required": ["verdict", "reason"],
}


@dataclass(frozen=True, slots=True)
class Response:
    """One response to one prompt. ``messages`` as PreferencePair has them."""

    messages: Sequence[dict[str, str]]
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How to ask. ``concise``: yes only if the criterion is met, and met concisely (AutoRule).

    ``reasons``: ask for a sentence of why as well, for people to read; it costs tokens, and it is
    another question to the cache.
    """

    model: str
    concise: bool = False
    reasons: bool = False
    not_applicable: NotApplicable = "half"
    max_tokens: int = 512
    repairs: int = 1
    concurrency: int = 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """``score`` in [0, 1] and ``neither``, the probability of n/a; both NaN where the call failed.

    ``score`` is NaN also where the policy "missing" says so; ``error`` is a key of
    rubrics.llm.types.FAILURES, empty where there is a verdict. ``call_key``: the call's.
    ``reason`` in the model's words, empty where none was asked for or given.
    """

    score: float
    neither: float
    call_key: bytes | None = None
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ScoreMatrix:
    """``scores`` and ``neither`` (n responses, k criteria), as Verdict; ``keys`` likewise, objects.

    ``failures`` counts calls without a verdict by reason; ``stopped`` is "budget" where money ran
    out, and what was not asked is NaN and counted among them.
    """

    scores: Array
    neither: Array
    keys: NDArray[np.object_]
    failures: dict[str, int] = field(default_factory=dict)
    stopped: str = ""


async def verify(
    criterion: str, response: Response, call: Call, *, options: VerifyOptions
) -> Verdict:
    """One verdict. Raises CallFailed("budget"); any other failure is a Verdict with its reason."""
    request = request_of(criterion, response, options=options)
    read = partial(_read, not_applicable=options.not_applicable)
    try:
        verdict, _ = await ask(call, request, read, repairs=options.repairs)
    except CallFailed as failed:
        if failed.kind == "budget":
            raise
        return Verdict(math.nan, math.nan, error=failed.kind)
    return verdict


async def score_matrix(
    criteria: Sequence[str],
    responses: Sequence[Response],
    call: Call,
    *,
    options: VerifyOptions,
    tick: Callable[[int], Any] | None = None,
) -> ScoreMatrix:
    """Every criterion of every response, n * k calls, ``options.concurrency`` at once.

    ``tick`` is told how many calls are done. Responses are gone through one after the other, so
    that what a budget cuts off is whole rows. Never raises CallFailed.
    """
    n, k = len(responses), len(criteria)
    scores, neither = np.full((n, k), np.nan), np.full((n, k), np.nan)
    keys = np.full((n, k), None, dtype=object)
    counted: Counter[str] = Counter()

    async def one(at: int) -> None:
        row, column = divmod(at, k)
        verdict = await verify(criteria[column], responses[row], call, options=options)
        scores[row, column], neither[row, column] = verdict.score, verdict.neither
        keys[row, column] = verdict.call_key
        if verdict.error:
            counted[verdict.error] += 1

    ended = await each(range(n * k), one, concurrency=options.concurrency, tick=tick)
    for failed in ended:
        if isinstance(failed, CallFailed):  # of the budget: verify() keeps the others
            counted[failed.kind] += 1
    return ScoreMatrix(
        scores, neither, keys, dict(sorted(counted.items())), "budget" if counted["budget"] else ""
    )


def request_of(criterion: str, response: Response, *, options: VerifyOptions) -> Request:
    """What is asked: the same for the same criterion and response, whatever stands beside them."""
    sections = [
        Section("prompt", conversation(response.messages)),
        Section("answer", response.candidate.text, response.candidate.picture),
        Section("criterion", one_line(criterion)),
    ]
    reply = REASONED if options.reasons else REPLY
    messages = question("verify", sections, reply=reply, concise=CONCISE if options.concise else "")
    return Request(
        model=options.model,
        messages=messages,
        max_tokens=options.max_tokens,
        schema=SCHEMA_REASONED if options.reasons else SCHEMA,
        top_logprobs=TOP,
    )


def _read(reply: Reply, *, not_applicable: NotApplicable) -> Verdict:
    """Raises rubrics.judging.reading.Unreadable."""
    said = _said(reply.text)
    shares = logprobs.word_shares(reply, _word) or {said: 1.0}
    yes, no, neither = (shares.get(word, 0.0) for word in (YES, NO, NEITHER))
    if not_applicable != "missing":
        score = yes + WORTH[not_applicable] * neither
    elif neither >= max(yes, no):
        score = math.nan
    else:
        score = yes / (yes + no)
    return Verdict(score, neither, reply.key, reason=_reason(reply.text))


def _reason(text: str) -> str:
    """Why, in the reply's words on one line; empty where it gives no reason."""
    try:
        said = reading.read_object(text).get("reason")
    except reading.Unreadable:
        return ""
    return reading.bounded(one_line(said), MAX_REASON) if isinstance(said, str) else ""


def _said(text: str) -> str:
    """The verdict in a reply, from JSON or as its only word."""
    try:
        said = reading.read_object(text).get("verdict")
    except reading.Unreadable:
        said = without_thoughts(text)[: reading.SHORT]
    word = str(said).strip(" \t\r\n.*`\"'[]()").casefold()
    if word in reading.NOT_APPLICABLE:
        return NEITHER
    if word in reading.YES or word in reading.NO:
        return YES if word in reading.YES else NO
    raise reading.Unreadable('"verdict" is neither "yes", "no" nor "n/a"')


def _word(token: str) -> str | None:
    """The verdict that a token says or begins; None for any other."""
    word = re.sub(r"[^\w/]+|_", "", token).casefold()
    if word in (YES, NO):
        return word
    return NEITHER if word in ("n", "n/", "n/a", "na") else None
