"""What a judge is given and what it says, free of tables and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rubrics.llm.types import Call, Picture

Kind = Literal["pairwise", "ranking", "rating", "best-worst", "checklist"]
Scores = dict[str, list[float | None]]  # attribute or criterion -> one value per candidate


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response. ``text`` is the whole reply, several messages joined; a picture beside or alone."""

    text: str
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One task as a judge sees it: never who wrote which candidate, nor what others said.

    ``messages`` are ``{"role", "content"}``; ``candidates`` stand in canonical order. ``attributes``
    with ``low`` to ``high`` are asked of kind rating, ``criteria`` and ``failures`` of checklist.
    """

    id: int
    kind: Kind
    messages: Sequence[dict[str, str]]
    candidates: tuple[Candidate, ...]
    question: str = ""
    guidelines: str = ""
    allow_tie: bool = True
    attributes: tuple[str, ...] = ()
    low: int = 0
    high: int = 4
    criteria: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    source: Picture | None = None
    mask: Picture | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer, in canonical order; ``shown_order[slot]`` is the canonical place shown there.

    ``ranks`` from 1, ties equal; None where there is no readable answer, and then ``error`` is a
    key of rubrics.llm.types.FAILURES. 0 is a candidate that was not shown. ``probability`` that,
    of two, the one earlier in canonical order is better, where the answer gives one.
    ``call_key``: the call in the ledger.
    """

    shown_order: tuple[int, ...]
    ranks: tuple[int, ...] | None
    repeat: int = 0
    model: str = ""
    strength: int = 0
    probability: float | None = None
    scores: Scores | None = None
    reasoning: str = ""
    error: str = ""
    detail: str = ""
    call_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the opinions on one item add up to, in canonical order.

    ``ranks`` None is no decision, and ``error`` says why. ``strength`` 0 (all tie) to 3.
    ``ratings`` for rating (attribute -> whole numbers) and checklist (criterion -> 1, 0 or None).
    ``confidence`` in [0, 1] grows with how sure the judge is that its best candidate is best; it
    is its own and not calibrated; None where it has none. ``is_consistent``: the same best
    candidate in every order; None where there was one order.
    """

    ranks: tuple[int, ...] | None
    strength: int = 0
    both_bad: bool = False
    ratings: dict[str, list[int | None]] | None = None
    rationale: str = ""
    confidence: float | None = None
    probability: float | None = None
    is_consistent: bool | None = None
    opinions: tuple[Opinion, ...] = field(default=())
    error: str = ""
    detail: str = ""


class AskingJudge(Protocol):
    """A judge that asks a language model. ``plan`` says beforehand how many calls an item costs."""

    def __init__(self, options: Any, *, template: Any = None) -> None: ...

    def plan(self, item: Item) -> int:
        """Calls for one item where none fails."""

    async def judge(self, item: Item, call: Call) -> Decision:
        """Never raises CallFailed: an order that failed is an Opinion with its error.

        Budget failures are the exception: CallFailed("budget") goes through, so that the item is
        left for a later run.
        """


class ScoringJudge(Protocol):
    """A judge that gives every candidate a score by itself: programs and local models."""

    def __init__(self, options: Any) -> None: ...

    def judge(self, items: Sequence[Item]) -> list[Decision]:
        """One decision per item, in order."""
