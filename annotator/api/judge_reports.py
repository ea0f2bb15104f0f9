"""The newest report on a judge, and starting a new one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import NotFound
from annotator.jobs import base
from annotator.models import Judge, Role, Run
from annotator.queries import judge_report as queries
from annotator.queries.access import access_or_404
from annotator.services import judge_report

router = Router(tags=["judges"])


class JudgeReportOut(Schema):
    """Figures as the page shows them; an estimate is its value with a 95 % interval and counts."""

    run: int | None
    created_at: datetime
    newer: int
    figures: dict[str, Any]


def _judge(request: HttpRequest, slug: str, judge_id: int) -> Judge:
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    rows = Judge.objects.select_related("project", "rater")
    judge: Judge = get_object_or_404(rows, project=access.project, pk=judge_id)
    return judge


@router.get("/{slug}/judges/{judge_id}/report", response=JudgeReportOut)
def read_judge_report(request: HttpRequest, slug: str, judge_id: int) -> dict[str, Any]:
    """The newest report; ``newer`` counts the project's judgments since."""
    judge = _judge(request, slug, judge_id)
    found = queries.report(judge)
    if found is None:
        raise NotFound("Nothing was computed yet.", advice="POST to the same address.")
    return {
        "run": found.run_id,
        "created_at": found.created_at,
        "newer": queries.newer(judge, found),
        "figures": found.figures,
    }


@router.post("/{slug}/judges/{judge_id}/report", response=RunOut)
def make_judge_report(request: HttpRequest, slug: str, judge_id: int) -> Run:
    """Compute a new report in the background; the run under way where there is one."""
    judge = _judge(request, slug, judge_id)
    with transaction.atomic():
        run, is_new = judge_report.start(judge=judge, by=request.user)
        if is_new:
            base.enqueue(run)
    return run
