"""Reward models for programs: which there are, scores on demand, scores that are stored."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import numpy as np
from django.conf import settings
from django.db import transaction
from django.http import Http404, HttpRequest
from ninja import Field, Query, Router, Schema, Status
from redis import RedisError

from annotator.errors import MethodFailed, Unavailable
from annotator.jobs import base
from annotator.models import RewardModel, Role, Run, RunState
from annotator.models.people import hash_token
from annotator.queries import reward_asks as queries
from annotator.queries.access import access_or_404
from annotator.services import asked_items, ensembles, rate_limits, reward_transforms
from annotator.services import reward_asks as service
from annotator.services.ensembles import LARGEST_PENALTY
from annotator.services.reward_asks import MAX_TEXT, MOST_TEXTS, MOST_TURNS
from models.transforms import MOST_REFERENCES, ON_PROMPT, PENALTY

log = logging.getLogger(__name__)

router = Router(tags=["reward models"])
project_router = Router(tags=["reward models"])

BIGGEST: Final = 2**63 - 1
PAGE: Final = 100
MOST: Final = 1_000
TOLD: Final = ("reference", "scores", "raw", "variance", "combined")

Transform = Literal["raw", "standardized", "par", "log-sigmoid"]
Combine = Literal["mean", "worst", "penalized"]


class MessageIn(Schema):
    role: str = Field(max_length=service.MAX_ROLE)
    content: str = Field(max_length=MAX_TEXT)


Messages = Annotated[list[MessageIn], Field(min_length=1, max_length=MOST_TURNS)]
Long = Annotated[str, Field(max_length=MAX_TEXT)]


class StoredIn(Schema):
    """An answer of the project, by its id."""

    id: int = Field(gt=0, le=BIGGEST)


class PictureIn(Schema):
    """A picture as base64, bare or in a data URI: PNG, JPEG, WebP or GIF. It is not kept."""

    image: str


class ItemIn(Schema):
    """An answer to a prompt: texts, or messages with a role each; a picture, or an answer of the
    project by its id, whose prompt stands in where none is given.

    ``references``: answers to the same prompt that ``par`` and ``log-sigmoid`` measure it by;
    without them, those that the project has to this prompt.
    """

    prompt: Long | Messages | None = None
    response: Long | Messages | StoredIn | PictureIn
    references: list[Long | StoredIn | PictureIn] = Field([], max_length=MOST_REFERENCES)


class ScoreIn(Schema):
    """``combine``: how one score is made of an ensemble's members; ``penalty`` is what the variance
    of the members counts in "penalized"."""

    items: list[ItemIn] = Field(min_length=1, max_length=MOST_TEXTS)
    transform: Transform = "raw"
    combine: Combine = "mean"
    penalty: float = Field(PENALTY, ge=0, le=LARGEST_PENALTY)


class WayOut(Schema):
    """How one score is made of an ensemble's members."""

    combine: str
    penalty: float


class ReferenceOut(Schema):
    """Mean and standard deviation of the model's raw scores of ``n`` held-out responses."""

    center: float
    scale: float
    n: int


class ScoreOut(Schema):
    """``scores`` in the order of the items, null where one has none; then ``run`` is null.

    Where no worker answered in time they are null, and ``run`` is the run that will have them as
    its result: read it at /api/v1/projects/SLUG/runs/RUN. ``variance`` is that of an ensemble's
    members, each in its own standard deviations; null for a single model.
    """

    run: int | None
    state: str
    project: str
    model: str
    transform: str
    reference: ReferenceOut | None
    scores: list[float | None] | None
    raw: list[float | None] | None
    variance: list[float | None] | None
    combined: WayOut | None


class ModelOut(Schema):
    id: int
    number: int
    name: str
    objective: str
    backbone: str
    options: dict[str, Any]
    metrics: dict[str, Any]
    run: int
    created_at: datetime


class StoredOut(Schema):
    response: int
    prompt: int
    score: float | None
    variance: float | None


class StoredPageOut(Schema):
    """``next`` is the ``after`` of the next page, null at the end. ``variance`` is that of an
    ensemble's members, each in its own standard deviations, whatever the transform; ``combined``
    is how the stored scores were made of them."""

    model: str
    transform: str
    reference: ReferenceOut | None
    combined: WayOut | None
    scores: list[StoredOut]
    next: int | None


class PageIn(Schema):
    after: int = Field(0, ge=0, le=BIGGEST)
    limit: int = Field(200, ge=1, le=MOST)
    transform: Transform = "raw"


