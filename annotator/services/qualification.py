"""Who may begin real work: granting it, and another try at the qualification set."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from annotator.models import Assignment, AssignmentState, AuditEvent, Project, Rater, User
from annotator.services import judgments, queue


def _note(rater: Rater, by: User | None, verb: str, **data: object) -> None:
    AuditEvent.objects.create(
        project_id=rater.project_id, actor=by, verb=verb, subject=rater.name[:120], data=data
    )


@transaction.atomic
def grant(*, rater: Rater, by: User | None) -> None:
    """Let a person begin real work, whatever they got right."""
    queue.lock_rater(rater.pk)
    Rater.objects.filter(pk=rater.pk).update(qualified_at=timezone.now(), disqualified_at=None)
    _note(rater, by, "qualification.grant")


@transaction.atomic
def try_again(*, rater: Rater, project: Project, by: User | None) -> int:
    """Hand the qualification set out to a person anew. Returns how many answers were cleared.

    The answers of the last try leave force and stay in the history; whoever had qualified has
    to do so again.
    """
    queue.lock_rater(rater.pk)
    done = Assignment.objects.filter(
        rater=rater,
        task__is_gold=True,
        task__is_qualification=True,
        state__in=[AssignmentState.SUBMITTED, AssignmentState.SKIPPED],
    ).order_by("pk")
    ids = list(done.values_list("pk", flat=True))
    for pk in ids:
        judgments.reopen(assignment_id=pk, rater=rater, options=project.options)
    # Given back without its answers; a gold has no place to give back with it.
    Assignment.objects.filter(pk__in=ids).update(
        state=AssignmentState.EXPIRED, closed_at=timezone.now(), draft=None, draft_at=None
    )
    Rater.objects.filter(pk=rater.pk).update(qualified_at=None, disqualified_at=None)
    _note(rater, by, "qualification.again", answers=len(ids))
    return len(ids)
