"""Rubrics for programs: what there is, inducing one, files in and out, approving a version."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Window
from django.db.models.functions import RowNumber
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Field, Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import NotFound
from annotator.jobs import base
from annotator.models import Judge, Role, Rubric, RubricVersion, Run
from annotator.queries import rubrics as queries
from annotator.queries.access import access_or_404
from annotator.services import induction_plan, judging, rubric_files
from annotator.services import rubrics as service
from rubrics.llm.budget import Budget

PAGE: Final = 100
VERSIONS: Final = 50  # of one rubric in a list
ADDRESS: Final = "/{slug}/rubrics/{int:rubric_id}/versions/{int:number}"

router = Router(tags=["rubrics"])


class VersionLineOut(Schema):
    """``state`` is draft or approved; ``method`` the generator, empty where written by hand."""

    number: int
    state: str
    method: str
    run: int | None
    created_at: datetime
    approved_at: datetime | None


class RubricOut(Schema):
    """A rubric with its newest versions, the newest first."""

    id: int
    name: str
    created_at: datetime
    archived_at: datetime | None
    versions: list[VersionLineOut]


class MeasuredOut(Schema):
    """What was measured last; an estimate is {"value", "low", "high", "n", "ties"}.

    ``is_current``: of the criteria and weights as they are now.
    """

    run: int | None
    at: datetime
    is_current: bool
    figures: dict[str, Any]


class CriterionOut(Schema):
    """``id`` is the key of its figures in ``measured``; ``decision`` says whether it counts."""

    id: int
    text: str
    decision: str
    figures: dict[str, Any]


class VersionOut(Schema):
    """A version with all its criteria; ``file`` has those in force, and can be imported again."""

    rubric: int
    name: str
    number: int
    state: str
    method: str
    run: int | None
    verifier: int | None
    criteria: list[CriterionOut]
    file: dict[str, Any]
    measured: MeasuredOut | None


class InductionIn(Schema):
    """``judge`` is the one whose endpoint and model are asked; limits of null are no limits.

    ``options`` are of the method; ``name`` of a rubric that exists begins its next draft.
    """

    method: str = Field(max_length=40)
    options: dict[str, Any] = {}
    judge: int | None = Field(None, gt=0, lt=2**63)
    name: str = Field("", max_length=200)
    raters: str = Field("all", max_length=20)
    pairs: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    calls: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    tokens: int | None = Field(None, gt=0, le=judging.MAX_CALLS)
    money: float | None = Field(None, gt=0, le=judging.MAX_CALLS)


@router.get("/{slug}/rubrics", response=list[RubricOut])
def list_rubrics(
    request: HttpRequest, slug: str, before: int | None = None
) -> list[dict[str, Any]]:
    """Rubrics, newest first, a hundred at a time: pass the last id as ``before``."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    rows = Rubric.objects.filter(project=access.project)
    rows = rows.filter(pk__lt=before) if before else rows
    found = list(rows.order_by("-pk").values("id", "name", "created_at", "archived_at")[:PAGE])
    versions = _versions([row["id"] for row in found])
    return [{**row, "versions": versions[row["id"]]} for row in found]


def _versions(rubric_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    place = Window(RowNumber(), partition_by="rubric_id", order_by="-number")
    rows = RubricVersion.objects.filter(rubric__in=rubric_ids).annotate(place=place)
    found = defaultdict(list)
    columns = ("rubric_id", "number", "state", "method", "run_id", "created_at", "approved_at")
    for row in rows.filter(place__lte=VERSIONS).order_by("-number").values(*columns):
        found[row["rubric_id"]].append(row | {"run": row["run_id"]})
    return found


@router.get(ADDRESS, response=VersionOut)
def read_version(request: HttpRequest, slug: str, rubric_id: int, number: int) -> dict[str, Any]:
    """One version with its criteria and what was measured of it last."""
    return _out(_find(request, slug, rubric_id, number, at_least=Role.REVIEWER))


@router.post(ADDRESS + "/approve", response=VersionOut)
def approve_version(request: HttpRequest, slug: str, rubric_id: int, number: int) -> dict[str, Any]:
    """Make a draft the rubric's newest version. 409 while a criterion is not decided on."""
    found = _find(request, slug, rubric_id, number, at_least=Role.OWNER)
    return _out(service.approve(version=found, by=request.user))


@router.post("/{slug}/rubrics/induce", response=RunOut)
def induce_rubric(request: HttpRequest, slug: str, body: InductionIn) -> Run:
    """Propose a draft in the background; read the run to see how far it is and what came out."""
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    judge = None
    if body.judge is not None:
        rows = Judge.objects.select_related("endpoint", "project")
        judge = get_object_or_404(rows, project=access.project, pk=body.judge)
    with transaction.atomic():
        run = induction_plan.start(
            project=access.project,
            method=body.method,
            options=induction_plan.with_pairs(body.method, body.options, body.pairs),
            judge=judge,
            name=body.name,
            raters=body.raters,
            pairs=body.pairs,
            budget=Budget(calls=body.calls, tokens=body.tokens, money=body.money),
            by=request.user,
        )
        base.enqueue(run)
    return run


@router.post("/{slug}/rubrics/import", response=VersionOut)
def import_rubric(request: HttpRequest, slug: str, name: str = "") -> dict[str, Any]:
    """A draft from the file in the body; ``name`` instead of the one in the file."""
    access = access_or_404(request.user, slug, at_least=Role.OWNER)
    data = request.read(rubric_files.MAX_BYTES + 1)
    return _out(rubric_files.read(project=access.project, data=data, name=name, by=request.user))


def _find(
    request: HttpRequest, slug: str, rubric_id: int, number: int, *, at_least: Role
) -> RubricVersion:
    access = access_or_404(request.user, slug, at_least=at_least)
    found = queries.find(access.project, rubric_id, number)
    if found is None:
        raise NotFound("There is no such version of a rubric in this project.")
    return found


def _out(version: RubricVersion) -> dict[str, Any]:
    measured = queries.measurement(version)
    return {
        "rubric": version.rubric_id,
        "name": version.rubric.name,
        "number": version.number,
        "state": version.state,
        "method": version.method,
        "run": version.run_id,
        "verifier": version.verifier_id,
        "criteria": list(version.criteria.values("id", "text", "decision", "figures")),
        "file": rubric_files.as_json(version),
        "measured": measured
        and {
            "run": measured.run_id,
            "at": measured.created_at,
            "is_current": queries.is_current(version, measured),
            "figures": measured.figures,
        },
    }
