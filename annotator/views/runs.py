"""Runs: a list, and one page that shows any run while it works and when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError
from annotator.jobs import base
from annotator.models import Role, Run
from annotator.queries import curves
from annotator.queries import runs as queries
from annotator.services import retries
from annotator.services import runs as service
from annotator.views import dataset_page, run_charts
from annotator.views.helpers import Access, page_after, project_page
from annotator.views.run_page import run_page
from annotator.views.run_problems import problems

# What a finished run shows besides itself.
RESULTS: Final = {
    Run.Kind.IMPORT: "imports/result.html",
    Run.Kind.TRAIN: "rewards/result.html",
    Run.Kind.EXPORT: "datasets/result.html",
    Run.Kind.QUALITY: "quality/result.html",
    Run.Kind.JUDGE: "judges/result.html",
    Run.Kind.BATTERY: "judges/result.html",
    Run.Kind.REPORT: "judges/result.html",
    Run.Kind.TRY: "rubrics/tried.html",
    Run.Kind.SCORE: "rubrics/scored.html",
    Run.Kind.EVALUATE: "rewards/evaluated.html",
}
# What a run of a kind shows at any time, beside its figures.
PARTS: Final = {
    Run.Kind.JUDGE: "runs/judging.html",
    Run.Kind.RUBRIC: "runs/rubric.html",
    Run.Kind.MEASURE: "runs/rubric.html",
}
LOG_CHUNK: Final = 16_384


@project_page(Role.REVIEWER)
@require_GET
def runs(request: HttpRequest, access: Access) -> HttpResponse:
    kind, state = request.GET.get("kind", ""), request.GET.get("state", "")
    kind = kind if kind in Run.Kind.values else ""
    state = state if state in queries.STATES else ""
    context = {
        "access": access,
        "page": queries.runs(access.project, kind=kind, state=state, after=page_after(request)),
        "kind": kind,
        "state": state,
        "kinds": Run.Kind.choices,
        "states": [(key, label) for key, (label, _) in queries.STATES.items()],
    }
    name = "runs/runs.html#list" if request.htmx else "runs/runs.html"
    return render(request, name, context)


@project_page(Role.REVIEWER)
@require_GET
def run(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """The page; for htmx only the part that renews itself while there is something to wait for."""
    found = _find(access, run_id)
    points, detail = curves.curves(found), queries.detail(found)
    if found.kind == Run.Kind.EXPORT:
        config, usual = dataset_page.configured(found)
        detail = replace(detail, config=config, usual=usual)
    context = {
        "access": access,
        "run": found,
        "detail": detail,
        "shown": run_page(detail, points),
        "charts": run_charts.charts(points, ceiling=_ceiling(found)),
        "result_template": RESULTS.get(found.kind),
        "part_template": PARTS.get(found.kind),
        "problems": problems(found),
        "dropped": dataset_page.dropped(found.result.get("dropped") or {}),
    }
    name = "runs/run.html#live" if request.htmx else "runs/run.html"
    return render(request, name, context)


def _ceiling(found: Run) -> float | None:
    """How often people agree with people, where the run measured it."""
    measured = (found.result.get("baselines") or {}).get("human_ceiling") or {}
    return measured.get("accuracy")


def _find(access: Access, run_id: int) -> Run:
    found = queries.find(access.project, run_id)
    if found is None:
        raise Http404("no such run in this project")
    return found


@project_page(Role.REVIEWER)
@require_GET
def log(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """The log as far as it is kept, as text."""
    _find(access, run_id)

    def chunks() -> Iterator[str]:
        text = Run.objects.values_list("log", flat=True).get(pk=run_id)
        for start in range(0, len(text), LOG_CHUNK):
            yield text[start : start + LOG_CHUNK]

    response = StreamingHttpResponse(chunks(), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'inline; filename="run-{run_id}.txt"'
    return response


@project_page(Role.OWNER)
@require_POST
def cancel(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    found = _find(access, run_id)
    if not found.is_active:
        messages.info(request, "The run had ended already.")
    else:
        service.cancel(run=found, by=request.user)
        messages.success(request, "It stops after the chunk at hand. What is done is kept.")
    return _back(access, found)


@project_page(Role.OWNER)
@require_POST
def pause(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """Stop in order to go on later: what is done is kept either way."""
    found = _find(access, run_id)
    if not queries.line(found).can_pause:
        messages.info(request, "There is nothing to pause.")
    else:
        service.cancel(run=found, by=request.user, is_pause=True)
        messages.success(request, "It pauses after the tasks at hand. Resume it at any time.")
    return _back(access, found)


@project_page(Role.OWNER)
@require_POST
def resume(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """The same run again, from its last chunk or checkpoint."""
    found = _find(access, run_id)
    try:
        service.resume(run=found, by=request.user)
    except AppError as error:
        messages.error(request, error.message)
        return _back(access, found)
    base.enqueue(found)
    messages.success(request, "Queued again. It goes on where it stopped.")
    return _back(access, found)


@project_page(Role.OWNER)
@require_POST
def retry(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """A new run with the same configuration, from the start."""
    found = _find(access, run_id)
    fresh = retries.retry(run=found, by=request.user)
    base.enqueue(fresh)
    messages.success(request, f"Run {fresh.pk} has the configuration of run {found.pk}.")
    return _back(access, fresh)


def _back(access: Access, to: Run) -> HttpResponse:
    return redirect("run", slug=access.project.slug, run_id=to.pk)
