"""What the criteria of a rubric say of both sides of pairs, each by whoever can check it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.models import Criterion, Project, Prompt, RewardModel
from annotator.queries import reward_scores
from annotator.queries.preference_pairs import Sides
from annotator.services import asking, runs
from rubrics.asking import each
from rubrics.generators.types import PreferencePair
from rubrics.llm.types import Call, CallFailed
from rubrics.programs.evaluate import as_shares, evaluate
from rubrics.verifying import Response, Verdict, VerifyOptions, verify

Scope, Verifier = Criterion.Scope, Criterion.Verifier
AT_ONCE: Final = 500  # pairs that programs read between two looks at the run
DOWN_AFTER: Final = 40  # calls in a row that the endpoint left unanswered
FAULTS: Final = frozenset({"timeout", "connection", "rate-limited", "server", "refused"})


class EndpointDown(Exception):
    """The endpoint answers nothing more. ``kind`` is how the last call failed."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Case:
    """One pair with its rows, texts and the tags of its prompt."""

    sides: Sides
    pair: PreferencePair
    tags: frozenset[str]

    @property
    def ids(self) -> tuple[int, int]:
        return self.sides.chosen_id, self.sides.rejected_id

    @property
    def responses(self) -> tuple[Response, Response]:
        messages = self.pair.messages
        return Response(messages, self.pair.chosen), Response(messages, self.pair.rejected)

    def concerns(self, criterion: Criterion) -> bool:
        """Whether the criterion is about this prompt."""
        if criterion.scope == Scope.PROMPT:
            return criterion.group == str(self.sides.prompt_id)
        return criterion.scope == Scope.PROJECT or criterion.group in self.tags


def cases(sides: Sequence[Sides], pairs: Sequence[PreferencePair]) -> list[Case]:
    """``pairs`` as queries.preference_pairs.with_texts makes them of ``sides``."""
    wanted = {one.group for one in pairs}
    tags = dict(Prompt.objects.filter(pk__in=wanted).values_list("pk", "tags"))
    return [
        Case(sides[one.id], one, frozenset(map(str, tags.get(one.group) or ()))) for one in pairs
    ]


@dataclass(frozen=True, slots=True)
class _Question:
    """One criterion of one response, and where in the scores its answer stands."""

    text: str
    response: Response
    places: list[tuple[int, int, int]]  # row, side, column


