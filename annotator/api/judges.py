"""AI judges for programs: which there are, a run of one. Its state is that of any run."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Field, Router, Schema

from annotator.api.projects import RunOut
from annotator.jobs import base
from annotator.models import Judge, Role, Run
from annotator.queries.access import access_or_404
from annotator.services import judging
from rubrics.llm.budget import Budget

PAGE: Final = 100

router = Router(tags=["judges"])


class JudgeOut(Schema):
    """One version of a judge; ``judged`` counts its verdicts in force.

    ``rubric`` names the version of a rubric that its criteria are of, such as "Helpful v2".
    """

    id: int
    name: str
    version: int
    kind: str
    model: str
    endpoint: str | None
    rubric: str | None
    options: dict[str, Any]
    template: str
    template_hash: str
    is_simulated: bool
    judged: int
    created_at: datetime
    archived_at: datetime | None


class JudgingIn(Schema):
    """What a run takes and what it may use; null is no limit.

    ``tasks``: all, unlabeled, labeled or NAME=VALUE with commas (status, kind, group, tag, split, text).
    ``retry``: "failed" takes what this judge could not judge before.
    """

    tasks: str = Field("all", max_length=500)
    limit: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    calls: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    tokens: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    money: float | None = Field(None, gt=0, le=judging.MAX_CALLS)
    retry: str = Field("", max_length=10)


def _out(judge: Judge) -> dict[str, Any]:
    return {
        "id": judge.pk,
        "endpoint": judge.endpoint.name if judge.endpoint else None,
        "judged": judge.rater.judged,
        "rubric": str(judge.rubric_version) if judge.rubric_version else None,
        **{
            name: getattr(judge, name)
            for name in JudgeOut.model_fields
            if name not in ("id", "endpoint", "judged", "rubric")
        },
    }


@router.get("/{slug}/judges", response=list[JudgeOut])
def list_judges(request: HttpRequest, slug: str, before: int | None = None) -> list[dict[str, Any]]:
    """Judges, newest first, a hundred at a time: pass the last id as ``before``."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    rows = Judge.objects.filter(project=access.project).select_related(
        "rater", "endpoint", "rubric_version__rubric"
    )
    rows = rows.filter(pk__lt=before) if before else rows
    return [_out(judge) for judge in rows.order_by("-pk")[:PAGE]]


@router.post("/{slug}/judges/{judge_id}/runs", response=RunOut)
def start_judging(request: HttpRequest, slug: str, judge_id: int, body: JudgingIn) -> Run:
    """Have tasks judged in the background; read the run to see how far it is."""
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    judge = get_object_or_404(
        Judge.objects.select_related("endpoint", "project"), project=access.project, pk=judge_id
    )
    with transaction.atomic():
        run = judging.start(
            project=access.project,
            judge=judge,
            by=request.user,
            tasks=body.tasks.replace("\0", ""),
            limit=body.limit,
            budget=Budget(calls=body.calls, tokens=body.tokens, money=body.money),
            retry=body.retry,
        )
        base.enqueue(run)
    return run
