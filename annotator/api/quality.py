"""The newest quality report of a project, and starting a new one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from ninja import Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import NotFound
from annotator.jobs import base
from annotator.models import Role, Run
from annotator.queries import quality as queries
from annotator.queries.access import access_or_404
from annotator.services import quality

router = Router(tags=["quality"])


class QualityOut(Schema):
    """Figures as the pages show them; an estimate is its value with a 95 % interval."""

    run: int
    created_at: datetime
    newer: int
    aggregator: str
    judgments: int
    agreement: dict[str, Any]
    known: list[dict[str, Any]]
    shared: dict[str, Any] | None
    distribution: dict[str, Any]
    win_rates: dict[str, Any] | None
    headline: dict[str, Any]
    raters: list[dict[str, Any]]


@router.get("/{slug}/quality", response=QualityOut)
def read_quality(
    request: HttpRequest, slug: str, since: str = "start", kind: str = "all"
) -> dict[str, Any]:
    """The newest report; ``since`` (start, 7, 30) and ``kind`` narrow the raters' table."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    found = queries.report(access.project)
    if found is None:
        raise NotFound("Nothing was computed yet.", advice="POST to the same address.")
    chosen = queries.chosen(found.figures, since=since, kind=kind)
    names = ("aggregator", "judgments", "agreement", "known", "shared", "distribution", "win_rates")
    return {
        "run": found.run_id,
        "created_at": found.created_at,
        "newer": queries.newer(access.project, found),
        **{name: found.figures[name] for name in names},
        "headline": chosen["headline"],
        "raters": chosen["raters"],
    }


@router.post("/{slug}/quality", response=RunOut)
def measure_quality(request: HttpRequest, slug: str) -> Run:
    """Compute a new report in the background; the run under way where there is one."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    with transaction.atomic():
        run, is_new = quality.start(project=access.project, by=request.user)
        if is_new:
            base.enqueue(run)
    return run
