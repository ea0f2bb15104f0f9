"""Measuring a version of a rubric: how often it is right on prompts it never saw, beside what.

Criteria are scored on a sample of the pairs that were learned from and on one of the test split.
Weights for the page are fitted on the former alone; every accuracy is counted on the latter alone,
strict: a pair on which both sides are even is wrong. What was scored is kept as a sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.db import transaction

from annotator.errors import MethodFailed, NotFound
from annotator.models import Criterion, Project, RubricMeasurement, RubricVersion, Split
from annotator.queries import preference_pairs
from annotator.queries import training as queries
from annotator.queries.criteria import asked, digest
from annotator.queries.pairs import Selection
from annotator.queries.snapshot import snapshot
from annotator.services import asking, rubrics
from annotator.services.rubric_baselines import InOrders, Judges, by_reward_model
from annotator.services.rubric_scoring import Case, EndpointDown, Scoring, cases, differences
from annotator.services.training_data import ceiling
from rubrics.llm.types import FAILURES, Call
from rubrics.sheet import EVEN, Sheet
from rubrics.sheet_figures import JUDGES, NO_PAIR, NO_SCORE, Weighed, figures

LEARNED: Final = (Split.TRAIN, Split.VALIDATION)
HELD_OUT: Final = (Split.TEST,)
HELD, FITTED, JUDGED = 200, 128, 100  # pairs at most, where every one of them costs calls
FREE_HELD, FREE_FITTED = 10_000, 5_000  # where nobody is asked
SPENT: Final = "the budget was spent"
OTHER_PROMPTS: Final = (
    "Every criterion is about prompts of its own, and none of these is held out: how right they "
    "are cannot be measured."
)
STAGES: Final = (("read", "Read the pairs"), ("held", "Score held-out pairs"))

Stage = Callable[[str, str], None]


@dataclass(frozen=True)
class Sizes:
    """Pairs at most: held out, learned from, judged by judges. None: as many as is usual."""

    held: int | None = None
    learned: int | None = None
    judged: int = JUDGED

    def of(self, *, asks: bool) -> tuple[int, int]:
        """(held, learned) for criteria that ask a model, or do not."""
        held, learned = (HELD, FITTED) if asks else (FREE_HELD, FREE_FITTED)
        return self.held or held, self.learned or learned


def measure(
    desk: asking.Desk, version: RubricVersion, *, sizes: Sizes, raters: str, on_stage: Stage
) -> RubricMeasurement:
    """What is measured of a version now, kept. Raises runs.Stopped, NotFound, MethodFailed.

    Where the budget ends, what was scored by then is measured, and the figures say so.
    """
    return _Measuring(desk, version, sizes, raters, on_stage).done()


class _Measuring:
    def __init__(
        self,
        desk: asking.Desk,
        version: RubricVersion,
        sizes: Sizes,
        raters: str,
        on_stage: Stage,
    ) -> None:
        self._desk, self._work, self._version = desk, desk.work, version
        self._project: Project = version.rubric.project
        self._sizes, self._raters, self._on_stage = sizes, raters, on_stage
        self._criteria = rubrics.in_force(version)
        self._parent = _approved_parent(version)
        self._columns, self._of_parent = _columns(version, self._criteria, self._parent)
        self._missing: dict[str, str] = {}
        self._judged, self._cut_of_parent = InOrders(), set[int]()
        self._before = self._work.run.counters.get("calls", 0)

    def done(self) -> RubricMeasurement:
        self._on_stage(*STAGES[0])
        held, learned = self._read()
        self._on_stage(*STAGES[1])
        self._scoring = Scoring([*held, *learned], self._columns)
        self._scoring.look_up(self._work, self._project)
        if self._desk.judge is not None:
            self._ask(len(held))
        sheet = self._sheet(len(held))
        self._on_stage("count", "Weigh and count")
        told = figures(sheet, weighed(self._criteria))
        self._missing = told.missing | self._missing
        self._finish(told.figures)
        return self._keep(sheet, told.figures)

    # Reading.

    def _read(self) -> tuple[list[Case], list[Case]]:
        asks = any(one.verifier == Criterion.Verifier.LLM for one in self._columns)
        most_held, most_learned = self._sizes.of(asks=asks and self._desk.judge is not None)
        held = self._cases(HELD_OUT, most_held)
        learned = self._cases(LEARNED, most_learned)
        shared = {one.sides.prompt_id for one in held} & {one.sides.prompt_id for one in learned}
        if shared:  # a split is drawn from a prompt's hash: this cannot be
            raise AssertionError(f"prompts {sorted(shared)[:5]} are in both splits")
        self._work.log(f"{len(held):,} pairs held out, {len(learned):,} learned from")
        return held, learned

    def _cases(self, splits: tuple[str, ...], most: int) -> list[Case]:
        """The sample that a generator was given begins with the same pairs."""
        seed = str(self._version.options.get("seed", 0))
        selection = Selection(self._raters, splits=splits)
        sides = preference_pairs.chosen(self._project, selection, most=most, seed=seed)
        pairs = []
        for pair in preference_pairs.with_texts(self._project, sides):
            pairs.append(pair)
            self._work.progress(len(pairs), len(sides), unit="pairs")
        self._work.check()
        return cases(sides, pairs)

    # Asking.

    def _ask(self, n_held: int) -> None:
        try:
            self._desk.drive(lambda call, journal: self._asked(n_held, call, journal),
                             on_stage=self._on_stage)  # fmt: skip
        except EndpointDown as down:
            raise MethodFailed(
                f"The endpoint answers nothing more: {FAILURES[down.kind]}.",
                advice="Look at the endpoint, then resume the run: what it answered is kept.",
            ) from None

    async def _asked(self, n_held: int, call: Call | None, journal: asking.Journal) -> None:
        """Held-out pairs first, then what they are compared with: a budget may end any of it."""
        judge = self._desk.judge
        assert call is not None
        assert judge is not None
        assert judge.endpoint is not None
        model, width = asking.model_of(judge), judge.endpoint.concurrency
        k, n = len(self._criteria), len(self._scoring.cases)
        how = {"model": model, "width": width, "journal": journal}
        own = how | {"concise": rubrics.is_concise(self._version)}
        await self._scoring.ask(range(n_held), range(k), call, **own)
        if n_held:
            journal.stage("judge", "Ask the judge in both orders")
            first = self._scoring.cases[: min(n_held, self._sizes.judged)]
            beside = Judges(self._project, model, self._criteria, weighed(self._criteria).weights)
            self._judged = await beside.ask(first, call, width=width, journal=journal)
        journal.stage("learned", "Score learned pairs")
        await self._scoring.ask(range(n_held, n), range(k), call, **own)
        if self._parent is not None and len(self._columns) > k and n_held:
            journal.stage("parent", "Score the version before")
            more = range(k, len(self._columns))
            rows = [row for row in range(n_held) if row not in self._scoring.cut]
            before = set(self._scoring.cut)
            of_parent = how | {"concise": rubrics.is_concise(self._parent)}
            await self._scoring.ask(rows, more, call, **of_parent)
            self._cut_of_parent = self._scoring.cut - before
            self._scoring.cut = before

    # Counting.

    def _sheet(self, n_held: int) -> Sheet:
        scoring, k = self._scoring, len(self._criteria)
        gone = scoring.unmeasured()
        kept = np.array([row not in gone for row in range(len(scoring.cases))], dtype=bool)
        sides = [case.sides for case in scoring.cases]
        is_held = np.arange(len(sides)) < n_held
        sheet = Sheet(
            criteria=np.array([one.pk for one in self._criteria], dtype=np.int64),
            prompts=np.array([one.prompt_id for one in sides], dtype=np.int64),
            chosen=np.array([one.chosen_id for one in sides], dtype=np.int64),
            rejected=np.array([one.rejected_id for one in sides], dtype=np.int64),
            votes_for=np.array([one.votes_for for one in sides], dtype=np.int64),
            votes=np.array([one.votes for one in sides], dtype=np.int64),
            is_held=is_held,
            scores=np.ascontiguousarray(scoring.scores[:, :, :k]),
            others=self._others(n_held),
            orders=self._orders(),
        )
        self._tell_cut(int((~kept & is_held).sum()), n_held)
        return sheet if kept.all() else sheet.only(np.flatnonzero(kept))

    def _others(self, n_held: int) -> dict[str, Any]:
        n = len(self._scoring.cases)
        found: dict[str, Any] = {
            name: given.mean(axis=1) - 0.5 for name, given in self._orders().items()
        }
        found |= {"parent": self._by_parent(n_held), "length": self._by_length()}
        self._model = by_reward_model(self._work, self._project, self._scoring.cases[:n_held])
        if self._model.margins is None:
            self._missing["reward-model"] = self._model.reason
        else:
            found["reward-model"] = self._model.margins
        given = {name: one for name, one in found.items() if one is not None}
        return {
            name: np.concatenate([one, np.full(n - len(one), np.nan)]).astype(np.float32)
            for name, one in given.items()
        }

    def _orders(self) -> dict[str, Any]:
        n = len(self._scoring.cases)
        return {
            name: np.concatenate([one, np.full((n - len(one), 2), np.nan)]).astype(np.float32)
            for name, one in self._judged.orders.items()
        }

    def _by_length(self) -> Any:
        if self._project.modality == Project.Modality.IMAGE:
            self._missing["length"] = "The answers are images: none is longer."
            return None
        return np.array(
            [
                len(one.pair.chosen.text) - len(one.pair.rejected.text)
                for one in self._scoring.cases
            ],
            dtype=np.float32,
        )

    def _by_parent(self, n_held: int) -> Any:
        """Margins of the approved version before, on the pairs that it was scored on."""
        if not self._of_parent:
            self._missing["parent"] = "There is no approved version before it."
            return None
        places = [place for place, _ in self._of_parent]
        weights = np.array([weight for _, weight in self._of_parent])
        found = differences(self._scoring.scores[:n_held, :, places]) @ weights
        found[sorted(self._cut_of_parent)] = np.nan
        asks = any(self._columns[at].verifier == Criterion.Verifier.LLM for at in places)
        if asks and self._desk.judge is None:
            self._missing["parent"] = "Its criteria ask a language model, and no judge is named."
            return None
        if not (~np.isnan(self._scoring.scores[:n_held, :, places]).any(axis=1)).any():
            self._missing["parent"] = NO_SCORE
            return None
        return found

    def _tell_cut(self, gone: int, n_held: int) -> None:
        scoring = self._scoring
        if gone:
            why = SPENT if scoring.cut else "no call was answered"
            what = (
                "No held-out pair was"
                if gone == n_held
                else f"{gone:,} of {n_held:,} pairs were not"
            )
            self._missing["rubric"] = f"{what} scored: {why}."
        notes = [
            f"{n:,} criteri{'on' if n == 1 else 'a'} to be checked by a {verifier} ha"
            f"{'s' if n == 1 else 've'} no score on any of these pairs."
            for verifier, n in sorted(scoring.silent().items())
        ]
        if scoring.failures:
            listed = ", ".join(f"{FAILURES[kind]} ({n:,})" for kind, n in scoring.failures.items())
            notes.append(f"Questions without a verdict count for nothing: {listed}.")
        if notes:
            self._missing["criteria"] = " ".join(notes)

    def _finish(self, told: dict[str, Any]) -> None:
        """What the sheet does not know: people, numbers, and why something is not there."""
        found = told["held_out"]
        found["human_ceiling"] = self._people()
        if found["parent"] is not None and self._parent is not None:
            found["parent"]["number"] = self._parent.number
        if found["reward-model"] is not None:
            found["reward-model"]["number"] = self._model.number
        self._tell_missing(found, told["n_held"])
        told["digest"] = digest(self._criteria)
        told["asked"] = {str(one.pk): asked(one) for one in self._criteria}
        told["calls"] = self._work.run.counters.get("calls", 0) - self._before
        told["missing"] = self._missing

    def _tell_missing(self, found: dict[str, Any], n_held: int) -> None:
        for name in JUDGES:
            if found[name] is None:
                self._missing[name] = self._why_no_judge(name, n_held)
        for name in ("parent", "reward-model", "length", "judge", "judge.rubric"):
            if found[name] is None:
                self._missing.setdefault(name, "It was asked of none of these pairs.")
        if self._judged.is_cut and found["judge"] is not None:
            self._missing["judge.cut"] = f"Judges were asked of {self._judged.asked:,}: {SPENT}."
        if self._judged.dropped:
            self._missing["judge.criteria"] = (
                f"{self._judged.dropped:,} criteria are more than a prompt holds."
            )
        if found["rubric"] is None and n_held and self._is_of_other_prompts(n_held):
            self._missing["rubric"] = self._missing["equal"] = OTHER_PROMPTS

    def _is_of_other_prompts(self, n_held: int) -> bool:
        held = self._scoring.cases[:n_held]
        return not any(case.concerns(one) for case in held for one in self._criteria)

    def _why_no_judge(self, name: str, n_held: int) -> str:
        if self._desk.judge is None:
            return "No judge is named whose model could be asked."
        if name == "judge.rubric" and self._judged.orders.keys() == {"judge"}:
            return "No criterion of it holds for every prompt in words that a judge could read."
        if self._judged.is_cut:
            return f"Not asked: {SPENT}."
        return NO_PAIR if not n_held else "No call was answered."

    def _people(self) -> dict[str, Any] | None:
        with snapshot() as raw:
            found = ceiling(queries.test_votes(self._project, connection=raw))
        if found["accuracy"] is None:
            self._missing["human_ceiling"] = found["reason"]
            return None
        low, high = found["interval"]
        return {"value": found["accuracy"], "low": low, "high": high, "n": found["n"],
                "ties": found["ties"]}  # fmt: skip

    def _keep(self, sheet: Sheet, told: dict[str, Any]) -> RubricMeasurement:
        """One measurement per run and version, whoever did it twice."""
        self._work.check()
        with transaction.atomic():
            rows = RubricVersion.objects.select_for_update(of=("self",), no_key=True)
            if not rows.filter(pk=self._version.pk).exists():
                raise NotFound("This version is not there any more.")
            run = self._work.run
            RubricMeasurement.objects.filter(version=self._version, run=run).delete()
            return RubricMeasurement.objects.create(
                version=self._version, run=run, sheet=sheet.to_bytes(), figures=told
            )


def weighed(criteria: Sequence[Criterion]) -> Weighed:
    """The weights of criteria as they count: the polarity where none was fitted."""
    weights = {
        one.pk: float(one.polarity if one.weight is None else one.weight) for one in criteria
    }
    signs = {
        one.pk: (1 if weights[one.pk] > 0 else -1) if weights[one.pk] else one.polarity
        for one in criteria
    }
    sizes = [abs(weight) for weight in weights.values()] or [0.0]
    return Weighed(weights, signs, max(sizes) - min(sizes) > EVEN * max(sizes))


def _approved_parent(version: RubricVersion) -> RubricVersion | None:
    parent = version.parent
    return parent if parent is not None and not parent.is_draft else None


def _columns(
    version: RubricVersion, criteria: Sequence[Criterion], parent: RubricVersion | None
) -> tuple[list[Criterion], list[tuple[int, float]]]:
    """All criteria to score, and of the parent's the column and the weight of each.

    A criterion that both have is scored once; what people checked belongs to its row alone.
    """
    columns = list(criteria)
    at = {_question(one, version): place for place, one in enumerate(columns)}
    of_parent = []
    before = [] if parent is None else rubrics.in_force(parent)
    weights = weighed(before).weights
    for one in before:
        key = _question(one, parent)
        if key not in at:
            at[key] = len(columns)
            columns.append(one)
        of_parent.append((at[key], weights[one.pk]))
    return columns, of_parent


def _question(one: Criterion, version: RubricVersion | None) -> tuple[Any, ...]:
    """What makes two criteria the same question."""
    own = {
        Criterion.Verifier.LLM: (one.text, version is not None and rubrics.is_concise(version)),
        Criterion.Verifier.PERSON: one.pk,
    }.get(Criterion.Verifier(one.verifier), one.program)
    return one.verifier, own, one.scope, one.group
