"""Evaluations of a reward model: the newest, and starting one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from ninja import Field, Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import NotFound
from annotator.jobs import base
from annotator.models import RewardModel, Role, Run
from annotator.queries import evaluations, rewards
from annotator.queries.access import access_or_404
from annotator.queries.evaluation_pairs import LIMIT, MAX_NAME, MOST
from annotator.services import reward_evaluation

router = Router(tags=["reward models"])


class EvaluationOut(Schema):
    """Figures as the page shows them; an estimate is its value with a 95 % interval and counts."""

    run: int
    finished_at: datetime | None
    config: dict[str, Any]
    figures: dict[str, Any]


class EvaluationIn(Schema):
    """``against``: names of models, and keys of judges and rubrics as an evaluation gives them;
    null is all that have something to say. ``gold`` is "people" or one of them."""

    splits: list[str] = Field(default_factory=lambda: ["test"], max_length=3)
    tag: str = Field("", max_length=MAX_NAME)
    import_run: int | None = Field(None, gt=0, lt=2**63)
    most: int = Field(MOST, gt=0, le=LIMIT)
    against: list[str] | None = Field(None, max_length=50)
    gold: str = Field(reward_evaluation.PEOPLE, max_length=80)


def _find(request: HttpRequest, slug: str, number: int, *, at_least: Role) -> RewardModel:
    access = access_or_404(request.user, slug, at_least=at_least)
    found = rewards.find(access.project, number) if number < 2**31 else None
    if found is None:
        raise NotFound("There is no such reward model in this project.")
    return found


@router.get("/{slug}/reward-models/{int:number}/evaluation", response=EvaluationOut)
def read_evaluation(request: HttpRequest, slug: str, number: int) -> dict[str, Any]:
    """The newest evaluation that ended well."""
    run = evaluations.newest(_find(request, slug, number, at_least=Role.REVIEWER))
    if run is None:
        raise NotFound("It was not evaluated yet.", advice="POST to the same address.")
    return {
        "run": run.pk,
        "finished_at": run.finished_at,
        "config": run.config,
        "figures": run.result["figures"],
    }


@router.post("/{slug}/reward-models/{int:number}/evaluation", response=RunOut)
def start_evaluation(request: HttpRequest, slug: str, number: int, body: EvaluationIn) -> Run:
    """Evaluate in the background; read the run to see how far it is."""
    model = _find(request, slug, number, at_least=Role.OWNER)
    with transaction.atomic():
        run = reward_evaluation.start(reward_model=model, by=request.user, **body.dict())
        base.enqueue(run)
    return run
