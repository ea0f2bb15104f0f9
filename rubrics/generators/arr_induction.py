"""From one pair to criteria that explain it and something beyond it: propose, verify, refine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

from rubrics.asking import ask
from rubrics.generators import arr_questions as questions
from rubrics.generators.arr_judging import Check, Judging, Meter
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.arr_questions import Proposal
from rubrics.generators.types import PreferencePair
from rubrics.llm.types import CallFailed, Request

DRAW: Final = "touchstone:arr"
OWN: Final = "own-pair"  # why a criterion was not accepted: not even its own pair
OTHERS: Final = "other-pairs"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A criterion from ``pair`` that passed in ``round`` (0: as proposed), on what it was checked."""

    text: str
    pair: int
    round: int
    checks: tuple[Check, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of one pair; ``failed`` is a kind of CallFailed. ``refused`` holds, besides
    ``proposed`` less accepted, what no rubric could hold.

    ``rubrics`` counts what was verified as one: a criterion, or all of a proposal together.
    """

    pair: int
    accepted: list[Accepted] = field(default_factory=list)
    proposed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    rubrics: int = 0
    failed: str = ""


@dataclass(frozen=True)
class Induction:
    """``learned``: the pairs of which others are drawn, at least two groups among them."""

    options: ArrOptions
    judging: Judging
    learned: Sequence[PreferencePair]
    meter: Meter

    async def of_pair(self, numbered: tuple[int, PreferencePair]) -> Outcome:
        """A failed call ends the pair, as ``failed``; CallFailed("budget") goes on in it too."""
        at, pair = numbered
        outcome = Outcome(pair.id)
        pending: list[str] = []
        try:
            await self._rounds(pair, outcome, pending, is_chosen_first=at % 2 == 0)
        except CallFailed as failed:
            outcome.failed = failed.kind
            outcome.refused["unverified"] += len(pending)
        return outcome

    async def _rounds(
        self, pair: PreferencePair, outcome: Outcome, pending: list[str], *, is_chosen_first: bool
    ) -> None:
        """``pending``: criteria whose fate is open, for the one who catches a failure."""
        request = questions.propose(pair, self.options, is_chosen_first=is_chosen_first)
        for number in range(self.options.max_rounds + 1):
            proposal = await self._proposed(request, "refine" if number else "propose")
            outcome.proposed += proposal.criteria
            outcome.refused.update(proposal.refused)
            pending += proposal.criteria
            feedback = await self._verified(pair, proposal.criteria, number, outcome, pending)
            if outcome.accepted:
                return
            request = questions.refine(
                pair,
                self.options,
                is_chosen_first=is_chosen_first,
                previous=proposal.criteria,
                feedback=feedback,
            )
            if self.options.temperature > 0:
                request = replace(request, salt=number + 1)

    async def _proposed(self, request: Request, purpose: str) -> Proposal:
        read = partial(questions.read_criteria, most=self.options.criteria)
        proposal, _ = await ask(self.meter.of(purpose), request, read, repairs=self.options.repairs)
        return proposal

    async def _verified(
        self,
        pair: PreferencePair,
        criteria: Sequence[str],
        number: int,
        outcome: Outcome,
        pending: list[str],
    ) -> list[str]:
        """Puts criteria into the outcome; what was said where they failed."""
        others = self._others(pair, number)
        is_together = self.options.verify == "together"
        feedback = []
        for rubric in [tuple(criteria)] if is_together else [(one,) for one in criteria]:
            reason, checks = await self._verify(pair, rubric, others)
            outcome.rubrics += 1
            del pending[: len(rubric)]
            if not reason:
                outcome.accepted += [Accepted(one, pair.id, number, checks) for one in rubric]
                continue
            outcome.refused[reason] += len(rubric)
            name = "The criteria" if is_together else f"“{rubric[0]}” alone"
            feedback += [
                f"{name}, on {'this pair' if one.pair == pair.id else 'a pair of another prompt'}: "
                f"{line}"
                for one in checks
                for line in one.told
            ]
        return feedback

    async def _verify(
        self, pair: PreferencePair, rubric: Sequence[str], others: Sequence[PreferencePair]
    ) -> tuple[str, tuple[Check, ...]]:
        """Why a rubric is not accepted (empty where it is), and the checks made: no more than it
        takes to know."""
        call = self.meter.of("verify")
        checks = [await self.judging.check(pair, rubric, call)]
        if not checks[0].judgment.is_recovered:
            return OWN, tuple(checks)
        surplus, left = 0, len(others)
        for other in others:
            if surplus + left < self.options.others_needed:
                break
            checks.append(await self.judging.check(other, rubric, call))
            surplus += checks[-1].judgment.side
            left -= 1
        return ("" if surplus >= self.options.others_needed else OTHERS), tuple(checks)

    def _others(self, pair: PreferencePair, number: int) -> list[PreferencePair]:
        """Pairs of other groups, drawn by the pair and the round and nothing else."""
        dice = Random(f"{DRAW}:{self.options.seed}:{pair.id}:{number}")
        known = [one for one in self.learned if one.group != pair.group]
        return dice.sample(known, min(self.options.others, len(known)))
