"""Rubrics: the list, a version to read and decide on, and what two versions differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError, Invalid
from annotator.forms import criteria as forms
from annotator.jobs import base
from annotator.models import Criterion, Judge, Role, RubricVersion
from annotator.queries import rubrics as queries
from annotator.queries.rubric_tries import askable
from annotator.services import rubric_files, rubrics
from annotator.services import rubric_measure as measuring
from annotator.views import (
    rubric_gaps,
    rubric_rows,
    rubric_use_judge,
    rubric_use_people,
    rubric_use_scores,
)
from annotator.views.helpers import Access, as_id, page_after, project_page
from annotator.views.judge_list import cell
from annotator.views.rubric_pages import find
from rubrics.sheet import Sheet

FIELDS: Final = {
    "text": "words", "polarity": "direction", "weight": "weight", "scope": "scope",
    "group": "scope", "verifier": "verifier", "program": "program", "theme": "theme",
}  # fmt: skip


@project_page(Role.REVIEWER)
@require_GET
def rubrics_list(request: HttpRequest, access: Access) -> HttpResponse:
    archived = request.GET.get("show") == "archived"
    page = queries.listing(access.project, after=page_after(request), archived=archived)
    rows = [(row, cell(row.held_out, row.ceiling, style=1)) for row in page.rows]
    context = {"access": access, "page": page, "rows": rows, "archived": archived}
    return render(request, "rubrics/list.html", context)


@project_page(Role.REVIEWER)
@require_GET
def rubric(request: HttpRequest, access: Access, rubric_id: int) -> HttpResponse:
    """To its draft, else to the version in use."""
    found = queries.find_rubric(access.project, rubric_id)
    rows = queries.versions(found) if found is not None else []
    if not rows:
        raise Http404("no such rubric in this project, or one without versions")
    newest = next((one for one in rows if one.is_draft), rows[0])
    return redirect("rubric_version", access.project.slug, rubric_id, newest.number)


@project_page(Role.REVIEWER)
@require_GET
def version(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Everything about a version; one criterion may be open, with its evidence."""
    return _show(
        request, access, find(access, rubric_id, number), opened=page_after(request, "criterion")
    )


def _show(
    request: HttpRequest,
    access: Access,
    found: RubricVersion,
    *,
    opened: int | None,
    form: Any = None,
    error: str = "",
    status: int = 200,
) -> HttpResponse:
    measured = queries.measurement(found)
    criteria = queries.criteria(found)
    sheet = queries.sheet_now(measured, criteria) if measured else None
    figures = queries.figures_now(measured, criteria)
    is_changed = measured is not None and not queries.is_current(found, measured)
    lines = rubric_rows.lines(criteria, figures, opened=opened)
    row = next((one for one in (*lines.rows, *lines.merged) if one.is_open), None)
    context = {
        "access": access,
        "version": found,
        "measured": measured,
        "figures": figures,
        "missing": list(dict.fromkeys(figures.get("missing", {}).values())),  # each reason once
        "lines": lines,
        "row": row,
        "evidence": queries.evidence(access.project, row.criterion, sheet) if row else None,
        "form": (form or forms.of_criterion(row.criterion)) if row else None,
        "programs": forms.programs() if row and found.is_draft else (),
        "others": [one for one in lines.rows if row and one is not row],
        "neighbors": _neighbors(lines.rows, row),
        "is_changed": is_changed,
        "held_out": rubric_rows.held_out(found, criteria, figures, sheet, is_changed=is_changed),
        "position": rubric_rows.position(figures),
        "path": rubric_rows.path(criteria, figures),
        "gaps": rubric_gaps.panel(found, sheet, _weights(criteria, sheet)),
        "active": queries.active_runs(found),
        "verifiers": _verifiers(access, found),
        "versions": queries.versions(found.rubric),
        "is_weighted": any(one.weight is not None for one in criteria),
        "error": error,
    }
    return render(request, "rubrics/version.html", context, status=status)


def _weights(criteria: Sequence[Criterion], sheet: Sheet | None) -> Any:
    """Of the criteria in force, in the order of the sheet's."""
    in_force = {str(decision) for decision in rubrics.IN_FORCE}
    return None if sheet is None else rubric_rows.weights_of(criteria, sheet, only=in_force)


def _neighbors(
    rows: Sequence[rubric_rows.Row], row: rubric_rows.Row | None
) -> tuple[int | None, int | None]:
    """The criteria before and after the open one; the first one where none is open."""
    ids = [one.criterion.pk for one in rows]
    if not ids:
        return None, None
    if row is None or row.criterion.pk not in ids:
        return None, ids[0]
    at = ids.index(row.criterion.pk)
    return (ids[at - 1] if at else None), (ids[at + 1] if at + 1 < len(ids) else None)


