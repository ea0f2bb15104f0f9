"""The annotation queue for programs: claim, judge, skip, undo. Exactly the desk's rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest
from ninja import Field, Router, Schema, Status

from annotator.errors import Invalid
from annotator.models import Assignment, Project, Prompt, Rater, Response, Role, Task
from annotator.queries.access import access_or_404
from annotator.services import judgments, queue, raters

router = Router(tags=["queue"])


class TaskOut(Schema):
    """A task held for the token's person. ``responses`` stand in the order to be shown."""

    assignment: int
    kind: str
    expires_at: datetime
    messages: list[dict[str, Any]]
    responses: list[str]
    draft: dict[str, Any] | None


class NextOut(Schema):
    task: TaskOut | None


class JudgmentIn(Schema):
    verdict: Literal["a2", "a1", "tie", "b1", "b2"] = Field(
        description="a is the first response as given, b the second; 2 is much better"
    )
    both_bad: bool = False
    why: str = Field("", max_length=judgments.MAX_RATIONALE)


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
    """The task this person holds, else the next one; null when there is none."""
    project, rater = _rater(request, slug)
    lease = queue.claim_next(project=project, rater=rater)
    return {"task": _task(lease.assignment_id) if lease else None}


def _task(assignment_id: int) -> dict[str, Any]:
    held = Assignment.objects.get(pk=assignment_id)
    task = Task.objects.get(pk=held.task_id)
    texts = dict(Response.objects.filter(pk__in=task.response_ids).values_list("pk", "text"))
    return {
        "assignment": held.pk,
        "kind": task.kind,
        "expires_at": held.expires_at,
        "messages": Prompt.objects.values_list("messages", flat=True).get(pk=task.prompt_id),
        "responses": [texts[task.response_ids[place]] for place in held.shown_order],
        "draft": held.draft,
    }


@router.post("/{slug}/tasks/{assignment_id}/judgment", response=JudgmentOut)
def judge(request: HttpRequest, slug: str, assignment_id: int, body: JudgmentIn) -> dict[str, Any]:
    """Record a verdict. Sending it twice records it once."""
    project, rater = _rater(request, slug)
    options = project.options
    if body.verdict == "tie" and not options.allow_tie:
        raise Invalid("This project asks you to choose one of the two.")
    if options.rationale == "required" and not body.why.strip():
        raise Invalid("Say why in a few words.")
    done = judgments.submit(
        assignment_id=assignment_id,
        rater=rater,
        verdict=lambda shown_order: judgments.pairwise_verdict(
            choice=body.verdict,
            shown_order=shown_order,
            both_bad=body.both_bad and options.allow_both_bad,
            rationale="" if options.rationale == "off" else body.why.replace("\0", "").strip(),
        ),
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
    reopened = judgments.undo(rater=rater, lease_minutes=project.options.lease_minutes)
    return {"task": _task(reopened.pk)}
