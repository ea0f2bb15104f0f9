"""People check a version of a rubric: tasks made of it, and how far people and verifiers agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotator.charts import MiniInterval, mini_interval
from annotator.errors import AppError
from annotator.forms.rubric_people import PeopleForm
from annotator.jobs import base
from annotator.models import Criterion, Role, RubricVersion, Run, RunState
from annotator.queries import rubric_checks
from annotator.queries import rubrics as queries
from annotator.queries.access import Access
from annotator.queries.rubric_checks import Checks
from annotator.queries.rubric_lists import MACHINES
from annotator.services import rubric_tasks, rubrics
from annotator.views.helpers import project_page
from annotator.views.rubric_pages import find

ACTIVE: Final = (RunState.QUEUED, RunState.RUNNING, RunState.STOPPING)


@dataclass(frozen=True)
class Row:
    """A criterion and what people said of it."""

    criterion: Criterion
    checks: Checks
    confirms: MiniInterval | None
    people: MiniInterval | None


def context(access: Access, version: RubricVersion) -> dict[str, Any]:
    """What templates/rubrics/use_people.html shows."""
    criteria = rubrics.in_force(version)
    measured = queries.measurement(version)
    sheet = queries.sheet_now(measured, criteria) if measured else None
    checks = rubric_checks.checks(version, sheet)
    return {
        "people_form": PeopleForm(access.project),
        "people_made": rubric_checks.made(version),
        "people_rows": [_row(one, checks[one.pk]) for one in criteria if one.pk in checks],
        "people_run": _active(version),
        "people_machines": sum(one.verifier in MACHINES for one in criteria),
        "people_asked": sum(one.verifier not in MACHINES for one in criteria),
    }


def _row(criterion: Criterion, checks: Checks) -> Row:
    def mini(value: float | None, interval: tuple[float, float] | None) -> MiniInterval | None:
        if value is None or interval is None:
            return None
        return mini_interval(value, *interval, domain=(0.0, 1.0), width=104)

    confirms, people = checks.confirms, checks.people
    return Row(
        criterion,
        checks,
        mini(confirms.accuracy, confirms.interval) if confirms else None,
        mini(people.value, people.interval) if people else None,
    )


def _active(version: RubricVersion) -> Run | None:
    """The run that makes tasks of this version at this moment."""
    return Run.objects.filter(
        project=version.rubric.project_id,
        kind=Run.Kind.TASKS,
        state__in=ACTIVE,
        config__version=version.pk,
        config__action=rubric_tasks.ACTION,
    ).first()


@project_page(Role.OWNER)
@require_POST
def make(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Make tasks of a version, in the background."""
    version = find(access, rubric_id, number)
    form = PeopleForm(access.project, request.POST)
    back = reverse("rubric_use", args=[access.project.slug, rubric_id, number])
    if not form.is_valid():
        for name, errors in form.errors.items():
            label = form.fields[name].label if name in form.fields else ""
            messages.error(request, f"{label}: {' '.join(errors)}".removeprefix(": "))
        return redirect(f"{back}#people")
    try:
        run = rubric_tasks.start(version=version, wish=form.wish(), by=request.user)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect(f"{back}#people")
    base.enqueue(run)
    return redirect("run", slug=access.project.slug, run_id=run.pk)
