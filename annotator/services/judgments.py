"""Recording verdicts. Everything a submit changes is one transaction, durable before it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import Assignment, AssignmentState, Judgment, Preference, Rater, Task
from annotator.queries.annotation import shown_choice
from annotator.services import queue

MAX_RATIONALE: Final = 20_000
MAX_STRENGTH: Final = 3


@dataclass(frozen=True)
class Verdict:
    """A verdict in canonical order: ``ranks[i]`` is the place of ``Task.response_ids[i]``.

    1 is best and equal places are ties. ``strength`` is 0 for a full tie, else 1 to 3.
    """

    ranks: list[int]
    strength: int
    both_bad: bool = False
    rationale: str = ""
    reasons: list[str] = field(default_factory=list)

    def check(self, *, responses: int) -> None:
        if len(self.ranks) != responses:
            raise Invalid(f"The verdict orders {len(self.ranks)} responses of {responses}.")
        if sorted(set(self.ranks)) != list(range(1, len(set(self.ranks)) + 1)):
            raise Invalid("Places must run from 1 without a gap.")
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise Invalid(f"Strength must be between 0 and {MAX_STRENGTH}.")
        if (self.strength == 0) != (len(set(self.ranks)) == 1):
            raise Invalid("A tie has strength 0, and only a tie has.")
        if len(self.rationale) > MAX_RATIONALE:
            raise Invalid(f"The reason is longer than {MAX_RATIONALE:,} characters.")


def pairwise_verdict(
    *, choice: str, shown_order: list[int], both_bad: bool, rationale: str = ""
) -> Verdict:
    """A verdict from the five-step scale as shown: ``a2 a1 tie b1 b2``.

    ``shown_order`` turns it back into canonical order, whichever side was drawn.
    """
    steps = {"a2": ("a", 2), "a1": ("a", 1), "tie": ("", 0), "b1": ("b", 1), "b2": ("b", 2)}
    if choice not in steps:
        raise Invalid("Choose one of the five steps.")
    side, strength = steps[choice]
    ranks = [1, 1]
    if side:
        loser = shown_order[1 if side == "a" else 0]
        ranks[loser] = 2
    return Verdict(ranks=ranks, strength=strength, both_bad=both_bad, rationale=rationale)


def edges(
    *, response_ids: list[int], ranks: list[int], strength: int
) -> list[tuple[int, int, int, int]]:
    """Every pair of a ranking as ``(a, b, outcome, strength)``, a before b in canonical order.

    A ranking of more than two has no strength of its own per pair: the gap in places stands in.
    """
    result = []
    for (i, a), (j, b) in combinations(enumerate(response_ids), 2):
        gap = ranks[j] - ranks[i]
        outcome = (gap > 0) - (gap < 0)
        weight = strength if len(response_ids) == 2 else min(abs(gap), MAX_STRENGTH)
        result.append((a, b, outcome, weight if outcome else 0))
    return result


@dataclass(frozen=True)
class Submitted:
    judgment_id: int
    is_counted: bool
    was_repeat: bool = False  # a double press: the verdict was already in


def _lock_assignment(*, assignment_id: int, rater: Rater) -> Assignment:
    assignment = (
        Assignment.objects.select_for_update(of=("self",))
        .select_related("task")
        .filter(pk=assignment_id, rater=rater)
        .first()
    )
    if assignment is None:
        raise NotFound("This task is not yours.")
    return assignment


@transaction.atomic
def submit(*, assignment_id: int, rater: Rater, verdict: Verdict) -> Submitted:
    """Record a verdict; a late one takes a free place or is kept as an extra.

    Raises Invalid for a verdict that does not fit the task, NotFound for another's assignment.
    """
    assignment = _lock_assignment(assignment_id=assignment_id, rater=rater)
    task = assignment.task
    verdict.check(responses=len(task.response_ids))
    if assignment.state == AssignmentState.SUBMITTED:
        current = Judgment.objects.get(task=task, rater=rater, is_current=True)
        return Submitted(current.pk, current.is_counted, was_repeat=True)
    held = assignment.state == AssignmentState.LEASED
    is_counted = held or queue.take_place(task_id=task.pk)
    now = timezone.now()
    revision = _next_revision(task_id=task.pk, rater_id=rater.pk)
    judgment = Judgment(
        project_id=task.project_id,
        task_id=task.pk,
        rater_id=rater.pk,
        revision=revision,
        is_counted=is_counted,
        ranks=verdict.ranks,
        strength=verdict.strength,
        both_bad=verdict.both_bad,
        rationale=verdict.rationale,
        reasons=verdict.reasons,
        shown_order=assignment.shown_order,
        first_paint_at=assignment.first_paint_at,
        submitted_at=now,
        active_ms=_elapsed_ms(assignment, now),
    )
    judgment.save(force_insert=True)
    write_preferences(judgment=judgment, task=task)
    with connection.cursor() as cursor:
        if is_counted:
            cursor.execute("UPDATE annotator_task SET judged = judged + 1 WHERE id = %s", [task.pk])
        cursor.execute(
            "UPDATE annotator_assignment SET state = 'submitted', closed_at = %s, draft = NULL"
            " WHERE id = %s",
            [now, assignment.pk],
        )
        cursor.execute("UPDATE annotator_rater SET judged = judged + 1 WHERE id = %s", [rater.pk])
    return Submitted(judgment.pk, is_counted)


def _elapsed_ms(assignment: Assignment, now: Any) -> int | None:
    if assignment.first_paint_at is None:
        return None
    elapsed = (now - assignment.first_paint_at) / timedelta(milliseconds=1)
    return max(0, min(int(elapsed), 2**31 - 1))


def _next_revision(*, task_id: int, rater_id: int) -> int:
    last = (
        Judgment.objects.filter(task_id=task_id, rater_id=rater_id)
        .order_by("-revision")
        .values_list("revision", flat=True)
        .first()
    )
    return (last or 0) + 1


def write_preferences(*, judgment: Judgment, task: Task) -> None:
    """The edges of a judgment in force, in its own transaction."""
    Preference.objects.bulk_create(
        Preference(
            project_id=task.project_id,
            judgment_id=judgment.pk,
            task_id=task.pk,
            prompt_id=task.prompt_id,
            rater_id=judgment.rater_id,
            a_id=a,
            b_id=b,
            outcome=outcome,
            strength=strength,
            both_bad=judgment.both_bad,
            is_gold=task.is_gold,
        )
        for a, b, outcome, strength in edges(
            response_ids=task.response_ids, ranks=judgment.ranks, strength=judgment.strength
        )
    )


@transaction.atomic
def skip(*, assignment_id: int, rater: Rater, reason: str) -> None:
    """Give the task to someone else, saying why. Undo brings it back."""
    assignment = _lock_assignment(assignment_id=assignment_id, rater=rater)
    if assignment.state == AssignmentState.SUBMITTED:
        raise Conflict("You have judged this task already. Undo it first.")
    if assignment.state == AssignmentState.SKIPPED:
        return
    held = assignment.state == AssignmentState.LEASED
    assignment.state = AssignmentState.SKIPPED
    assignment.closed_at = timezone.now()
    assignment.skip_reason = reason[:200]
    assignment.save(update_fields=["state", "closed_at", "skip_reason"])
    if held:
        queue.give_back_places(project_id=assignment.project_id, task_ids=[assignment.task_id])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotator_rater SET skipped = skipped + 1 WHERE id = %s", [rater.pk])


@transaction.atomic
def undo(*, rater: Rater, lease_minutes: int) -> Assignment:
    """Reopen the rater's last submitted or skipped task, answers filled in.

    The place stays the rater's. The verdict leaves force at once: its edges are deleted and a
    withdrawal is added to the history. Raises NotFound when there is nothing to undo.
    """
    last = (
        Assignment.objects.filter(
            rater=rater, state__in=[AssignmentState.SUBMITTED, AssignmentState.SKIPPED]
        )
        .order_by("-closed_at", "-pk")
        .values_list("pk", flat=True)
        .first()
    )
    if last is None:
        raise NotFound("There is nothing to undo.")
    return reopen(assignment_id=last, rater=rater, lease_minutes=lease_minutes)


@transaction.atomic
def reopen(*, assignment_id: int, rater: Rater, lease_minutes: int) -> Assignment:
    """Put one closed task of this rater back on the desk, with its answers as the draft."""
    assignment = _lock_assignment(assignment_id=assignment_id, rater=rater)
    if assignment.state == AssignmentState.SUBMITTED:
        held = _withdraw(assignment=assignment)
        counter = "judged"
    elif assignment.state == AssignmentState.SKIPPED:
        held = queue.take_place(task_id=assignment.task_id)
        counter = "skipped"
    else:
        raise Conflict("This task is open already.")
    now = timezone.now()
    # Without a place of its own the task is open as a late one: its verdict will be an extra.
    assignment.state = AssignmentState.LEASED if held else AssignmentState.EXPIRED
    assignment.leased_at = now
    assignment.expires_at = now + timedelta(minutes=lease_minutes)
    assignment.closed_at = None
    assignment.draft_at = now
    assignment.skip_reason = ""
    assignment.save()
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE annotator_rater SET {counter} = {counter} - 1 WHERE id = %s", [rater.pk]
        )
    return assignment


def _withdraw(*, assignment: Assignment) -> bool:
    """Take the verdict in force out of force; returns whether its place stays taken."""
    current = Judgment.objects.select_for_update().get(
        task_id=assignment.task_id, rater_id=assignment.rater_id, is_current=True
    )
    Judgment.objects.filter(pk=current.pk).update(is_current=False)
    Preference.objects.filter(judgment_id=current.pk).delete()
    assignment.draft = {
        "verdict": shown_choice(
            ranks=current.ranks, strength=current.strength, shown_order=assignment.shown_order
        ),
        "both_bad": current.both_bad,
        "why": current.rationale,
    }
    counted = current.is_counted
    current.pk = None
    current.kind = Judgment.Kind.WITHDRAWAL
    current.revision += 1
    current.is_current = False
    current.submitted_at = timezone.now()
    current.save(force_insert=True)
    if counted:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE annotator_task SET judged = judged - 1 WHERE id = %s",
                [assignment.task_id],
            )
    return counted


DRAFT_FIELDS: Final = ("verdict", "both_bad", "why")


def save_draft(
    *, assignment_id: int, rater: Rater, draft: dict[str, Any], lease_minutes: int
) -> bool:
    """Keep unfinished answers; work on a held task renews its lease. False once closed."""
    now = timezone.now()
    kept = {key: draft[key] for key in DRAFT_FIELDS if key in draft}
    open_ones = Assignment.objects.filter(pk=assignment_id, rater=rater)
    changed = open_ones.filter(state=AssignmentState.LEASED).update(
        draft=kept, draft_at=now, expires_at=now + timedelta(minutes=lease_minutes)
    )
    if not changed:
        changed = open_ones.filter(state=AssignmentState.EXPIRED).update(draft=kept, draft_at=now)
    return bool(changed)
