"""The rewards of a rubric version, a chunk of responses at a time.

Whoever can check a criterion is asked: programs at once, a language model through the ledger,
people and reward models by what they said already. A response has a reward where every criterion
that is about it has a verdict: a sum with a term left out is not on the scale of the others. The
rest is counted by who owes the verdict, and taken again by the next run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.errors import Invalid, MethodFailed
from annotator.models import Criterion, Judge, RewardModel, RubricVersion
from annotator.queries import reward_scores as queries
from annotator.queries.reward_scores import Subject
from annotator.services import rubrics, runs
from annotator.services.reward_asking import Answers, Asker, Place
from annotator.services.reward_rows import Said, write_rubric
from rubrics.llm.budget import Budget
from rubrics.programs.evaluate import as_shares, evaluate
from rubrics.rewards import WORTH, satisfied, share_satisfied, weighted_sum
from rubrics.verifying import Response, VerifyOptions

Array = NDArray[np.float64]

FORMS: Final = {
    "weighted": "the weighted sum of verdicts",
    "share": "the share of criteria satisfied",
}
CALLS_AT_ONCE: Final = 256  # of a chunk; several chunks are under way
CHUNK: Final = 500  # responses of a chunk where nobody is asked
FEWEST: Final = 4
AHEAD: Final = 3  # chunks under way at a time
Verifier = Criterion.Verifier


@dataclass(frozen=True)
class Basis:
    """What a reward is counted from: two rewards compare only where this is the same."""

    digest: str
    form: str
    not_applicable: str
    judge: int | None
    concise: bool

    @classmethod
    def of(
        cls,
        version: RubricVersion,
        criteria: Sequence[Criterion],
        *,
        form: str,
        not_applicable: str,
        judge: Judge | None,
    ) -> Basis:
        """Of what somebody chose, the rest by default. Raises Invalid."""
        if not criteria:
            raise Invalid(f"{version} has no criterion.")
        form = form or default_form(criteria)
        if form not in FORMS:
            raise Invalid(f"A reward is {' or '.join(FORMS)}.")
        not_applicable = not_applicable or "satisfied"
        if not_applicable not in WORTH:
            raise Invalid(f"What does not apply is one of {', '.join(WORTH)}.")
        asks = any(is_asked(one) for one in criteria)
        return cls(
            digest=rubrics.digest(criteria),
            form=form,
            # A weight was fitted where what does not apply counts half: there is nothing to choose.
            not_applicable="half" if form == "weighted" else not_applicable,
            judge=judge.pk if judge is not None and asks else None,
            concise=rubrics.is_concise(version) and asks,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Basis:
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def asks(self) -> bool:
        return self.judge is not None

    def words(self) -> str:
        told = FORMS[self.form]
        return told if self.form == "weighted" else f"{told}, n/a {self.not_applicable}"


def default_form(criteria: Sequence[Criterion]) -> str:
    return "weighted" if any(one.weight is not None for one in criteria) else "share"


def is_asked(criterion: Criterion) -> bool:
    """Whether a language model checks it, and what it says counts."""
    return criterion.verifier == Verifier.LLM and worth(criterion) != 0


def worth(criterion: Criterion) -> float:
    """What a yes counts: the weight, or its polarity where none was fitted."""
    return float(criterion.polarity if criterion.weight is None else criterion.weight)


def is_about(criterion: Criterion, subject: Subject) -> bool:
    """Whether a criterion is about this response's prompt."""
    if criterion.scope == Criterion.Scope.GROUP:
        return criterion.group in subject.tags
    if criterion.scope == Criterion.Scope.PROMPT:
        return criterion.group == str(subject.prompt_id)
    return True


@dataclass
class _Chunk:
    """Responses (n,) and what is known of k criteria: ``yes`` and ``neither`` (n, k), NaN where
    nobody said; ``counts`` (n, k) where a criterion is about a response."""

    subjects: list[Subject]
    yes: Array
    neither: Array
    counts: NDArray[np.bool_]
    keys: dict[tuple[int, int], bytes]
    asked: Future[Answers] | None = None


