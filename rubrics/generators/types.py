"""What a generator of rubrics is given and what it gives: preferences in, candidate criteria out.

A generator is a pure function of its input, its options and the replies of ``call``. Every call is
cached by whoever provides ``call``, so a generator that is killed is simply run again: it asks the
same questions in the same order and pays for none of them twice. Hence no clock, no global random
numbers: draws come from a generator of its own, seeded by the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rubrics.judging.types import Candidate
from rubrics.llm.types import Call

Scope = Literal["project", "group", "prompt"]
Verifier = Literal["person", "llm", "program", "reward-model"]


@dataclass(frozen=True, slots=True)
class Rationale:
    """Why somebody judged as they did, in their words. ``judgment`` is where it stands."""

    text: str
    judgment: int | None = None
    rater: int | None = None


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one prompt, and which of them people prefer.

    ``group`` tells prompts apart: pairs of one group never stand on both sides of a split.
    ``strength`` 1 to 3; ``judgments`` are the votes behind it.
    """

    id: int
    group: int
    messages: Sequence[dict[str, str]]
    chosen: Candidate
    rejected: Candidate
    strength: int = 1
    rationales: tuple[Rationale, ...] = ()
    judgments: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A pair that speaks for a criterion or against it, with the words that say so, if any.

    ``role``, where a generator tells them apart: the criterion was made from it, or checked on it.
    """

    pair: int
    supports: bool
    quote: str = ""
    judgment: int | None = None
    rater: int | None = None
    role: Literal["", "source", "check"] = ""


@dataclass(frozen=True, slots=True)
class CandidateCriterion:
    """One criterion that a generator proposes.

    ``polarity`` 1: a yes speaks for the answer; -1: a yes speaks against it. ``weight`` is signed
    for a yes and None where none was fitted. ``verifier`` says who can check it, ``program`` the
    key in rubrics.programs where a program does. ``group`` is the prompt group of a narrower
    scope. ``figures`` are the generator's own: coverage, precision, accepted in how many rounds.
    """

    text: str
    polarity: Literal[1, -1] = 1
    weight: float | None = None
    scope: Scope = "project"
    group: int | None = None
    verifier: Verifier = "llm"
    program: str = ""
    theme: str = ""
    evidence: tuple[Evidence, ...] = ()
    figures: dict[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out. ``stopped`` is "budget" where money ran out: what there is, is kept.

    ``figures`` by name: calls per pair, accepted share, positional gap, held-out accuracy...
    ``dropped`` counts proposals by the reason why they are not among the criteria.
    """

    criteria: tuple[CandidateCriterion, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    notes: tuple[str, ...] = ()


class Journal(Protocol):
    """Where a generator says how far it is. ``check`` raises whatever ends the run; it is asked
    from other threads too, between the parts of what takes long."""

    def stage(self, key: str, label: str) -> None: ...

    def progress(self, done: int, total: int, unit: str) -> None: ...

    def check(self) -> None: ...


class Silent:
    """A journal for notebooks and tests: it keeps nothing."""

    def stage(self, key: str, label: str) -> None:
        """Nothing is shown."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Nothing is shown."""

    def check(self) -> None:
        """Nobody asks to stop."""


class Generator(Protocol):
    """One method, made from its Options model."""

    def __init__(self, options: Any) -> None: ...

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None, journal: Journal
    ) -> Generated:
        """Candidate criteria. ``call`` is None for methods that ask no model.

        A call that fails costs its pair, counted in ``dropped``; CallFailed("budget") ends the
        method with what it has. Raises ValueError for too few pairs to learn anything.
        """
