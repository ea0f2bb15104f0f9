"""The annotation queue for programs: claim, judge, skip, undo. Exactly the desk's rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.http import HttpRequest
from django.urls import reverse
from ninja import Field, Router, Schema, Status

from annotator.forms.judgments import read_answers
from annotator.kinds.base import MAX_ANSWERS
from annotator.kinds.verdict import MAX_RATIONALE
from annotator.models import Assignment, Project, Rater, Response, Role, Task
from annotator.queries import rubric_lists
from annotator.queries.access import access_or_404
from annotator.services import judgments, queue, raters

# Settings that a verdict depends on. How work is handed out, golds above all, is not among them.
ASKED: Final = {
    "steps",
    "allow_tie",
    "allow_both_bad",
    "rationale",
    "reasons",
    "attributes",
    "rating_low",
    "rating_high",
    "criteria",
    "failures",
    "allow_not_applicable",
}

router = Router(tags=["queue"])


class TaskOut(Schema):
    """A task held for the token's person. ``responses`` stand in the order to be shown.

    ``images`` are the addresses of theirs, in the same order, null for a response without one;
    ``source`` and ``mask`` are what images were edited from. The token opens them. ``asked`` is
    what a verdict on this task is made of: scale, attributes, criteria.
    """

    assignment: int
    kind: str
    expires_at: datetime
    messages: list[dict[str, Any]]
    responses: list[str]
    images: list[str | None]
    source: str | None
    mask: str | None
    asked: dict[str, Any]
    draft: dict[str, Any] | None


class ReasonOut(Schema):
    """Why nothing is handed out. ``key`` is for programs, ``message`` for people.

    Keys: archived, project_paused, paused, quota, daily_cap, not_qualified, nothing_left.
    """

    key: str
    message: str


class NextOut(Schema):
    task: TaskOut | None
    reason: ReasonOut | None = None


class JudgmentIn(Schema):
    """A verdict in the fields of the task's kind; responses are A, B, … in the order given.

    pairwise: ``verdict``. ranking: ``place-A`` … from 1, 0 for not ranked, and
    ``as_shown`` where the order is the one given (else it is asked about). best-worst: ``best``
    and ``worst``, labels. rating: ``rate-0-A``, the attribute by its number from 0, a number or
    ``na``. checklist: ``check-0-A``, yes, no or na. Reasons to tick: ``reason-0``.
    """

    verdict: str | None = Field(
        None, description="pairs: a1 to a3, tie, b1 to b3; a is the first response as given"
    )
    answers: dict[str, str | int] = Field(default_factory=dict, max_length=MAX_ANSWERS)
    both_bad: bool = False
    why: str = Field("", max_length=MAX_RATIONALE)
    active_ms: int | None = Field(None, ge=0, description="time spent on it, if you know")


class JudgmentOut(Schema):
    judgment: int
    is_counted: bool
    was_repeat: bool


class SkipIn(Schema):
    reason: str = Field("", max_length=200)


def _rater(request: HttpRequest, slug: str) -> tuple[Project, Rater]:
    access = access_or_404(request.user, slug, at_least=Role.ANNOTATOR)
    return access.project, raters.for_member(project=access.project, user=request.user)


@router.post("/{slug}/tasks/claim", response=NextOut)
def claim(request: HttpRequest, slug: str) -> dict[str, Any]:
    """The task this person holds, else the next one; else null and the reason."""
    project, rater = _rater(request, slug)
    found = queue.claim(project=project, rater=rater)
    why = found.withheld
    return {
        "task": _task(found.lease.assignment_id, project) if found.lease else None,
        "reason": {"key": why.key, "message": f"{why.title}. {why.text}".strip()} if why else None,
    }


def _task(assignment_id: int, project: Project) -> dict[str, Any]:
    held = Assignment.objects.get(pk=assignment_id)
    task = Task.objects.select_related("prompt").get(pk=held.task_id)
    prompt = task.prompt
    found = Response.objects.in_bulk(task.response_ids)
    shown = [found[task.response_ids[place]] for place in held.shown_order]

    def address(image_id: int | None) -> str | None:
        return image_id and reverse("image", args=[project.slug, image_id, "full"])

    return {
        "assignment": held.pk,
        "kind": task.kind,
        "expires_at": held.expires_at,
        "messages": prompt.messages,
        "responses": [response.text for response in shown],
        "images": [address(response.image_id) for response in shown],
        "source": address(prompt.source_image_id),
        "mask": address(prompt.mask_image_id),
        "asked": rubric_lists.options_for(task, project.options).model_dump(include=ASKED),
        "draft": held.draft,
    }


@router.post("/{slug}/tasks/{assignment_id}/judgment", response=JudgmentOut)
def judge(request: HttpRequest, slug: str, assignment_id: int, body: JudgmentIn) -> dict[str, Any]:
    """Record a verdict. Sending it twice records it once."""
    project, rater = _rater(request, slug)
    sent = {name: str(value) for name, value in body.answers.items()}
    sent |= {"why": body.why}
    if body.verdict is not None:
        sent["verdict"] = body.verdict
    if body.both_bad:
        sent["both_bad"] = "on"
    if body.active_ms is not None:
        sent["active_ms"] = str(body.active_ms)
    done = judgments.answer(
        assignment_id=assignment_id,
        rater=rater,
        answers=read_answers(sent),
        options=project.options,
    )
    return {
        "judgment": done.judgment_id,
        "is_counted": done.is_counted,
        "was_repeat": done.was_repeat,
    }


@router.post("/{slug}/tasks/{assignment_id}/skip", response={204: None})
def skip(request: HttpRequest, slug: str, assignment_id: int, body: SkipIn) -> Status:
    """Give the task to someone else."""
    _, rater = _rater(request, slug)
    reason = body.reason.replace("\0", "")
    judgments.skip(assignment_id=assignment_id, rater=rater, reason=reason)
    return Status(204, None)


@router.post("/{slug}/tasks/undo", response=NextOut)
def undo(request: HttpRequest, slug: str) -> dict[str, Any]:
    """Reopen the last task judged or skipped, with its answers as the draft."""
    project, rater = _rater(request, slug)
    reopened = judgments.undo(rater=rater, options=project.options)
    return {"task": _task(reopened.pk, project)}
