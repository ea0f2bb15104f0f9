"""Review: one task at a time, what everybody said about it, and what a reviewer decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from annotator import formats
from annotator.charts import Dot, DotChart, Reference, dots_with_intervals, mini_interval
from annotator.errors import AppError, Invalid
from annotator.forms.judgments import read_answers
from annotator.kinds import KINDS
from annotator.kinds.base import Unfit
from annotator.models import Rater, ReviewItem, Role, Task
from annotator.queries import my_work, review, task_history, verdicts
from annotator.services import adjudication, comments, raters
from annotator.views.helpers import Access, page_after, project_page
from models.intervals import wilson

DAYS: Final = (1, 7, 30)
EVEN: Final = 0.5  # where votes are split
DONE: Final = {
    "decide": "Decided.",
    "gold": "Decided, and a gold from now on.",
    "back": "Sent back.",
    "dismiss": "Set aside.",
    "unsettle": "The decision was taken back: the votes count again.",
}


@project_page(Role.REVIEWER)
@require_GET
def queue(request: HttpRequest, access: Access) -> HttpResponse:
    """The task to look at first, or that there is none."""
    reason = _reason(request)
    first = review.first_item(access.project.pk, reason=reason)
    if first is not None:
        return _show_item(request, access, ReviewItem.objects.get(pk=first), reason)
    context = {
        "access": access,
        "counts": _filters(access),
        "reason": reason,
        "open": sum(review.open_counts(access.project.pk).values()),
    }
    return render(request, "review/empty.html", context)


@project_page(Role.REVIEWER)
@require_GET
def item(request: HttpRequest, access: Access, item_id: int) -> HttpResponse:
    """One item of the queue, also when it has been closed meanwhile."""
    found = get_object_or_404(ReviewItem, project=access.project, pk=item_id)
    return _show_item(request, access, found, _reason(request))


@project_page(Role.REVIEWER)
@require_GET
def task(request: HttpRequest, access: Access, task_id: int) -> HttpResponse:
    """Everything about one task: verdicts with their revisions, remarks, who had it."""
    return _show_task(request, access, _task(access, task_id))


@project_page(Role.REVIEWER)
@require_POST
def decide(request: HttpRequest, access: Access, task_id: int) -> HttpResponse:
    """Decide, make a gold, send back, set aside or take a decision back; then the next task."""
    found = _task(access, task_id)
    at = _item_posted(request, access, found)
    reason = _reason(request, request.POST.get("filter", ""))
    # Asked before anything changes: afterwards the item has left the queue.
    following = review.place_of(at, reason=reason).after if at else None
    action = request.POST.get("action", "decide")
    try:
        said = _act(request, access, found, action)
    except Unfit as error:
        return _refuse(request, access, found, at, reason, error.messages)
    except AppError as error:
        return _refuse(request, access, found, at, reason, [f"{error.message} {error.advice}"])
    messages.success(request, said)
    if at is None:
        return redirect("task", access.project.slug, found.pk)
    query = f"?{urlencode({'reason': reason})}" if reason else ""
    if following is None:
        return redirect(f"{reverse('review', args=[access.project.slug])}{query}")
    url = reverse("review_item", args=[access.project.slug, following])
    return redirect(f"{url}{query}")


@project_page(Role.REVIEWER)
@require_POST
def comment(request: HttpRequest, access: Access, task_id: int) -> HttpResponse:
    """A reviewer's remark or answer."""
    found = _task(access, task_id)
    reply = request.POST.get("reply_to", "")
    try:
        comments.comment(
            task=found,
            by=request.user,
            text=request.POST.get("remark", ""),
            is_flag="remark_flag" in request.POST,
            reply_to=int(reply)
            if reply.isascii() and reply.isdecimal() and len(reply) < 19
            else None,
        )
    except AppError as error:
        messages.warning(request, f"{error.message} {error.advice}")
    at = _item_posted(request, access, found)
    if at is None:
        url = reverse("task", args=[access.project.slug, found.pk])
    else:
        url = reverse("review_item", args=[access.project.slug, at.pk])
    reason = _reason(request, request.POST.get("filter", ""))
    return redirect(f"{url}{f'?reason={reason}' if reason else ''}#remarks")


@project_page(Role.REVIEWER)
@require_GET
def rater_judgments(request: HttpRequest, access: Access, rater_id: int) -> HttpResponse:
    """What one rater said, newest first."""
    rater = get_object_or_404(Rater, project=access.project, pk=rater_id)
    of_kind = request.GET.get("kind", "")
    days = request.GET.get("days", "")
    chosen = {
        "of_kind": of_kind if of_kind in KINDS else "",
        "misses": request.GET.get("misses") == "1",
        "query": request.GET.get("q", "")[: my_work.MAX_QUERY],
    }
    since = timezone.now() - timedelta(days=int(days)) if days in map(str, DAYS) else None
    page = verdicts.verdicts(
        rater, options=access.project.options, since=since, after=page_after(request), **chosen
    )
    context = {
        "access": access,
        "rater": rater,
        "page": page,
        "kinds": [(key, method.label) for key, method in KINDS.items()],
        "days": [str(day) for day in DAYS],
        "since": days if since else "",
        "filters": _without_after(request),
        **chosen,
    }
    return render(request, "review/rater.html", context)


def _without_after(request: HttpRequest) -> str:
    return urlencode([(k, v) for k, v in request.GET.items() if k != "after" and v])


def _reason(request: HttpRequest, given: str | None = None) -> str:
    reason = request.GET.get("reason", "") if given is None else given
    return reason if reason in review.REASONS else ""


def _task(access: Access, task_id: int) -> Task:
    return get_object_or_404(
        Task.objects.select_related("prompt"), project=access.project, pk=task_id
    )