# Deciding -------------------------------------------------------------------------------------


def _address(access: Access, found: RubricVersion, criterion: int | None = None) -> str:
    to = reverse("rubric_version", args=[access.project.slug, found.rubric_id, found.number])
    return f"{to}?criterion={criterion}#c{criterion}" if criterion else to


def _criterion(found: RubricVersion, criterion_id: int) -> Criterion:
    row = found.criteria.filter(pk=criterion_id).first()
    if row is None:
        raise Http404("no such criterion in this version")
    row.version = found
    return row


@project_page(Role.OWNER)
@require_POST
def decide(
    request: HttpRequest, access: Access, rubric_id: int, number: int, criterion_id: int
) -> HttpResponse:
    """Accept, reject or open again, then on to the next one to decide."""
    found = find(access, rubric_id, number)
    row = _criterion(found, criterion_id)
    try:
        rubrics.decide(criterion=row, decision=request.POST.get("decision", ""), by=request.user)
    except AppError as error:
        return _refused(request, access, found, error, opened=row.pk)
    return redirect(_address(access, found, _next(found, row)))


def _next(found: RubricVersion, row: Criterion) -> int:
    """The next criterion below that is not decided, else the first such, else the same."""
    measured = queries.measurement(found)
    criteria = queries.criteria(found)
    lines = rubric_rows.lines(criteria, queries.figures_now(measured, criteria), opened=None)
    ids = [one.criterion.pk for one in lines.rows]
    at = ids.index(row.pk) if row.pk in ids else -1
    rows = [*lines.rows[at + 1 :], *lines.rows[: at + 1]]
    waiting = (
        one.criterion.pk for one in rows if one.criterion.decision == Criterion.Decision.PROPOSED
    )
    return next(waiting, row.pk)


def _refused(
    request: HttpRequest,
    access: Access,
    found: RubricVersion,
    error: AppError,
    *,
    opened: int | None = None,
) -> HttpResponse:
    words = f"{error.message} {error.advice}".strip()
    return _show(request, access, found, opened=opened, error=words, status=error.status)


@project_page(Role.OWNER)
@require_POST
def edit(
    request: HttpRequest, access: Access, rubric_id: int, number: int, criterion_id: int
) -> HttpResponse:
    found = find(access, rubric_id, number)
    row = _criterion(found, criterion_id)
    form = forms.of_criterion(row, request.POST)
    if form.is_valid():
        try:
            rubrics.edit(criterion=row, by=request.user, **form.values())
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return redirect(_address(access, found, row.pk))
    return _show(request, access, found, opened=row.pk, form=form, status=422)


@project_page(Role.OWNER)
@require_POST
def merge(
    request: HttpRequest, access: Access, rubric_id: int, number: int, criterion_id: int
) -> HttpResponse:
    """Make the open criterion and those ticked one."""
    found = find(access, rubric_id, number)
    row = _criterion(found, criterion_id)
    ticked = [pk for pk in map(as_id, request.POST.getlist("with")) if pk is not None]
    others = list(found.criteria.filter(pk__in=ticked).exclude(pk=row.pk))
    for one in others:
        one.version = found
    try:
        kept = rubrics.merge(
            criteria=[row, *others], text=request.POST.get("text", ""), by=request.user
        )
    except AppError as error:
        return _refused(request, access, found, error, opened=row.pk)
    return redirect(_address(access, found, kept.pk))


