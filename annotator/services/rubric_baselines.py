"""What a rubric is shown beside, on the same held-out pairs: judges and a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from annotator.models import Criterion, Project, RewardModel
from annotator.queries import reward_scores
from annotator.services import asking, devices, rubric_judges, runs, training
from annotator.services.rubric_scoring import Case
from models import gateway
from models.backbones import split_backbone
from models.errors import ModelsError
from models.local_judge_options import RewardModelOptions
from models.local_judges import RewardModelJudge
from rubrics.asking import each
from rubrics.generators.arr_figures import ORDERS, WRONG
from rubrics.judging import conditioning
from rubrics.judging.llm import LlmJudge
from rubrics.judging.options import MAX_CRITERIA, LlmOptions
from rubrics.judging.prompts import one_line
from rubrics.judging.types import Item, Opinion
from rubrics.llm.types import Call, CallFailed

CLEAR: Final = 1e-3  # a verdict's probability is at least so far from one half
CHEAP: Final = frozenset({"hashing"})  # backbones that score thousands of texts in seconds
SAID: Final = {True: 1.0, False: 0.0}


@dataclass
class InOrders:
    """Probabilities (n, 2) that chosen is better, shown first and shown second, by judge.

    NaN where a judge was not asked, or no call was answered; a reply that cannot be read is 0,
    wrong. ``asked`` pairs were, ``is_cut``: the budget ended it. ``dropped`` criteria were too
    many for a prompt.
    """

    orders: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    asked: int = 0
    is_cut: bool = False
    dropped: int = 0


@dataclass(frozen=True)
class Judges:
    """A judge's model asked pairwise, with a rubric's criteria and without them.

    A choice is forced: an even verdict would be wrong whichever order it is of.
    """

    project: Project
    model: str
    criteria: Sequence[Criterion]
    weights: Mapping[int, float]

    def _lines(self) -> list[str]:
        """What a judge that takes this rubric over is given: see services.rubric_judges."""
        used = [one for one in self.criteria if rubric_judges.is_usable("llm", one)]
        return conditioning.lines(
            [
                conditioning.Condition(one_line(one.text), self.weights[one.pk], one.theme)
                for one in used
            ]
        )

    async def ask(
        self, cases: Sequence[Case], call: Call, *, width: int, journal: asking.Journal
    ) -> InOrders:
        """Both judges on these cases, pair by pair."""
        lines = self._lines()
        found = InOrders(dropped=max(0, len(lines) - MAX_CRITERIA))
        given = {"judge": [], "judge.rubric": lines[:MAX_CRITERIA]}
        judges = {
            name: LlmJudge(LlmOptions(models=[self.model], criteria=criteria))
            for name, criteria in given.items()
            if criteria or name == "judge"
        }

        async def one(case: Case) -> dict[str, tuple[float, float]]:
            return {
                name: _both((await judge.judge(self._item(case), call)).opinions)
                for name, judge in judges.items()
            }

        def tick(done: int) -> None:
            journal.check()
            journal.progress(done, len(cases), "pairs")

        said = await each(cases, one, concurrency=max(1, width // 2), tick=tick)
        found.orders = {name: np.full((len(cases), 2), np.nan, np.float32) for name in judges}
        for row, told in enumerate(said):
            if isinstance(told, CallFailed):
                found.is_cut = True
                continue
            found.asked += 1
            for name, both in told.items():
                found.orders[name][row] = both
        return found

    def _item(self, case: Case) -> Item:
        pair = case.pair
        return Item(
            pair.id,
            "pairwise",
            pair.messages,
            (pair.chosen, pair.rejected),
            question=self.project.question,
            guidelines=self.project.guidelines,
            allow_tie=False,
        )


def _both(opinions: Sequence[Opinion]) -> tuple[float, float]:
    by_order = {one.shown_order: _probability(one) for one in opinions}
    forward, reverse = (by_order.get(ORDERS[name], np.nan) for name in ("forward", "reverse"))
    return forward, reverse


def _probability(one: Opinion) -> float:
    """That chosen is better; on the side of the verdict, whatever probability came with it."""
    if one.ranks is None:
        return 0.0 if one.error in WRONG else np.nan
    if one.ranks[0] == one.ranks[1]:
        return 0.5
    wins = one.ranks[0] < one.ranks[1]
    if one.probability is None:
        return SAID[wins]
    return max(one.probability, 0.5 + CLEAR) if wins else min(one.probability, 0.5 - CLEAR)


class _Busy(Exception):
    """Another holds the device."""


@dataclass(frozen=True)
class ByModel:
    """``margins`` (n,) of the newest reward model, None with a ``reason``."""

    margins: NDArray[np.float32] | None = None
    number: int = 0
    reason: str = ""


def by_reward_model(work: runs.Work, project: Project, cases: Sequence[Case]) -> ByModel:
    """What the project's newest reward model says of the cases.

    It is what a score run wrote; without one, a model of a cheap backbone is asked now, where the
    device is free.
    """
    model = RewardModel.objects.filter(project=project).order_by("-number").first()
    if model is None:
        return ByModel(reason="No reward model is trained.")
    ids = sorted({pk for case in cases for pk in case.ids})
    known = reward_scores.model_scores(model.pk, ids)
    missing = [case for case in cases if not known.keys() >= set(case.ids)]
    if missing:
        if split_backbone(model.backbone)[0] not in CHEAP:
            reason = f"{model.name} has not scored these answers: start a score run of it first."
            return ByModel(reason=reason)
        try:
            known |= _score(work, model, missing)
        except _Busy:
            return ByModel(reason=f"The device was busy, and {model.name} has not scored these.")
        except ModelsError as error:
            return ByModel(reason=f"{model.name} could not be asked: {error.message}")
    found = [known.get(case.ids[0], np.nan) - known.get(case.ids[1], np.nan) for case in cases]
    return ByModel(np.array(found, dtype=np.float32), model.number)


def _score(work: runs.Work, model: RewardModel, cases: Sequence[Case]) -> dict[int, float]:
    judge = RewardModelJudge(
        RewardModelOptions(number=model.number), folder=training.artifact_folder(model)
    )
    judge.check = work.check
    asked = {
        pk: (_item_of(case), response.candidate.text)
        for case in cases
        for pk, response in zip(case.ids, case.responses, strict=True)
    }

    def wait(other: str) -> None:
        raise _Busy(other)

    with devices.hold(holder=f"run {work.run.pk}", on_wait=wait):
        try:
            found = judge.scores(list(asked.values()))
        finally:
            gateway.release()
    return {pk: one for pk, one in zip(asked, found, strict=True) if one is not None}


def _item_of(case: Case) -> Item:
    return Item(case.pair.id, "pairwise", case.pair.messages, (case.pair.chosen,))
