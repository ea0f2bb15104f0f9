"""A reviewer's verdict on a task, which wins over its votes, and what else a reviewer can do.

What is in force
    A vote stays a vote: adjudicating neither changes nor withdraws one, so agreement and raters
    are measured on what people said by themselves. The adjudication is a revision of the
    reviewer's own, current beside the votes, at most one per task; deciding again replaces it,
    whoever decided first. Its edges count for training and export; the votes' edges stay, marked
    overruled.

Who waits for whom
    The task's row is locked before anything is decided, and a submit takes the same lock in the
    statement that writes its edges: a vote is either there to be overruled, or sees that the task
    is settled. Locks are taken in the order of ``services.queue``: advisory locks of raters by
    id, assignments by id, the task, raters by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from annotator.errors import Conflict, Invalid
from annotator.kinds.base import Answers, canonical_order, from_gold, kind, review_options
from annotator.kinds.verdict import Verdict, as_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    AuditEvent,
    Judgment,
    Preference,
    ProjectSettings,
    Rater,
    Task,
    User,
)
from annotator.queries import rubric_lists
from annotator.services import comments, judgments, queue, review

SENT_BACK_DAYS: Final = 14
MAX_NOTE: Final = 2_000
RESCORED: Final = 1_000  # judgments of a gold scored at a time


@dataclass(frozen=True)
class Decided:
    judgment_id: int
    is_gold: bool


@transaction.atomic
def decide(
    *, task: Task, rater: Rater, answers: Answers, options: ProjectSettings, as_gold: bool = False
) -> Decided:
    """Settle a task by a reviewer's verdict, perhaps as a gold from now on.

    ``answers`` are those of the task's kind with the responses in canonical order. On a task
    that is a gold already they become its right answer, and its raters are scored anew. Raises
    annotator.kinds.base.Unfit where they are not a verdict.
    """
    queue.lock_rater(rater.pk)
    task = _lock(task)
    by = _user(rater)
    order = canonical_order(task)
    of_kind = kind(task.kind)
    if any(place for name, place in answers.items() if name.startswith("place-")):
        # Reviewers see canonical order, unshuffled: places they gave are no order left as shown.
        answers = {**answers, "as_shown": "on"}
    asked = review_options(rubric_lists.options_for(task, options))
    verdict = of_kind.read(answers, options=asked, shown_order=order)
    verdict.check(responses=len(order))
    _withdraw(task)
    judgment = _record(task, rater, verdict, order)
    Preference.objects.filter(
        project_id=task.project_id, prompt_id=task.prompt_id, task_id=task.pk
    ).update(is_overruled=True)
    task.is_settled = True
    changed = ["is_settled"]
    if as_gold or task.is_gold:
        changed += _make_gold(task, verdict)
    task.save(update_fields=changed)
    judgments.write_preferences(judgment=judgment, task=task, options=options)
    decision = review.MADE_GOLD if as_gold else review.DECIDED
    _finish(task, by=by, decision=decision, verdict=verdict.as_gold(), judgment=judgment.pk)
    return Decided(judgment.pk, task.is_gold)


def _lock(task: Task) -> Task:
    return Task.objects.select_for_update(no_key=True).get(pk=task.pk)


def _user(rater: Rater) -> User:
    if rater.user is None:
        raise Invalid("Only a person decides.")
    return rater.user


def _withdraw(task: Task) -> bool:
    """Take the adjudication in force out of force; False where there is none."""
    found = Judgment.objects.filter(
        task=task, kind=Judgment.Kind.ADJUDICATION, is_current=True
    ).first()
    if found is None:
        return False
    Preference.objects.filter(judgment=found).delete()
    Judgment.objects.filter(pk=found.pk).update(is_current=False)
    return True


def _record(task: Task, rater: Rater, verdict: Verdict, order: list[int]) -> Judgment:
    return Judgment.objects.create(
        project_id=task.project_id,
        task=task,
        rater=rater,
        kind=Judgment.Kind.ADJUDICATION,
        revision=judgments.next_revision(task_id=task.pk, rater_id=rater.pk),
        is_counted=False,
        ranks=verdict.ranks,
        strength=verdict.strength,
        both_bad=verdict.both_bad,
        ratings=verdict.ratings,
        rationale=verdict.rationale,
        reasons=verdict.reasons,
        shown_order=order,
        submitted_at=timezone.now(),
        active_ms=verdict.active_ms,
    )


def _make_gold(task: Task, verdict: Verdict) -> list[str]:
    """Give the task this right answer; returns what changed.

    Votes given before it was a gold are not scored: they are why it was chosen, and would make
    their raters look worse than they are. Votes scored by another answer are scored again.
    """
    was_gold, task.is_gold = task.is_gold, True
    note = {"note": verdict.rationale} if verdict.rationale else {}
    task.gold = verdict.as_gold() | note
    task.free = 0  # a gold has no places: everybody gets it
    if was_gold:
        _rescore(task)
    else:
        Preference.objects.filter(
            project_id=task.project_id, prompt_id=task.prompt_id, task_id=task.pk
        ).update(is_gold=True)
        queue.reset_marks(project_id=task.project_id)
    return ["is_gold", "gold", "free"]


def _rescore(task: Task) -> None:
    of_kind, gold = kind(task.kind), from_gold(task.gold)
    scored = Judgment.objects.filter(task=task, is_current=True, is_hit__isnull=False)
    changed = []
    for judgment in scored.iterator(chunk_size=RESCORED):
        is_hit = of_kind.matches(as_verdict(judgment), gold)
        if is_hit != judgment.is_hit:
            judgment.is_hit = is_hit
            changed.append(judgment)
    Judgment.objects.bulk_update(changed, ["is_hit"], batch_size=RESCORED)


def _finish(task: Task, *, by: User, decision: str, **data: Any) -> None:
    review.close(task=task, by=by, decision=decision)
    comments.resolve(task=task, by=by)
    _note(task, by, decision, **data)


def _note(task: Task, by: User, verb: str, **data: Any) -> None:
    AuditEvent.objects.create(
        project_id=task.project_id, actor=by, verb=f"review.{verb}", subject=f"task {task.pk}",
        data=data,
    )  # fmt: skip


@transaction.atomic
def dismiss(*, task: Task, by: User, note: str = "") -> int:
    """Close what is open about a task without deciding it. Returns how many items that were.

    They open again when somebody says something new about the task.
    """
    task = _lock(task)
    closed = review.close(task=task, by=by, decision=review.DISMISSED)
    comments.resolve(task=task, by=by)
    if closed:
        _note(task, by, review.DISMISSED, note=_cleaned(note))
    return closed


@transaction.atomic
def unsettle(*, task: Task, by: User) -> None:
    """Take the decision on a task back: its votes are in force again.

    Raises Conflict where there is none, or where the decision is what a gold is measured by.
    """
    task = _lock(task)
    if task.is_gold and task.is_settled:
        raise Conflict(
            "This task is a gold, and the decision is its answer.",
            advice="Decide again to correct it.",
        )
    if not _withdraw(task):
        raise Conflict("Nobody has decided this task.")
    Preference.objects.filter(
        project_id=task.project_id, prompt_id=task.prompt_id, task_id=task.pk
    ).update(is_overruled=False)
    Task.objects.filter(pk=task.pk).update(is_settled=False)
    review.reopen(task=task)
    _note(task, by, "unsettled")


@transaction.atomic
def send_back(
    *, task: Task, rater_ids: list[int], note: str, by: User, options: ProjectSettings
) -> int:
    """Put a task back on the desks of some of its raters, with a note. Returns how many.

    Their verdicts leave force and become their drafts; their places stay theirs for
    SENT_BACK_DAYS. Who is just correcting their verdict gets the note and keeps what they wrote.
    Raises Invalid without a note or a rater, Conflict where one of them has nothing to correct.
    """
    note = _cleaned(note)
    if not note:
        raise Invalid("Say why it comes back: the rater reads it.")
    wanted = sorted(set(rater_ids))
    if not wanted:
        raise Invalid("Choose whose verdict to send back.")
    for rater_id in wanted:
        queue.lock_rater(rater_id)
    held = _lock_assignments(task, wanted)
    raters = Rater.objects.in_bulk([one.rater_id for one in held])
    for one in sorted(held, key=lambda held: held.rater_id):
        _send_one(one, raters[one.rater_id], note=note, options=options)
    review.close(task=task, by=by, decision=review.SENT_BACK)
    comments.resolve(task=task, by=by)
    _note(task, by, review.SENT_BACK, raters=wanted, note=note)
    return len(held)


def _lock_assignments(task: Task, rater_ids: list[int]) -> list[Assignment]:
    """The assignments of these raters that a verdict was given on, locked by id."""
    found = [
        one
        # Of the assignment alone: the rater joined to it is locked after the task.
        for one in Assignment.objects.select_for_update(of=("self",), no_key=True)
        .filter(task=task, rater_id__in=rater_ids, rater__kind=Rater.Kind.HUMAN)
        .order_by("pk")
        if one.state != AssignmentState.SKIPPED
    ]
    voted = set(
        Judgment.objects.filter(task=task, rater_id__in=rater_ids, kind=Judgment.Kind.VOTE)
        .values_list("rater_id", flat=True)
    )  # fmt: skip
    found = [one for one in found if one.rater_id in voted]
    if len(found) < len(rater_ids):
        raise Conflict(
            "One of these raters has no verdict here any more.", advice="Look at the task again."
        )
    return found


def _send_one(held: Assignment, rater: Rater, *, note: str, options: ProjectSettings) -> None:
    if held.state == AssignmentState.SUBMITTED:
        held = judgments.reopen(assignment_id=held.pk, rater=rater, options=options)
    now = timezone.now()
    held.sent_back_at = now
    held.sent_back_note = note
    changed = ["sent_back_at", "sent_back_note"]
    if held.state == AssignmentState.LEASED:
        # The latest lease is what a rater's next claim hands out.
        held.leased_at = now
        held.expires_at = now + timedelta(days=SENT_BACK_DAYS)
        changed += ["leased_at", "expires_at"]
    held.save(update_fields=changed)


def _cleaned(note: str) -> str:
    note = note.replace("\0", "").strip()
    if len(note) > MAX_NOTE:
        raise Invalid(f"Keep the note under {MAX_NOTE:,} characters.")
    return note
