"""What was said about a task over time: remarks, every revision of every verdict, who had it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from annotator.kinds.base import canonical_order, kind
from annotator.kinds.verdict import as_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    Comment,
    Judgment,
    ProjectSettings,
    Task,
    User,
)
from annotator.queries import rubric_lists

HISTORY: Final = 200
COMMENTS: Final = 200


def say(judgment: Judgment, task: Task, options: ProjectSettings) -> str:
    """A verdict in words, the responses labelled as reviewers see them.

    ``options`` are those that the task goes by.
    """
    return kind(task.kind).say(
        as_verdict(judgment), options=options, shown_order=canonical_order(task)
    )


@dataclass(frozen=True)
class Remark:
    """A comment as a page shows it."""

    id: int
    author: str
    text: str
    is_flag: bool
    is_open: bool
    at: datetime
    is_own: bool
    answers: str = ""  # the author it answers


# Remarks --------------------------------------------------------------------------------------


def remarks(task: Task, *, viewer: User) -> list[Remark]:
    """Every remark on a task, oldest first; for reviewers."""
    return _remarks(Comment.objects.filter(task=task), viewer)


def own_remarks(task_id: int, *, viewer: User) -> list[Remark]:
    """What an annotator may read: their own remarks, and the answers to them."""
    own = Comment.objects.filter(task_id=task_id, author=viewer)
    answers = Comment.objects.filter(task_id=task_id, reply_to__author=viewer)
    return _remarks(own | answers, viewer)


def _remarks(rows: Any, viewer: User) -> list[Remark]:
    found: Iterable[Comment] = (
        rows.select_related("author", "reply_to__author").order_by("-pk").distinct()[:COMMENTS]
    )
    return [
        Remark(
            id=one.pk,
            author=str(one.author),
            text=one.text,
            is_flag=one.is_flag,
            is_open=one.is_flag and one.resolved_at is None,
            at=one.created_at,
            is_own=one.author_id == viewer.pk,
            answers=str(one.reply_to.author) if one.reply_to else "",
        )
        for one in reversed(list(found))
    ]


# History --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    rater: str
    kind: str
    revision: int
    is_current: bool
    verdict: str
    why: str
    at: datetime


def history(task: Task, *, options: ProjectSettings) -> list[Revision]:
    """Every revision of every verdict on a task, newest first, up to HISTORY."""
    options = rubric_lists.options_for(task, options)
    rows = Judgment.objects.filter(task=task).select_related("rater").order_by("-pk")[:HISTORY]
    return [
        Revision(
            rater=one.rater.name,
            kind=one.get_kind_display(),
            revision=one.revision,
            is_current=one.is_current,
            verdict=say(one, task, options),
            why=one.rationale,
            at=one.submitted_at,
        )
        for one in rows
    ]


@dataclass(frozen=True)
class Desked:
    """Who has or had a task on the desk."""

    rater: str
    state: str
    since: datetime
    until: datetime | None
    skip_reason: str
    sent_back_note: str


def assignments(task: Task) -> list[Desked]:
    rows = Assignment.objects.filter(task=task).select_related("rater").order_by("-leased_at")
    return [
        Desked(
            rater=one.rater.name,
            state=one.get_state_display(),
            since=one.leased_at,
            until=one.expires_at if one.state == AssignmentState.LEASED else one.closed_at,
            skip_reason=one.skip_reason,
            sent_back_note=one.sent_back_note,
        )
        for one in rows[:HISTORY]
    ]
