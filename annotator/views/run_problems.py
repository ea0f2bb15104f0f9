"""What a run of a judge met: its failures by kind, the tasks it left, trying those again."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError
from annotator.jobs import base
from annotator.models import Role, Run
from annotator.queries import judging as queries
from annotator.queries import runs as run_queries
from annotator.services import judging
from annotator.views.helpers import Access, page_after, project_page


@dataclass(frozen=True)
class Problem:
    """One kind of failure: attempts made again, answers lost, tasks left without a verdict."""

    reason: str
    retries: int
    errors: int
    tasks: int


def problems(run: Run) -> list[Problem]:
    """By kind, those that cost most tasks first."""
    used = run.counters
    retries, errors = used.get("retries", {}), used.get("errors", {})
    tasks = used.get("failures", {})
    rows = [
        Problem(queries.reason(kind), retries.get(kind, 0), errors.get(kind, 0), tasks.get(kind, 0))
        for kind in {*retries, *errors, *tasks}
    ]
    return sorted(rows, key=lambda one: (-one.tasks, -one.errors, -one.retries, one.reason))


def _find(access: Access, run_id: int) -> Run:
    found = run_queries.find(access.project, run_id)
    if found is None or found.kind != Run.Kind.JUDGE:
        raise Http404("no such run of a judge in this project")
    return found


@project_page(Role.REVIEWER)
@require_GET
def failures(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """The tasks without a verdict, each with its reason."""
    found = _find(access, run_id)
    after = page_after(request)
    context = {
        "access": access,
        "run": found,
        "page": queries.failures(found, after=after),
    }
    return render(request, "runs/failures.html", context)


@project_page(Role.OWNER)
@require_POST
def retry_failed(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """A new run over the tasks that this one left."""
    found = _find(access, run_id)
    try:
        with transaction.atomic():
            fresh = judging.retry_failed(run=found, by=request.user)
            base.enqueue(fresh)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect("run", slug=access.project.slug, run_id=found.pk)
    messages.success(request, f"Run {fresh.pk} tries what failed again.")
    return redirect("run", slug=access.project.slug, run_id=fresh.pk)
