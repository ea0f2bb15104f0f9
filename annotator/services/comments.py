"""Remarks on a task, and flags: remarks that ask a reviewer to look."""

from __future__ import annotations

from typing import Final

from django.db import transaction
from django.utils import timezone

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import Assignment, Comment, Rater, Task, User
from annotator.services import review

MAX_TEXT: Final = 2_000
MAX_PER_TASK: Final = 50  # remarks of one person on one task


@transaction.atomic
def remark(*, assignment_id: int, rater: Rater, text: str, is_flag: bool) -> Comment:
    """A rater's remark on a task they have or had. Raises NotFound for another's."""
    held = Assignment.objects.filter(pk=assignment_id, rater=rater).first()
    if held is None or rater.user is None:
        raise NotFound("This task is not yours.")
    return _add(held.task, author=rater.user, text=text, is_flag=is_flag)


@transaction.atomic
def comment(
    *, task: Task, by: User, text: str, is_flag: bool = False, reply_to: int | None = None
) -> Comment:
    """A reviewer's remark, perhaps an answer to another's on the same task."""
    if reply_to is not None and not task.comments.filter(pk=reply_to).exists():
        raise NotFound("The remark you answer is not there.")
    return _add(task, author=by, text=text, is_flag=is_flag, reply_to_id=reply_to)


def _add(
    task: Task, *, author: User, text: str, is_flag: bool, reply_to_id: int | None = None
) -> Comment:
    text = text.replace("\0", "").strip()
    if not text and not is_flag:
        raise Invalid("Write something, or flag the task.")
    if len(text) > MAX_TEXT:
        raise Invalid(f"Keep it under {MAX_TEXT:,} characters.")
    if task.comments.filter(author=author).count() >= MAX_PER_TASK:
        raise Conflict(f"You have written {MAX_PER_TASK} remarks on this task already.")
    made = Comment.objects.create(
        project_id=task.project_id,
        task=task,
        author=author,
        text=text,
        is_flag=is_flag,
        reply_to_id=reply_to_id,
    )
    if is_flag:
        review.flag(task=task)
    return made


def resolve(*, task: Task, by: User) -> int:
    """Somebody has looked at every flag of a task. Returns how many were open."""
    return Comment.objects.filter(task=task, is_flag=True, resolved_at__isnull=True).update(
        resolved_at=timezone.now(), resolved_by=by
    )
