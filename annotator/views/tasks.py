"""The tasks of a project: found by filter and words, changed some at a time or all that fit."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError, Invalid
from annotator.jobs import base
from annotator.kinds import KINDS
from annotator.models import Role, Run
from annotator.queries import members as people
from annotator.queries import tasks as queries
from annotator.queries.tasks import Filter
from annotator.services import tasks as service
from annotator.services.tasks import Change, Done
from annotator.views.helpers import Access, page_after, project_page

MAX_SELECTED: Final = 500


@project_page(Role.OWNER)
@require_GET
def tasks(request: HttpRequest, access: Access) -> HttpResponse:
    chosen = Filter.read(request.GET)
    context = {
        "access": access,
        "chosen": chosen,
        "query": urlencode(_address(chosen)),
        "page": queries.tasks(access.project.pk, chosen, after=page_after(request)),
        "states": [(key, label) for key, (label, _) in queries.STATES.items()],
        "kinds": [(key, method.label) for key, method in KINDS.items()],
        "groups": people.groups(access.project),
        "raters": people.raters(access.project),
        "actions": service.ACTIONS.items(),
    }
    name = "tasks/tasks.html#list" if request.htmx else "tasks/tasks.html"
    return render(request, name, context)


@project_page(Role.OWNER)
@require_POST
def change(request: HttpRequest, access: Access) -> HttpResponse:
    """What was chosen, done to the rows that are ticked or to everything that fits."""
    chosen = Filter.read(request.POST)
    try:
        change = _change(request, access)
        if "all" in request.POST:
            # In no transaction: each chunk is one, or tasks would be locked after raters.
            done = service.change_matching(
                project=access.project, chosen=chosen, change=change, by=request.user
            )
            if isinstance(done, Run):
                base.enqueue(done)
        else:
            done = service.change(
                project=access.project, task_ids=_ticked(request), change=change, by=request.user
            )
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return _back(request, access, chosen)
    if isinstance(done, Run):
        messages.info(request, "So many tasks are changed in the background.")
        return redirect("run", slug=access.project.slug, run_id=done.pk)
    _say(request, done)
    return _back(request, access, chosen)


def _change(request: HttpRequest, access: Access) -> Change:
    action = request.POST.get("action", "")
    if action == "assign":
        to = request.POST.get("to", "")
        return Change(action, service.assignee(project=access.project, value=to))
    value = request.POST.get("value", "").strip()
    if action in ("overlap", "priority"):
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 9):
            raise Invalid("Type a number for it.")
        return Change(action, int(value))
    return Change(action)


def _ticked(request: HttpRequest) -> list[int]:
    ids = [
        int(one)
        for one in request.POST.getlist("task")[:MAX_SELECTED]
        if one.isascii() and one.isdecimal() and len(one) < 19
    ]
    if not ids:
        raise Invalid("Tick the tasks to change first.")
    return ids


def _say(request: HttpRequest, done: Done) -> None:
    many = "" if done.changed == 1 else "s"
    said = f"{done.changed:,} task{many} changed."
    if not done.refused:
        messages.success(request, said)
        return
    for reason, count in done.refused.items():
        said += f" {count:,} stay{'s' if count == 1 else ''} as {'it is' if count == 1 else 'they are'}: {reason}."
    messages.warning(request, said)


def _address(chosen: Filter) -> dict[str, Any]:
    values = {
        "state": chosen.state,
        "kind": chosen.kind,
        "group": "" if chosen.group is None else chosen.group,
        "tag": chosen.tag,
        "q": chosen.text,
    }
    return {name: value for name, value in values.items() if value != ""}


def _back(request: HttpRequest, access: Access, chosen: Filter) -> HttpResponse:
    values = _address(chosen)
    after = request.POST.get("after", "")
    if after.isascii() and after.isdecimal() and len(after) < 19:
        values["after"] = after
    url = reverse("tasks", args=[access.project.slug])
    return redirect(f"{url}?{urlencode(values)}" if values else url)
