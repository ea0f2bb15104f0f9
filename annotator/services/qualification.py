"""Who may begin real work: granting it, and another try at the qualification set."""

from __future__ import annotations

from django.db import connection, transaction
from django.utils import timezone

from annotator.models import Assignment, AssignmentState, AuditEvent, Project, Rater, Task, User
from annotator.services import judgments, queue
from annotator.services.queue_marks import lock_tasks


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


def _answered(rater: Rater) -> list[int]:
    """Assignments of the set that this rater is done with; they and their tasks are locked.

    All at once and by id: reopening the first would lock the rater before the second task.
    """
    done = dict(
        Assignment.objects.select_for_update(of=("self",), no_key=True)
        .filter(
            rater=rater,
            task__is_gold=True,
            task__is_qualification=True,
            state__in=[AssignmentState.SUBMITTED, AssignmentState.SKIPPED],
        )
        .order_by("pk")
        .values_list("pk", "task_id")
    )
    with connection.cursor() as cursor:
        lock_tasks(cursor, list(done.values()))
    # One that was made an ordinary task meanwhile has places, and this verdict takes one.
    golds = set(
        Task.objects.filter(pk__in=done.values(), is_gold=True).values_list("pk", flat=True)
    )
    return [pk for pk, task_id in done.items() if task_id in golds]


@transaction.atomic
def try_again(*, rater: Rater, project: Project, by: User | None) -> int:
    """Hand the qualification set out to a person anew. Returns how many answers were cleared.

    The answers of the last try leave force and stay in the history; whoever had qualified has
    to do so again.
    """
    queue.lock_rater(rater.pk)
    ids = _answered(rater)
    for pk in ids:
        judgments.reopen(assignment_id=pk, rater=rater, options=project.options)
    # Given back without its answers; a gold has no place to give back with it.
    Assignment.objects.filter(pk__in=ids).update(
        state=AssignmentState.EXPIRED, closed_at=timezone.now(), draft=None, draft_at=None
    )
    Rater.objects.filter(pk=rater.pk).update(qualified_at=None, disqualified_at=None)
    _note(rater, by, "qualification.again", answers=len(ids))
    return len(ids)
