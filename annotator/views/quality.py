"""Raters and agreement: what the newest quality report says, and what can be done about it."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError
from annotator.jobs import base
from annotator.kinds import KINDS
from annotator.models import Judgment, QualityReport, Rater, Role, Run
from annotator.queries import quality as queries
from annotator.queries.runs import ACTIVE
from annotator.services import quality
from annotator.views.helpers import Access, project_page
from annotator.views.quality_charts import agreement_page, weeks
from annotator.views.quality_raters import raters_page, seconds
from models.aggregators import AGGREGATORS

SINCE: Final = {"start": "the start", "7": "7 days", "30": "30 days"}
SAID: Final = {
    "pause": "{} is paused: nothing new is handed out to them.",
    "resume": "{} gets tasks again.",
    "exclude": "The votes of {} are kept but no longer counted. The figures follow in a moment.",
    "include": "The votes of {} count again. The figures follow in a moment.",
}


@project_page(Role.REVIEWER)
@require_GET
def raters(request: HttpRequest, access: Access) -> HttpResponse:
    found = _newest(access)
    context = _context(access, found)
    if found is not None:
        since = request.GET.get("since", "start")
        kind = request.GET.get("kind", "all")
        kinds = queries.kinds(found.figures)
        since, kind = since if since in SINCE else "start", kind if kind in kinds else "all"
        chosen = queries.chosen(found.figures, since=since, kind=kind)
        ids = {row["id"] for row in chosen["raters"]} | set(chosen["matrix"]["raters"])
        now = Rater.objects.filter(project=access.project).in_bulk(ids)
        time = chosen["headline"]["time"]
        context |= {
            "chosen": chosen,
            "page": raters_page(chosen, now),
            "weeks": weeks(found.figures["agreement"]["weeks"]),
            "since": since,
            "kind": kind,
            "sinces": SINCE.items(),
            "kinds": [(key, KINDS[key].label) for key in kinds],
            "time": {name: seconds(time[name]) for name in ("value", "low", "high")},
        }
    return render(request, "quality/raters.html", context)


@project_page(Role.REVIEWER)
@require_GET
def agreement(request: HttpRequest, access: Access) -> HttpResponse:
    found = _newest(access)
    context = _context(access, found)
    if found is not None:
        context |= {"figures": found.figures, "page": agreement_page(found.figures)}
    return render(request, "quality/agreement.html", context)


@project_page(Role.REVIEWER)
@require_POST
def measure(request: HttpRequest, access: Access) -> HttpResponse:
    """Start a quality run, or go on waiting for the one under way."""
    with transaction.atomic():
        run, is_new = quality.start(project=access.project, by=request.user)
        if is_new:
            base.enqueue(run)
    return redirect("run", slug=access.project.slug, run_id=run.pk)


@project_page(Role.OWNER)
@require_POST
def rater(request: HttpRequest, access: Access, rater_id: int, action: str) -> HttpResponse:
    """Pause or resume a rater, leave their votes out or count them again."""
    try:
        with transaction.atomic():
            changed = quality.change_rater(
                project=access.project, rater_id=rater_id, action=action, by=request.user
            )
            if action in ("exclude", "include"):
                run, is_new = quality.start(project=access.project, by=request.user)
                if is_new:
                    base.enqueue(run)
    except AppError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, SAID[action].format(changed.name))
    return redirect("raters", slug=access.project.slug)


def _newest(access: Access) -> QualityReport | None:
    """The newest report; one that is behind is made anew in the background."""
    with transaction.atomic():
        run = quality.start_if_stale(project=access.project)
        if run is not None:
            base.enqueue(run)
    return queries.report(access.project)


def _context(access: Access, found: QualityReport | None) -> dict[str, Any]:
    active = (
        Run.objects.filter(project=access.project, kind=Run.Kind.QUALITY, state__in=ACTIVE)
        .order_by("-pk")
        .first()
    )
    aggregator = found.figures["aggregator"] if found else ""
    method = AGGREGATORS.get(aggregator)
    return {
        "access": access,
        "report": found,
        "newer": queries.newer(access.project, found) if found else 0,
        "active": active,
        "aggregator": method.label if method else aggregator,
        "has_judgments": found is not None
        or Judgment.objects.filter(project=access.project, is_current=True).exists(),
    }
