"""The desk: one task, its verdict, the next task. One request between two judgments."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError, Conflict
from annotator.forms.judgments import read_answers
from annotator.kinds.base import Unfit
from annotator.models import Rater, Role
from annotator.queries import annotation, task_history
from annotator.services import judgments, queue, raters
from annotator.views import remarks
from annotator.views.helpers import Access, project_page

REOPENED: Final = "Reopened with your answers."


@project_page(Role.ANNOTATOR)
@require_GET
def annotate(request: HttpRequest, access: Access) -> HttpResponse:
    """The task this person holds, or the next one, or why there is none."""
    rater = raters.for_member(project=access.project, user=request.user)
    asked = request.GET.get("assignment", "")
    if asked.isascii() and asked.isdecimal() and len(asked) < 19:
        desk = _desk(access, rater, int(asked))
        if desk is not None:
            return _show(request, access, rater, desk)
    return _show_next(request, access, rater)


@project_page(Role.ANNOTATOR)
@require_POST
def answer(request: HttpRequest, access: Access, assignment_id: int) -> HttpResponse:
    """Save and next."""
    rater = raters.for_member(project=access.project, user=request.user)
    answers = read_answers(request.POST)
    try:
        done = judgments.answer(
            assignment_id=assignment_id,
            rater=rater,
            answers=answers,
            options=access.project.options,
        )
    except Unfit as error:
        return _refuse(request, access, rater, assignment_id, answers, error)
    except Conflict as error:
        if not request.htmx:
            messages.warning(request, f"{error.message} {error.advice}")
        return _next(request, access, rater, note=f"{error.message} {error.advice}")
    unkept = remarks.keep_unsent(request, rater, assignment_id)
    if unkept and not request.htmx:
        messages.warning(request, unkept)
    late = not done.is_counted and not done.was_repeat
    return _next(request, access, rater, late=late, note=unkept)


@project_page(Role.ANNOTATOR)
@require_POST
def skip(request: HttpRequest, access: Access, assignment_id: int) -> HttpResponse:
    """Give the task to someone else, saying why, and go on."""
    rater = raters.for_member(project=access.project, user=request.user)
    judgments.skip(assignment_id=assignment_id, rater=rater, reason=_text(request, "reason"))
    return _next(request, access, rater)


@project_page(Role.ANNOTATOR)
@require_POST
def undo(request: HttpRequest, access: Access) -> HttpResponse:
    """Reopen the last task with its answers."""
    rater = raters.for_member(project=access.project, user=request.user)
    try:
        assignment = judgments.undo(rater=rater, options=access.project.options)
    except AppError as error:
        if not request.htmx:
            messages.info(request, error.message)
        return _next(request, access, rater, note=error.message)
    return _open(request, access, rater, assignment.pk)


@project_page(Role.ANNOTATOR)
@require_POST
def reopen(request: HttpRequest, access: Access, assignment_id: int) -> HttpResponse:
    """Correct one of one's own past judgments."""
    rater = raters.for_member(project=access.project, user=request.user)
    assignment = judgments.reopen(
        assignment_id=assignment_id,
        rater=rater,
        options=access.project.options,
    )
    return _open(request, access, rater, assignment.pk)


@project_page(Role.ANNOTATOR)
@require_POST
def draft(request: HttpRequest, access: Access, assignment_id: int) -> HttpResponse:
    """Keep unfinished answers; answers with the line that says so."""
    rater = raters.for_member(project=access.project, user=request.user)
    kept = judgments.save_draft(
        assignment_id=assignment_id,
        rater=rater,
        draft=read_answers(request.POST),
        lease_minutes=access.project.options.lease_minutes,
    )
    desk = _desk(access, rater, assignment_id) if kept else None
    return render(request, "annotate/desk.html#saved", {"desk": desk, "swap": True})


def _text(request: HttpRequest, name: str) -> str:
    """A posted text without what PostgreSQL cannot keep."""
    return request.POST.get(name, "").replace("\0", "")


def _desk(access: Access, rater: Rater, assignment_id: int) -> annotation.Desk | None:
    return annotation.desk(assignment_id=assignment_id, rater=rater, options=access.project.options)


def _refuse(
    request: HttpRequest,
    access: Access,
    rater: Rater,
    assignment_id: int,
    answers: dict[str, str],
    error: Unfit,
) -> HttpResponse:
    """The same task again, the answers as they were, and what is missing."""
    desk = _desk(access, rater, assignment_id)
    if desk is None:
        raise Http404("not this rater's assignment")
    desk = desk.with_answers({**answers, **error.fill})
    return _show(request, access, rater, desk, refused=error.messages, status=422)


def _next(
    request: HttpRequest, access: Access, rater: Rater, *, late: bool = False, note: str = ""
) -> HttpResponse:
    if request.htmx:
        return _show_next(request, access, rater, late=late, note=note)
    if late:
        messages.warning(request, "That task was no longer held for you: saved as an extra.")
    return redirect("annotate", slug=access.project.slug)


def _open(request: HttpRequest, access: Access, rater: Rater, assignment_id: int) -> HttpResponse:
    if request.htmx and request.htmx.target == "work":
        desk = _desk(access, rater, assignment_id)
        return _show(request, access, rater, desk, note=REOPENED)
    messages.info(request, REOPENED)
    url = reverse("annotate", args=[access.project.slug])
    return redirect(f"{url}?assignment={assignment_id}")


def _show_next(request: HttpRequest, access: Access, rater: Rater, **context: Any) -> HttpResponse:
    claim = queue.claim(project=access.project, rater=rater)
    desk = _desk(access, rater, claim.lease.assignment_id) if claim.lease else None
    return _show(request, access, rater, desk, withheld=claim.withheld, **context)


def _show(
    request: HttpRequest,
    access: Access,
    rater: Rater,
    desk: annotation.Desk | None,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    context |= {
        "access": access,
        "desk": desk,
        "options": access.project.options,
        "progress": annotation.progress(project=access.project, rater=rater),
    }
    if desk is not None:
        context["remarks"] = task_history.own_remarks(desk.task_id, viewer=request.user)
    else:
        context["next_free_at"] = annotation.next_free_at(project=access.project, rater=rater)
    name = "annotate/desk.html#work" if request.htmx else "annotate/desk.html"
    response = render(request, name, context, status=status)
    if context.get("refused"):
        # What is missing takes the focus and with it the view; the next task starts at the top.
        response["HX-Reswap"] = "outerHTML"
    return response