def _item_posted(request: HttpRequest, access: Access, of: Task) -> ReviewItem | None:
    """The item the page was about; None where it was the task's own page."""
    given = request.POST.get("item", "")
    if not (given.isascii() and given.isdecimal() and len(given) < 19):
        return None
    return ReviewItem.objects.filter(project=access.project, task=of, pk=int(given)).first()


def _act(request: HttpRequest, access: Access, of: Task, action: str) -> str:
    """Do what was asked for; returns what to say about it."""
    options = access.project.options
    note = request.POST.get("why", "")
    if action in ("decide", "gold"):
        adjudication.decide(
            task=of,
            rater=raters.for_member(project=access.project, user=request.user),
            answers=read_answers(request.POST),
            options=options,
            as_gold=action == "gold",
        )
    elif action == "back":
        ids = [
            int(one)
            for one in request.POST.getlist("back")
            if one.isascii() and one.isdecimal() and len(one) < 19
        ]
        count = adjudication.send_back(
            task=of, rater_ids=ids, note=note, by=request.user, options=options
        )
        return f"Sent back to {count} rater{'' if count == 1 else 's'}."
    elif action == "dismiss":
        adjudication.dismiss(task=of, by=request.user, note=note)
    elif action == "unsettle":
        adjudication.unsettle(task=of, by=request.user)
    else:
        raise Invalid("That is not something to do with a task.")
    return DONE[action]


def _refuse(
    request: HttpRequest,
    access: Access,
    of: Task,
    at: ReviewItem | None,
    reason: str,
    said: Any,
) -> HttpResponse:
    """The same page, what was entered as it was, and what is missing."""
    more = {
        "refused": said,
        "answers": read_answers(request.POST),
        "sending": request.POST.getlist("back"),
    }
    if at is None:
        return _show_task(request, access, of, status=422, **more)
    return _show_item(request, access, at, reason, status=422, **more)


def _show_item(
    request: HttpRequest,
    access: Access,
    at: ReviewItem,
    reason: str,
    *,
    status: int = 200,
    **more: Any,
) -> HttpResponse:
    context = _case(request, access, _task(access, at.task_id), **more) | {
        "place": review.place_of(at, reason=reason),
        "reason": reason,
        "counts": _filters(access),
    }
    return render(request, "review/item.html", context, status=status)


def _show_task(
    request: HttpRequest, access: Access, of: Task, *, status: int = 200, **more: Any
) -> HttpResponse:
    context = _case(request, access, of, **more) | {
        "history": task_history.history(of, options=access.project.options),
        "assignments": task_history.assignments(of),
    }
    return render(request, "review/task.html", context, status=status)


def _case(
    request: HttpRequest,
    access: Access,
    of: Task,
    *,
    refused: Any = (),
    answers: dict[str, str] | None = None,
    sending: Any = (),
) -> dict[str, Any]:
    case = review.case(of, options=access.project.options, viewer=request.user)
    desk = case.desk if answers is None else case.desk.with_answers(answers)
    is_pair = of.kind == "pairwise"
    return {
        "access": access,
        "case": case,
        "desk": desk,
        "options": desk.options,
        "refused": refused,
        "sending": set(sending),
        "is_pair": is_pair,
        # Letters and digits pick answers in the other kinds, and j and k move in grids.
        "keys": {"before": "k" if is_pair else "[", "after": "j" if is_pair else "]"},
        "chart": _chart(case) if is_pair else None,
        "rows": [(one, _reliability(one)) for one in case.verdicts],
        "kind_label": KINDS[of.kind].label if of.kind in KINDS else of.kind,
    }


def _reliability(said: review.Said) -> Any:
    if said.reliability is None:
        return None
    value, low, high = said.reliability
    return mini_interval(value, low, high, domain=(0.5, 1.0), style=said.style)


def _chart(case: review.Case) -> DotChart | None:
    """How likely B is better, by plain votes and by the consensus; None without votes.

    What judges say stands by itself: most of it counts nowhere, and it must not pass for people.
    """
    votes = [one for one in case.verdicts if not one.is_excluded]
    if not votes:
        return None
    by_judge = Rater.Kind.JUDGE
    groups = [
        ("Votes", 0, [one for one in votes if one.rater_kind != by_judge]),
        ("Judges", 2, [one for one in votes if one.rater_kind == by_judge]),
    ]
    dots, said = [], []
    for name, style, group in groups:
        if group:
            for_b = sum(_share_of_b(one) for one in group)
            share, (low, high) = for_b / len(group), wilson(for_b, len(group))
            dots.append(Dot(name, share, low, high, style=style, count=len(group)))
            of = f"{len(group)} {'vote' if name == 'Votes' else 'judge'}{'s' * (len(group) != 1)}"
            said.append(f"{formats.percent(share, digits=0)} of {of}")
    if case.consensus is not None and case.consensus.pairs:
        *_, p_tie, p_b = case.consensus.pairs[0]
        weighted = p_b + p_tie / 2
        dots.append(Dot(case.consensus_by, weighted, style=1, count=case.consensus.votes))
    return dots_with_intervals(
        dots,
        label=f"{', '.join(said)} are for B, a tie as half a vote.",
        reference=Reference(EVEN, "even"),
        heading="Share for B",
        width=360,
        digits=0,
        unit="%",
    )


def _share_of_b(said: review.Said) -> float:
    return {"A": 0.0, "B": 1.0}.get(said.verdict[:1], 0.5) if said.verdict != "Tie" else 0.5


def _filters(access: Access) -> list[tuple[str, str, int]]:
    counts = review.open_counts(access.project.pk)
    return [(key, review.REASONS[key], count) for key, count in counts.items()]
