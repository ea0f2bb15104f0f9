"""What a version of a rubric does not explain: pairs, and criteria that contradict each other."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError
from annotator.jobs import base
from annotator.models import Criterion, Role, RubricVersion, Run
from annotator.queries import rubric_gaps as queries
from annotator.queries.rubric_gaps import Basis
from annotator.services import rubric_gaps as service
from annotator.services.rubric_gaps import Queued
from annotator.views.helpers import Access, page_after, project_page
from annotator.views.rubric_pages import find
from annotator.views.rubric_rows import label
from rubrics import gaps as library
from rubrics.gaps import UNSCORED, Unexplained
from rubrics.sheet import Sheet

SHOWN: Final = 3  # examples in the aside of a version's page
MOST: Final = 30  # contradictions on a page
Labeled = tuple[str, Criterion]
VIEWS: Final = {"": "Unexplained", "contradictions": "Contradictions"}


@project_page(Role.REVIEWER)
@require_GET
def gaps(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Pairs that are not explained, or what contradicts; ?kind= of pairs, ?after= a place."""
    version = find(access, rubric_id, number)
    found = service.basis(version)
    view = request.GET.get("view", "")
    context: dict[str, Any] = {
        "access": access,
        "version": version,
        "basis": found,
        "view": view if view in VIEWS else "",
        "views": VIEWS.items(),
    }
    if found is not None:
        shown = _contradictions(found) if context["view"] else _pairs(request, found)
        context |= shown
    return render(request, "rubrics/gaps.html", context)


def _pairs(request: HttpRequest, found: Basis) -> dict[str, Any]:
    kind = _kind(request.GET.get("kind", ""))
    everything = queries.unexplained(found.sheet, found.weights)
    counts = everything.counts()
    kinds = queries.FILTERS[kind][0]
    page = queries.page(found, everything.of(*kinds), after=page_after(request))
    filters = [
        (key, words, sum(counts[one] for one in of))
        for key, (of, words) in queries.FILTERS.items()
        if key != UNSCORED or counts[UNSCORED]
    ]
    return {
        "kind": kind,
        "filters": filters,
        "count": sum(counts[one] for one in kinds),
        "found": everything,
        "votes": votes_agree(everything),
        "page": page,
        "lines": [_line(row) for row in page.rows],
        "next_round": service.name_of_round(found.version.rubric.name),
        "method": service.method_of(found.version),
    }


def _kind(value: str) -> str:
    return value if value in queries.FILTERS else ""


def _line(row: queries.Row) -> tuple[queries.Row, list[Labeled], list[Labeled]]:
    return row, _labeled(row.speak_for), _labeled(row.against)


def _labeled(criteria: list[Criterion]) -> list[Labeled]:
    return [(label(one), one) for one in criteria]


def votes_agree(found: Unexplained) -> str:
    """Which pairs are looked at, in words."""
    return "at least two votes agree" if found.least_votes > 1 else "one vote is all there is"


def _contradictions(found: Basis) -> dict[str, Any]:
    against = library.contradictions(found.sheet, found.weights)
    rows = [row for one in against[:MOST] for row in one.rows]
    shown = queries.with_texts(found.project, queries.ids_of(found.sheet, rows))
    examples = dict(zip(rows, shown, strict=True))
    return {
        "against": [
            {
                "told": one,
                "both": _labeled([found.criteria[one.first], found.criteria[one.second]]),
                "examples": [examples[row] for row in one.rows],
            }
            for one in against[:MOST]
        ],
        "more": max(0, len(against) - MOST),
        "inverted": [
            (one, label(found.criteria[one.criterion]), found.criteria[one.criterion])
            for one in library.inverted(found.sheet, found.weights, found.polarities)
        ],
        "least": library.LEAST_PAIRS,
    }


def panel(version: RubricVersion, sheet: Sheet | None, weights: Any) -> dict[str, Any] | None:
    """The aside of a version's page, as rubrics/gaps_panel.html takes it in ``gaps``.

    ``weights`` (k,) of the sheet's criteria, 0 for one that is not in force. None without a sheet.
    """
    if sheet is None:
        return None
    everything = queries.unexplained(sheet, weights)
    listed = everything.of(*queries.FILTERS[""][0])
    learned = sheet.learned()
    return {
        "count": len(listed),
        "agreed": everything.agreed,
        "votes": votes_agree(everything),
        "rows": queries.rows(version.rubric.project, learned, weights, {}, listed, range(SHOWN)),
    }


# Actions --------------------------------------------------------------------------------------


@project_page(Role.OWNER)
@require_POST
def queue(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """One more vote on every pair of a filter."""
    version = find(access, rubric_id, number)
    try:
        done = service.queue_votes(
            found=_basis(version), kind=request.POST.get("kind", ""), by=request.user
        )
    except AppError as error:
        return _refused(request, version, error)
    if isinstance(done, Run):
        base.enqueue(done)
        messages.info(request, "So many pairs are queued in the background.")
        return redirect("run", access.project.slug, done.pk)
    _say(request, done)
    return _back(request, version)


@project_page(Role.OWNER)
@require_POST
def induce(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """The next round: a rubric learned from these pairs only."""
    version = find(access, rubric_id, number)
    try:
        with transaction.atomic():
            run = service.next_round(
                found=_basis(version), kind=request.POST.get("kind", ""), by=request.user
            )
            base.enqueue(run)
    except AppError as error:
        return _refused(request, version, error)
    return redirect("run", access.project.slug, run.pk)


def _basis(version: RubricVersion) -> Basis:
    found = service.basis(version)
    if found is None:
        raise service.not_measured(version)
    return found


def _refused(request: HttpRequest, version: RubricVersion, error: AppError) -> HttpResponse:
    messages.error(request, f"{error.message} {error.advice}".strip())
    return _back(request, version)


def _back(request: HttpRequest, version: RubricVersion) -> HttpResponse:
    slug, kind = version.rubric.project.slug, _kind(request.POST.get("kind", ""))
    url = reverse("rubric_gaps", args=[slug, version.rubric_id, version.number])
    return redirect(f"{url}?{urlencode({'kind': kind})}" if kind else url)


def _say(request: HttpRequest, done: Queued) -> None:
    count = done.raised + done.made
    said = "Nobody is asked anew."
    if count:
        said = f"{count:,} task{'s ask' if count > 1 else ' asks'} for another vote"
        said += f", {done.made:,} of them new." if done.made else "."
    for reason, pairs in done.refused.items():
        said += f" {pairs:,} pair{'s' if pairs > 1 else ''} left out: {reason}."
    (messages.success if count else messages.warning)(request, said)
