"""Evaluations of reward models: the newest of a model, and what a model can be set beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Exists, OuterRef, QuerySet

from annotator.models import (
    Judge,
    Preference,
    Project,
    RewardModel,
    RewardScore,
    RubricVersion,
    Run,
    RunState,
)
from annotator.queries.rewards import described
from annotator.queries.runs import ACTIVE

MOST: Final = 12  # of each kind that are offered, the newest
IMPORTS: Final = 20
LISTED: Final = 200  # evaluations that a list of models looks through


@dataclass(frozen=True)
class Choice:
    """Something else that says which of two answers is better. ``key`` names it for good."""

    key: str
    label: str
    kind: str  # "reward-model", "judge", "rubric"
    id: int
    has_scores: bool = True


def choices(model: RewardModel) -> list[Choice]:
    """What a model of the same project can be compared with: models, judges, scored rubrics."""
    project = model.project
    scores = RewardScore.objects.filter(reward_model=OuterRef("pk"))
    models = RewardModel.objects.filter(project=project).exclude(pk=model.pk)
    models = models.annotate(has_scores=Exists(scores)).order_by("-number")[:MOST]
    votes = Preference.objects.filter(project=project, rater=OuterRef("rater"))
    judges = Judge.objects.filter(Exists(votes), project=project).order_by("-pk")[:MOST]
    of_version = RewardScore.objects.filter(rubric_version=OuterRef("pk"))
    versions = RubricVersion.objects.filter(Exists(of_version), rubric__project=project)
    versions = versions.select_related("rubric").order_by("-pk")[:MOST]
    return [
        *(Choice(one.name, f"{one.name}, {described(one)}",
                 "reward-model", one.pk, one.has_scores) for one in models),
        *(Choice(f"rubric-{one.pk}", str(one), "rubric", one.pk) for one in versions),
        *(Choice(f"judge-{one.pk}", str(one), "judge", one.pk) for one in judges),
    ]  # fmt: skip


def _runs(model: RewardModel) -> QuerySet[Run]:
    return Run.objects.filter(
        project_id=model.project_id, kind=Run.Kind.EVALUATE, config__reward_model=model.pk
    ).order_by("-pk")


def newest(model: RewardModel) -> Run | None:
    """The newest evaluation that ended well."""
    return _runs(model).filter(state=RunState.DONE, result__has_key="figures").first()


def active(model: RewardModel) -> Run | None:
    return _runs(model).filter(state__in=ACTIVE).first()


def newest_and_active(model: RewardModel) -> tuple[Run | None, Run | None]:
    """Both in one statement, for pages."""
    done = _runs(model).filter(state=RunState.DONE, result__has_key="figures")[:1]
    found = list(done.union(_runs(model).filter(state__in=ACTIVE)[:1], all=True))
    by_state = {run.is_active: run for run in found}
    return by_state.get(False), by_state.get(True)


@dataclass(frozen=True)
class Headline:
    """What the list of models shows of a model's newest evaluation."""

    run_id: int
    ece: dict[str, Any] | None
    length: dict[str, Any] | None
    speed: float | None


def headlines(project: Project, models: list[int]) -> dict[int, Headline]:
    """By number of model. Figures are not read."""
    rows = (
        Run.objects.filter(
            project=project, kind=Run.Kind.EVALUATE, state=RunState.DONE,
            result__reward_model__in=models,
        )
        .order_by("-pk")
        .values_list(
            "pk", "result__reward_model", "result__ece", "result__length",
            "result__answers_per_second",
        )[:LISTED]
    )  # fmt: skip
    found: dict[int, Headline] = {}
    for pk, number, ece, length, speed in rows:
        found.setdefault(number, Headline(pk, ece, length, speed))
    return found


def imports(project: Project) -> list[tuple[int, str]]:
    """Imports that ended well, the newest first: (run, title)."""
    rows = Run.objects.filter(project=project, kind=Run.Kind.IMPORT, state=RunState.DONE)
    return list(rows.order_by("-pk").values_list("pk", "title")[:IMPORTS])
