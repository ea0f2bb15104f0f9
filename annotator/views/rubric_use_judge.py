"""A version of a rubric conditions judges: those there are, and a form for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotator.errors import AppError, Invalid
from annotator.forms.rubric_judges import RubricJudgeForm
from annotator.models import Role, RubricVersion
from annotator.queries import rubric_judges as queries
from annotator.queries.access import Access
from annotator.services import judges, rubric_judges
from annotator.services.rubric_judges import Taken
from annotator.views.helpers import project_page
from annotator.views.judge_list import Cell, cell
from annotator.views.rubric_pages import find
from rubrics.judging.rubric_options import RubricLine

KINDS: Final = ("llm", "rubric")


@dataclass(frozen=True)
class Row:
    """A judge of the version with its agreement, drawn beside people's with each other."""

    found: queries.Conditioned
    agreement: Cell


@dataclass(frozen=True)
class Way:
    """What a kind of judge takes over; ``problem`` says why it takes nothing."""

    taken: Taken | None
    problem: str


def context(access: Access, version: RubricVersion) -> dict[str, Any]:
    """What templates/rubrics/use_judge.html shows."""
    ways = {kind: _way(kind, version) for kind in KINDS}
    rows = [Row(one, cell(one.agreement, one.ceiling)) for one in queries.conditioned_on(version)]
    return {
        "judge_form": _form(access, version, ways),
        "judge_rows": rows,
        "judge_ways": ways,
        "judge_is_possible": any(way.taken for way in ways.values()),
        "judge_has_endpoint": access.project.endpoints.filter(archived_at=None).exists(),
    }


def _way(kind: str, version: RubricVersion) -> Way:
    try:
        return Way(rubric_judges.take(kind, version), "")
    except Invalid as error:
        return Way(None, f"{error.message} {error.advice}".strip())


def _form(
    access: Access, version: RubricVersion, ways: dict[str, Way], data: Any = None
) -> RubricJudgeForm:
    return RubricJudgeForm(
        data, project=access.project, version=version, needs_model=_needs_model(ways["rubric"])
    )


def _needs_model(way: Way) -> bool:
    """Whether checking criterion by criterion asks a model at all."""
    if way.taken is None:
        return True
    return any(RubricLine.model_validate(one).verifier == "llm" for one in way.taken.criteria)


@project_page(Role.OWNER)
@require_POST
def make(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Add the judge, and show it."""
    version = find(access, rubric_id, number)
    ways = {kind: _way(kind, version) for kind in KINDS}
    form = _form(access, version, ways, request.POST)
    back = reverse("rubric_use", args=[access.project.slug, rubric_id, number])
    if not form.is_valid():
        for name, errors in form.errors.items():
            label = form.fields[name].label if name in form.fields else ""
            text = " ".join(map(str, errors))
            messages.error(request, f"{label or name.capitalize()}: {text}")
        return redirect(f"{back}#judge")
    try:
        judge = judges.add(
            project=access.project, by=request.user, rubric_version=version, **form.values()
        )
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect(f"{back}#judge")
    messages.success(request, f"{judge} reads {version}. Let it judge what people have judged.")
    return redirect("judge", slug=access.project.slug, judge_id=judge.pk)