class RubricScoring:
    """One attempt at a run."""

    def __init__(
        self,
        work: runs.Work,
        version: RubricVersion,
        criteria: Sequence[Criterion],
        basis: Basis,
        *,
        judge: Judge | None,
    ) -> None:
        self.work, self.version, self.basis, self.judge = work, version, basis, judge
        self.criteria = list(criteria)
        self.worths = np.array([worth(one) for one in criteria])
        self.columns = {
            kind: [at for at, one in enumerate(criteria) if one.verifier == kind and worth(one)]
            for kind in Verifier.values
        }
        self.percentiles = self._percentiles()
        self.incomplete: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.before = dict(work.run.counters)

    @property
    def chunk_size(self) -> int:
        asked = len(self.columns[Verifier.LLM])
        return CHUNK if not asked else max(FEWEST, CALLS_AT_ONCE // asked)

    def run(self, read: Callable[[int], list[Subject]], *, done: int) -> str:
        """Score all that ``read(size)`` gives; "" at its end, "budget" where that ended it."""
        if self.judge is None:
            while subjects := read(self.chunk_size):
                done += self._write(self._chunk(subjects))
                self._note(done, {})
                self.work.check()
            return ""
        assert self.judge.endpoint is not None
        options = VerifyOptions(
            model=self.judge.options["models"][0],
            concise=self.basis.concise,
            not_applicable="half",
            concurrency=self.judge.endpoint.concurrency,
        )
        budget = Budget(**self.work.run.config["budget"])
        with Asker(self.judge.endpoint, run=self.work.run, budget=budget, options=options) as asker:
            return self._ask_all(asker, read, done)

    def _ask_all(self, asker: Asker, read: Callable[[int], list[Subject]], done: int) -> str:
        """Chunks in order, a few of them under way; all that were begun are written."""
        begun: deque[_Chunk] = deque()
        is_spent = is_over = False
        while True:
            while not (is_over or is_spent) and len(begun) < AHEAD:
                subjects = read(self.chunk_size)
                is_over = not subjects
                if subjects:
                    begun.append(self._begin(asker, subjects))
            if not begun:
                self._note(done, asker.used)
                return "budget" if is_spent else ""
            chunk = begun.popleft()
            assert chunk.asked is not None
            answers = asker.wait(chunk.asked, look=partial(self._look, done, asker))
            self._take(chunk, answers)
            is_spent = is_spent or answers.is_spent
            done += self._write(chunk, is_cut=answers.is_spent)
            self._look(done, asker)
            if answers.is_down:
                raise MethodFailed(
                    "The endpoint answers nothing: "
                    f"{', '.join(f'{n:,} {kind}' for kind, n in answers.failures.items())}.",
                    advice="Look at the endpoint, then resume the run.",
                )

    def _begin(self, asker: Asker, subjects: list[Subject]) -> _Chunk:
        chunk = self._chunk(subjects)
        places = [
            Place(row, column, self.criteria[column].text, Response(one.messages, one.candidate))
            for row, one in enumerate(subjects)
            for column in self.columns[Verifier.LLM]
            if chunk.counts[row, column] and one.candidate is not None
        ]
        chunk.asked = asker.submit(places)
        return chunk

    def _take(self, chunk: _Chunk, answers: Answers) -> None:
        for row, column, yes, neither, key in answers.found:
            chunk.yes[row, column], chunk.neither[row, column] = yes, neither
            if key is not None:
                chunk.keys[row, column] = key
        self.failures += answers.failures

    def _look(self, done: int, asker: Asker) -> None:
        self._note(done, asker.used)
        self.work.check()

    def _note(self, done: int, used: dict[str, Any]) -> None:
        before = self.before
        if used:
            used = {**used, "cached": before.get("cached", 0) + used["cached"]}
            for name in ("retries", "errors"):
                used[name] = dict(Counter(before.get(name, {})) + Counter(used[name]))
        found = {"incomplete": self.incomplete, "failures": self.failures}
        counted = {name: dict(sorted(values.items())) for name, values in found.items()}
        self.work.count({**used, **counted})
        self.work.progress(done)

    # What is known without asking.

    def _chunk(self, subjects: list[Subject]) -> _Chunk:
        shape = len(subjects), len(self.criteria)
        about = np.array(
            [[is_about(one, subject) for one in self.criteria] for subject in subjects]
        )
        chunk = _Chunk(
            subjects,
            yes=np.full(shape, np.nan),
            neither=np.full(shape, np.nan),
            counts=about & (self.worths != 0),  # what weighs nothing need not be asked
            keys={},
        )
        self._by_program(chunk)
        self._by_people(chunk)
        self._by_model(chunk)
        return chunk

    def _by_program(self, chunk: _Chunk) -> None:
        columns = self.columns[Verifier.PROGRAM]
        texts = {
            row: one.candidate.text
            for row, one in enumerate(chunk.subjects)
            # A program reads text: of a picture alone it knows nothing.
            if one.candidate and (one.candidate.text.strip() or not one.candidate.picture)
        }
        if not columns or not texts:
            return
        keys = [self.criteria[at].program for at in columns]
        messages = [chunk.subjects[row].messages for row in texts]
        found = as_shares(evaluate(messages, list(texts.values()), keys), keys)
        place = np.ix_(list(texts), columns)
        chunk.yes[place] = np.nan_to_num(found)
        chunk.neither[place] = np.isnan(found)

    def _by_people(self, chunk: _Chunk) -> None:
        columns = {self.criteria[at].pk: at for at in self.columns[Verifier.PERSON]}
        if not columns:
            return
        rows = {one.id: row for row, one in enumerate(chunk.subjects)}
        said = queries.people_say(list(columns), list(rows))
        for (criterion, response), (yes, neither) in said.items():
            chunk.yes[rows[response], columns[criterion]] = yes
            chunk.neither[rows[response], columns[criterion]] = neither

    def _percentiles(self) -> dict[int, tuple[int, Array]]:
        """By column the model that scores it and all its scores, ascending."""
        found = {}
        for at in self.columns[Verifier.REWARD_MODEL]:
            number = self.criteria[at].program
            rows = RewardModel.objects.filter(project_id=self.work.run.project_id)
            model = rows.filter(number=int(number)).first() if number.isdecimal() else None
            scores = queries.sorted_scores(model.pk) if model is not None else np.empty(0)
            if model is None or not len(scores):
                raise Invalid(
                    f"Reward model {number} has scored no response.",
                    advice="Score all responses by it first, on its page.",
                )
            found[at] = (model.pk, scores)
        return found

    def _by_model(self, chunk: _Chunk) -> None:
        ids = [one.id for one in chunk.subjects]
        for at, (model, scores) in self.percentiles.items():
            own = queries.model_scores(model, ids)
            for row, pk in enumerate(ids):
                if pk in own:
                    below = np.searchsorted(scores, own[pk], side="left")
                    chunk.yes[row, at], chunk.neither[row, at] = below / len(scores), 0.0

    # What it comes to.

    def _write(self, chunk: _Chunk, *, is_cut: bool = False) -> int:
        """Write verdicts and rewards; how many responses have one now.

        ``is_cut``: the budget ended in this chunk, and what it lacks was never asked.
        """
        is_known = ~np.isnan(chunk.yes)
        lacking = chunk.counts & ~is_known
        complete = ~lacking.any(axis=1)
        for row in () if is_cut else np.flatnonzero(~complete):
            kinds = {self.criteria[at].verifier for at in np.flatnonzero(lacking[row])}
            self.incomplete[min(kinds)] += 1
        rewards = self._rewards(chunk)
        complete &= ~np.isnan(rewards)
        write_rubric(
            self.work,
            self.version,
            self.basis.as_json(),
            self._said(chunk, is_known & chunk.counts),
            [one.id for one, is_whole in zip(chunk.subjects, complete, strict=True) if is_whole],
            rewards[complete],
        )
        return int(complete.sum())

    def _rewards(self, chunk: _Chunk) -> Array:
        """The reward (n,) of each response; NaN where it has none."""
        if self.basis.form == "weighted":
            return weighted_sum(chunk.yes, chunk.neither, self.worths, counts=chunk.counts)
        policy: Any = self.basis.not_applicable
        met = satisfied(chunk.yes, chunk.neither, self.worths, not_applicable=policy)
        return share_satisfied(np.where(chunk.counts, met, np.nan))

    def _said(self, chunk: _Chunk, known: NDArray[np.bool_]) -> list[Said]:
        """Verdicts to keep: what people said is theirs already."""
        rater = self.judge.rater_id if self.judge is not None else None
        return [
            Said(
                self.criteria[column].pk,
                chunk.subjects[row].id,
                rater if self.criteria[column].verifier == Verifier.LLM else None,
                float(chunk.yes[row, column]),
                float(chunk.neither[row, column]),
                chunk.keys.get((int(row), int(column))),
            )
            for row, column in zip(*np.nonzero(known), strict=True)
            if self.criteria[column].verifier != Verifier.PERSON
        ]
