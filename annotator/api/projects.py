"""Projects and their runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema

from annotator.models import Project, Role, Run
from annotator.queries import annotation
from annotator.queries.access import access_or_404
from annotator.services import runs

router = Router(tags=["projects"])
PAGE = 100


class ProjectOut(Schema):
    slug: str
    name: str
    question: str
    modality: str
    role: Role
    is_simulated: bool
    created_at: datetime


class RunOut(Schema):
    id: int
    kind: str
    title: str
    state: str
    progress: int
    total: int | None
    unit: str
    message: str
    error: str
    advice: str
    result: dict[str, Any]
    counters: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ProgressOut(Schema):
    judgments: int
    wanted: int


@router.get("", response=list[ProjectOut])
def list_projects(request: HttpRequest) -> list[dict[str, Any]]:
    """The projects the token's holder is a member of."""
    mine = Project.objects.for_user(request.user).filter(memberships__user=request.user)
    columns = ("slug", "name", "question", "modality", "is_simulated", "created_at")
    rows = mine.values(*columns, "memberships__role")
    return [{**row, "role": row["memberships__role"]} for row in rows]


@router.get("/{slug}/progress", response=ProgressOut)
def progress(request: HttpRequest, slug: str) -> dict[str, int]:
    """Judgments in and judgments asked for; the latter is a minute old at most."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    judged = annotation.judged(access.project.pk)
    return {"judgments": judged, "wanted": annotation.wanted(access.project.pk)}


@router.get("/{slug}/runs", response=list[RunOut])
def list_runs(request: HttpRequest, slug: str, before: int | None = None) -> list[Run]:
    """Runs, newest first, a hundred at a time: pass the last id as ``before``."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    rows = Run.objects.filter(project=access.project).order_by("-id")
    return list(rows.filter(pk__lt=before)[:PAGE] if before else rows[:PAGE])


@router.get("/{slug}/runs/{run_id}", response=RunOut)
def read_run(request: HttpRequest, slug: str, run_id: int) -> Run:
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    return get_object_or_404(Run, project=access.project, pk=run_id)


@router.post("/{slug}/runs/{run_id}/cancel", response=RunOut)
def cancel_run(request: HttpRequest, slug: str, run_id: int) -> Run:
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    run = get_object_or_404(Run, project=access.project, pk=run_id)
    runs.cancel(run=run, by=request.user)
    run.refresh_from_db()
    return run
