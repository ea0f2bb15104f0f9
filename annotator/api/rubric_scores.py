"""The rewards of a rubric version, response by response, and starting to score."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal

from django.db import transaction
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import NotFound
from annotator.jobs import base
from annotator.models import Judge, Role, RubricVersion, Run
from annotator.queries import reward_scores as queries
from annotator.queries import rubrics
from annotator.queries.access import Access, access_or_404
from annotator.services import reward_scores
from rubrics.llm.budget import Budget
from rubrics.rewards import LOSE, binary

MOST = 1_000

router = Router(tags=["rubrics"])


class ScoreOut(Schema):
    response: int
    prompt: int
    reward: float


class ScoresOut(Schema):
    """``next`` is the ``after`` of the next page, null at the end. ``summary`` is of all scores as
    the last run left them: the mean to center by, the spread within prompts to scale by."""

    form: str
    not_applicable: str
    summary: dict[str, Any] | None
    scores: list[ScoreOut]
    next: int | None


class PageIn(Schema):
    after: int | None = Field(None, ge=0, lt=2**63)
    limit: int = Field(200, ge=1, le=MOST)
    form: Literal["raw", "binary"] = "raw"
    lose: float = Field(LOSE, ge=-100, lt=1)


class ScoringIn(Schema):
    """What to score and how; empty or null is the default. ``judge``: id of the verifier."""

    form: str = Field("", max_length=20)
    not_applicable: str = Field("", max_length=20)
    judge: int | None = Field(None, gt=0, lt=2**63)
    only: str = Field("all", max_length=20)
    splits: list[str] = Field(default_factory=list, max_length=3)
    sample: int | None = Field(None, gt=0, le=reward_scores.MOST)
    calls: int | None = Field(None, gt=0, le=reward_scores.MOST)
    tokens: int | None = Field(None, gt=0, le=reward_scores.MOST)
    money: float | None = Field(None, gt=0, le=reward_scores.MOST)


def _find(access: Access, rubric_id: int, number: int) -> RubricVersion:
    found = rubrics.find(access.project, rubric_id, number)
    if found is None:
        raise NotFound("There is no such version of a rubric in this project.")
    return found


@router.get("/{slug}/rubrics/{int:rubric_id}/v{int:number}/scores", response=ScoresOut)
def read_scores(
    request: HttpRequest, slug: str, rubric_id: int, number: int, page: Query[PageIn]
) -> dict[str, Any]:
    """Rewards in order of response. ``form=binary`` gives those of ARR within each prompt, whole
    prompts at a time, in order of prompt."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    version = _find(access, rubric_id, number)
    basis = version.figures.get(queries.BASIS) or {}
    done = queries.last_done(version)
    if page.form == "binary":
        rows, following = queries.prompts_page(version.pk, after=page.after, size=page.limit)
        scores = [
            {"response": pk, "prompt": prompt, "reward": reward}
            for prompt, of_prompt in groupby(rows, key=lambda row: row[1])
            for (pk, _, _), reward in _binary(list(of_prompt), lose=page.lose)
        ]
    else:
        rows, following = queries.scores_page(version.pk, after=page.after, size=page.limit)
        scores = [{"response": pk, "prompt": prompt, "reward": mean} for pk, prompt, mean in rows]
    return {
        "form": basis.get("form", ""),
        "not_applicable": basis.get("not_applicable", ""),
        "summary": done.result["summary"] if done else None,
        "scores": scores,
        "next": following,
    }


def _binary(rows: list[Any], *, lose: float) -> list[tuple[Any, float]]:
    return list(zip(rows, binary([row[2] for row in rows], lose=lose), strict=True))


@router.post("/{slug}/rubrics/{int:rubric_id}/v{int:number}/scores", response=RunOut)
def start_scoring(
    request: HttpRequest, slug: str, rubric_id: int, number: int, body: ScoringIn
) -> Run:
    """Score responses in the background; read the run to see how far it is."""
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    version = _find(access, rubric_id, number)
    judge = None
    if body.judge is not None:
        rows = Judge.objects.select_related("endpoint").filter(project=access.project)
        judge = rows.filter(pk=body.judge).first()
        if judge is None:
            raise NotFound("There is no such judge in this project.")
    with transaction.atomic():
        run = reward_scores.start(
            version=version,
            by=request.user,
            form=body.form,
            not_applicable=body.not_applicable,
            judge=judge,
            only=body.only,
            splits=body.splits,
            sample=body.sample,
            budget=Budget(calls=body.calls, tokens=body.tokens, money=body.money),
        )
        base.enqueue(run)
    return run