@project_page(Role.OWNER)
@require_POST
def add(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """A criterion written by hand."""
    found, text = find(access, rubric_id, number), request.POST.get("text", "")
    polarity = -1 if request.POST.get("polarity") == "-1" else 1
    try:
        made = rubrics.add(version=found, by=request.user, text=text, polarity=polarity)
    except AppError as error:
        return _refused(request, access, found, error)
    return redirect(_address(access, found, made.pk))


# The version as a whole -----------------------------------------------------------------------


@project_page(Role.OWNER)
@require_POST
def change(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Approve, discard, begin the next draft, accept the rest, weigh, measure."""
    found = find(access, rubric_id, number)
    act = ACTIONS.get(request.POST.get("action", ""))
    if act is None:
        raise Http404("no such action")
    try:
        with transaction.atomic():
            to = act(request, access, found)
    except AppError as error:
        return _refused(request, access, found, error)
    return redirect(to)


def _approve(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    rubrics.approve(version=found, by=request.user)
    messages.success(request, f"{found} is approved: it will not change any more.")
    return _address(access, found)


def _discard(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    rubrics.discard(version=found, by=request.user)
    messages.success(request, f"{found} is discarded.")
    return reverse("rubrics", args=[access.project.slug])


def _draft(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    made = rubrics.draft(rubric=found.rubric, like=found, by=request.user)
    return _address(access, made)


def _accept_rest(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    rubrics.accept_rest(version=found, by=request.user)
    return _address(access, found)


def _weigh(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    measured = queries.measurement(found)
    criteria = rubrics.in_force(found)
    told = queries.figures_now(measured, criteria).get("criteria", {})
    fitted = {int(pk): one["fitted"]["weight"] for pk, one in told.items() if one.get("fitted")}
    if not fitted:
        raise Invalid("No weights are fitted.", advice="Measure the version first.")
    if new := sum(one.pk not in fitted for one in criteria):
        raise Invalid(
            f"{new:,} criteri{'on has' if new == 1 else 'a have'} no fitted weight: written or "
            "changed since the version was measured.",
            advice="Measure it again first.",
        )
    rubrics.weigh(version=found, weights=fitted, by=request.user)
    return _address(access, found)


def _equal(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    rubrics.weigh(version=found, weights=None, by=request.user)
    return _address(access, found)


def _verifiers(access: Access, found: RubricVersion) -> list[Judge]:
    """Who could answer the criteria that a model checks, where the version names nobody."""
    if found.verifier_id is not None or not access.can_manage:
        return []
    asks = any(one.verifier == Criterion.Verifier.LLM for one in rubrics.in_force(found))
    return askable(access.project) if asks else []


def _measure(request: HttpRequest, access: Access, found: RubricVersion) -> str:
    judge, named = None, request.POST.get("judge", "")
    if named:
        judge = next((one for one in _verifiers(access, found) if str(one.pk) == named), None)
        if judge is None:
            raise Invalid("Choose a judge of this project that asks a model.")
    run = measuring.start(version=found, by=request.user, verify_with=judge)
    base.enqueue(run)
    return reverse("run", args=[access.project.slug, run.pk])


ACTIONS: Final[dict[str, Callable[[HttpRequest, Access, RubricVersion], str]]] = {
    "approve": _approve,
    "discard": _discard,
    "draft": _draft,
    "accept-rest": _accept_rest,
    "weigh": _weigh,
    "equal": _equal,
    "measure": _measure,
}


@project_page(Role.OWNER)
@require_POST
def archive(request: HttpRequest, access: Access, rubric_id: int) -> HttpResponse:
    found = queries.find_rubric(access.project, rubric_id)
    if found is None:
        raise Http404("no such rubric in this project")
    rubrics.archive(rubric=found, by=request.user, is_archived=found.archived_at is None)
    messages.success(request, "In use again." if found.archived_at else "Archived.")
    return redirect("rubrics", slug=access.project.slug)


@project_page(Role.REVIEWER)
@require_GET
def compare(
    request: HttpRequest, access: Access, rubric_id: int, number: int, other: int
) -> HttpResponse:
    """What ``number`` has, lacks and says otherwise than ``other``."""
    new, old = find(access, rubric_id, number), find(access, rubric_id, other)
    found = rubric_files.diff(old, new)
    changed = [(one, [_changed(one, name) for name in one.fields]) for one in found.changed]
    told = [queries.measurement(one) for one in (old, new)]
    context = {
        "access": access,
        "new": new,
        "old": old,
        "diff": found,
        "changed": changed,
        "versions": queries.versions(new.rubric),
        "cells": [
            cell((one.figures.get("held_out") or {}).get("rubric") if one else None, style=1)
            for one in told
        ],
        "are_changed": [
            one is not None and not queries.is_current(of, one)
            for of, one in zip((old, new), told, strict=True)
        ],
    }
    return render(request, "rubrics/compare.html", context)


def _changed(one: rubric_files.Change, name: str) -> tuple[str, Any, Any]:
    before, after = getattr(one.before, name), getattr(one.after, name)
    if name == "weight":
        before, after = ("equal" if w is None else rubric_rows.signed(w) for w in (before, after))
    return FIELDS[name], before, after


@project_page(Role.REVIEWER)
@require_GET
def use(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """What a version is good for: judges, checklists, scores."""
    found = find(access, rubric_id, number)
    context: dict[str, Any] = {"access": access, "version": found}
    for part in (rubric_use_judge, rubric_use_people, rubric_use_scores):
        context |= part.context(access, found)
    return render(request, "rubrics/use.html", context)