@dataclass
class Scoring:
    """Scores (n, 2, k) of cases under criteria, NaN where none is known.

    ``cut`` are the rows that the budget left unasked; ``failures`` counts calls without a verdict
    by reason, ``faulty`` are the rows of those that the endpoint did not answer.
    """

    cases: Sequence[Case]
    criteria: Sequence[Criterion]
    scores: NDArray[np.float32] = field(init=False)
    cut: set[int] = field(default_factory=set)
    faulty: set[int] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        shape = (len(self.cases), 2, len(self.criteria))
        self.scores = np.full(shape, np.nan, dtype=np.float32)

    def look_up(self, work: runs.Work, project: Project) -> None:
        """What is known without asking: of programs, people and reward models."""
        self._by_programs(work)
        self._by_people()
        self._by_reward_models(project)
        for at, criterion in enumerate(self.criteria):
            if criterion.scope != Scope.PROJECT:
                outside = [not case.concerns(criterion) for case in self.cases]
                self.scores[outside, :, at] = np.nan

    def _of(self, verifier: str) -> list[int]:
        return [at for at, one in enumerate(self.criteria) if one.verifier == verifier]

    def _by_programs(self, work: runs.Work) -> None:
        columns = self._of(Verifier.PROGRAM)
        keys = [self.criteria[at].program for at in columns]
        if not keys:
            return
        for start in range(0, len(self.cases), AT_ONCE):
            chunk = self.cases[start : start + AT_ONCE]
            sides = [one for case in chunk for one in case.responses]
            texts = [one.candidate.text for one in sides]
            found = as_shares(evaluate([one.messages for one in sides], texts, keys), keys)
            self.scores[start : start + AT_ONCE, :, columns] = found.reshape(len(chunk), 2, -1)
            work.progress(start + len(chunk), len(self.cases), unit="pairs")
            work.check()

    def _by_people(self) -> None:
        columns = self._of(Verifier.PERSON)
        if not columns:
            return
        ids = [self.criteria[at].pk for at in columns]
        said = reward_scores.people_say(ids, self._responses())
        for at, pk in zip(columns, ids, strict=True):
            own = {one: yes + none / 2 for (other, one), (yes, none) in said.items() if other == pk}
            self._fill(at, own)

    def _by_reward_models(self, project: Project) -> None:
        columns = self._of(Verifier.REWARD_MODEL)
        numbers = {self.criteria[at].program for at in columns}
        models = RewardModel.objects.filter(project=project, number__in=numbers)
        by_number = {str(one.number): one.pk for one in models}
        for number in sorted(by_number):
            known = reward_scores.model_scores(by_number[number], self._responses())
            ascending = reward_scores.sorted_scores(by_number[number])
            shares = {
                pk: float(np.searchsorted(ascending, score)) / len(ascending)
                for pk, score in known.items()
            }
            for at in columns:
                if self.criteria[at].program == number:
                    self._fill(at, shares)

    def _responses(self) -> list[int]:
        return sorted({pk for case in self.cases for pk in case.ids})

    def _fill(self, column: int, known: Mapping[int, float]) -> None:
        for row, case in enumerate(self.cases):
            for side, pk in enumerate(case.ids):
                self.scores[row, side, column] = known.get(pk, np.nan)

    async def ask(
        self,
        rows: Sequence[int],
        columns: Sequence[int],
        call: Call,
        *,
        model: str,
        concise: bool,
        width: int,
        journal: asking.Journal,
    ) -> None:
        """Have a model check these rows, pair by pair. Raises EndpointDown."""
        questions = self._questions(rows, columns)
        options = VerifyOptions(model=model, concise=concise)
        unanswered = 0

        async def one(question: _Question) -> Verdict:
            nonlocal unanswered
            verdict = await verify(question.text, question.response, call, options=options)
            unanswered = unanswered + 1 if verdict.error in FAULTS else 0
            if unanswered >= DOWN_AFTER:
                raise EndpointDown(verdict.error)
            return verdict

        def tick(done: int) -> None:
            journal.check()
            journal.progress(done, len(questions), "questions")

        said = await each(questions, one, concurrency=width, tick=tick)
        for question, verdict in zip(questions, said, strict=True):
            self._hear(question, verdict)

    def _questions(self, rows: Sequence[int], columns: Sequence[int]) -> list[_Question]:
        """In the order of the rows, so that what a budget cuts off is whole pairs.

        A response of several pairs is asked about once.
        """
        asked = [at for at in columns if self.criteria[at].verifier == Verifier.LLM]
        found: dict[tuple[int, int], _Question] = {}
        for row in rows:
            case = self.cases[row]
            for side, (pk, response) in enumerate(zip(case.ids, case.responses, strict=True)):
                for at in asked:
                    if case.concerns(self.criteria[at]):
                        new = _Question(self.criteria[at].text, response, [])
                        found.setdefault((pk, at), new).places.append((row, side, at))
        return list(found.values())

    def _hear(self, question: _Question, verdict: Verdict | CallFailed) -> None:
        rows = {row for row, _, _ in question.places}
        if isinstance(verdict, CallFailed):
            self.cut |= rows
            return
        if verdict.error:
            self.failures[verdict.error] += 1
            if verdict.error in FAULTS:  # a reply that cannot be read is the model's own: wrong
                self.faulty |= rows
        for place in question.places:
            self.scores[place] = verdict.score

    def unmeasured(self) -> set[int]:
        """Rows of which the budget or the endpoint left nothing that could be counted."""
        known = ~np.isnan(self.scores).any(axis=1)  # (n, k): of both sides
        return self.cut | {row for row in self.faulty if not known[row].any()}

    def silent(self) -> dict[str, int]:
        """How many criteria no score is known of, by who checks them."""
        known = ~np.isnan(self.scores).all(axis=(0, 1))
        found: dict[str, int] = defaultdict(int)
        for at, criterion in enumerate(self.criteria):
            found[criterion.verifier] += int(bool(self.cases) and not known[at])
        return {verifier: n for verifier, n in found.items() if n}


def differences(scores: NDArray[np.float32]) -> NDArray[Any]:
    """Chosen minus rejected (n, k), 0 where either is not known."""
    return np.nan_to_num(scores[:, 0] - scores[:, 1])