def _find(request: HttpRequest, pk: int) -> RewardModel:
    """Raises Http404 for a stranger as for a model that is not there, NotAllowed for others."""
    model = queries.find_model(min(pk, BIGGEST))
    if model is None:
        raise Http404("no such reward model for this user")
    access_or_404(request.user, model.project.slug, at_least=Role.OWNER)
    return model


@project_router.get("/{slug}/reward-models", response=list[ModelOut])
def list_models(request: HttpRequest, slug: str, before: int | None = None) -> list[dict[str, Any]]:
    """Reward models, newest first, a hundred at a time: pass the last id as ``before``."""
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    rows = RewardModel.objects.filter(project=access.project).order_by("-pk")
    rows = rows.filter(pk__lt=min(before, BIGGEST)) if before else rows
    columns = ("number", "name", "objective", "backbone", "options", "metrics", "created_at")
    return [
        {"id": one.pk, "run": one.run_id, **{name: getattr(one, name) for name in columns}}
        for one in rows[:PAGE]
    ]


@router.post("/{int:pk}/score", response={200: ScoreOut, 202: ScoreOut})
def score(request: HttpRequest, pk: int, body: ScoreIn) -> Status[dict[str, Any]]:
    """Scores of up to 256 answers, references included. 202 with a run where they take longer."""
    _limit(request)
    model = _find(request, pk)
    items = asked_items.items(model.project, body.model_dump()["items"])
    asked = service.make(
        items, transform=body.transform, combine=body.combine, penalty=body.penalty
    )
    with transaction.atomic():
        run = service.begin(model=model, asked=asked, by=request.user)
        base.enqueue(run)
    run = service.wait(run)
    if run.state == RunState.DONE:
        answer = _answer(model, run, body.transform)
        service.forget(run)
        return Status(200, answer)
    if not run.is_active:
        raise MethodFailed(run.error or "The request was canceled.", advice=run.advice)
    return Status(202, _answer(model, run, body.transform))


def _limit(request: HttpRequest) -> None:
    """Raises TooMany, Unavailable."""
    per_minute = settings.SCORE_REQUESTS_PER_MINUTE
    secret = request.headers.get("Authorization", "").partition(" ")[2].strip()
    try:
        rate_limits.take(
            "score", of=hash_token(secret), per_minute=per_minute, burst=max(1, per_minute // 6)
        )
    except RedisError:
        log.warning("scores cannot be asked for: Redis is away", exc_info=True)
        raise Unavailable("The queue is away for now.", advice="Try again in a moment.") from None


def _answer(model: RewardModel, run: Run, transform: str) -> dict[str, Any]:
    result = run.result if run.state == RunState.DONE else {}
    return {
        "run": None if result else run.pk,
        "state": run.state,
        "project": model.project.slug,
        "model": model.name,
        "transform": transform,
        **{name: result.get(name) for name in TOLD},
    }


@router.get("/{int:pk}/scores", response=StoredPageOut)
def stored_scores(request: HttpRequest, pk: int, page: Query[PageIn]) -> dict[str, Any]:
    """What scoring the project's responses stored, in order of response.

    ``par`` and ``log-sigmoid`` measure a response by up to ten others to its prompt; it has no
    score (null) where there is none. ``standardized`` needs a model that was asked for a score
    before: that settles its scale.
    """
    model = _find(request, pk)
    rows, following = queries.scores_page(model.pk, after=page.after, size=page.limit)
    reference = queries.reference_of(model)
    references: list[Any] = []
    if page.transform in ON_PROMPT:
        of_prompt = queries.scores_of_prompts(
            model.pk, [row[1] for row in rows], most=MOST_REFERENCES + 1
        )
        for response, prompt, _, _ in rows:
            others = [mean for other, mean in of_prompt.get(prompt, ()) if other != response]
            references.append(np.array(others[:MOST_REFERENCES]))
    raw = np.array([row[2] for row in rows], dtype=np.float64)
    shown = reward_transforms.apply(
        page.transform, raw, reference=reference, references=references,
        unit=ensembles.unit_of(model),
    )  # fmt: skip
    is_ensemble = model.members > 1
    return {
        "model": model.name,
        "transform": page.transform,
        "reference": reference.as_json() if reference else None,
        "combined": ensembles.way_of(model).as_json() if is_ensemble else None,
        "scores": [
            {"response": row[0], "prompt": row[1], "variance": row[3],
             "score": float(value) if np.isfinite(value) else None}
            for row, value in zip(rows, shown, strict=True)
        ],
        "next": following,
    }  # fmt: skip
