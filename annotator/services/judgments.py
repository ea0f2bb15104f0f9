"""Recording verdicts. Everything a submit changes is one transaction, durable before it answers."""

from __future__ import annotations

from collections.abc import Callable
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


@dataclass(frozen=True)
class _Held:
    """An assignment with its task, locked for the transaction at hand."""

    assignment_id: int
    state: str
    shown_order: list[int]
    task_id: int
    prompt_id: int
    response_ids: list[int]
    is_gold: bool


LOCK_SQL: Final = """
    SELECT a.id, a.state, a.shown_order, t.id, t.prompt_id, t.response_ids, t.is_gold
    FROM annotator_assignment a JOIN annotator_task t ON t.id = a.task_id
    WHERE a.id = %s AND a.rater_id = %s FOR NO KEY UPDATE OF a
"""

# Judgment, edges, counters and the closed assignment: one round trip, one set of locks.
SUBMIT_SQL: Final = """
    WITH judgment AS (
        INSERT INTO annotator_judgment
            (project_id, task_id, rater_id, kind, revision, is_current, is_counted, ranks,
             strength, both_bad, rationale, reasons, shown_order, first_paint_at, submitted_at,
             active_ms)
        SELECT a.project_id, a.task_id, a.rater_id, 'vote',
               (SELECT coalesce(max(revision), 0) + 1 FROM annotator_judgment
                WHERE task_id = a.task_id AND rater_id = a.rater_id),
               true, %(counted)s, %(ranks)s, %(strength)s, %(both_bad)s, %(rationale)s,
               %(reasons)s, a.shown_order, a.first_paint_at, clock_timestamp(),
               least(greatest(0, extract(epoch FROM clock_timestamp() - a.first_paint_at)
                     * 1000), 2147483647)::int
        FROM annotator_assignment a WHERE a.id = %(assignment)s
        RETURNING id, project_id, task_id, rater_id, both_bad
    ), edges AS (
        INSERT INTO annotator_preference
            (project_id, judgment_id, task_id, prompt_id, rater_id, a_id, b_id, outcome,
             strength, both_bad, is_gold)
        SELECT j.project_id, j.id, j.task_id, %(prompt)s, j.rater_id, e.a, e.b, e.outcome,
               e.strength, j.both_bad, %(gold)s
        FROM judgment j,
             unnest(%(a)s::bigint[], %(b)s::bigint[], %(outcomes)s::int[], %(strengths)s::int[])
                 AS e (a, b, outcome, strength)
    ), task AS (
        UPDATE annotator_task SET judged = judged + 1
        WHERE id = %(task)s AND %(counted)s RETURNING id
    ), assignment AS (
        UPDATE annotator_assignment
        SET state = 'submitted', closed_at = clock_timestamp(), draft = NULL
        WHERE id = %(assignment)s
    ), rater AS (  -- asks for the task's row, so that it is locked first (services.queue)
        UPDATE annotator_rater SET judged = judged + 1
        WHERE id = %(rater)s AND (SELECT count(*) FROM task) >= 0
    )
    SELECT id FROM judgment
"""


@transaction.atomic
def submit(
    *, assignment_id: int, rater: Rater, verdict: Callable[[list[int]], Verdict]
) -> Submitted:
    """Record a verdict; a late one takes a free place or is kept as an extra.

    ``verdict`` gives the verdict in canonical order for the order that was shown. Raises Invalid
    for a verdict that does not fit the task, NotFound for another's assignment.
    """
    with connection.cursor() as cursor:
        queue.lock_rater(rater.pk)
        cursor.execute(LOCK_SQL, [assignment_id, rater.pk])
        row = cursor.fetchone()
        if row is None:
            raise NotFound("This task is not yours.")
        held = _Held(*row)
        if held.state == AssignmentState.SUBMITTED:
            current = Judgment.objects.get(task_id=held.task_id, rater=rater, is_current=True)
            return Submitted(current.pk, current.is_counted, was_repeat=True)
        said = verdict(held.shown_order)
        said.check(responses=len(held.response_ids))
        is_counted = held.state == AssignmentState.LEASED or queue.take_place(task_id=held.task_id)
        cursor.execute(SUBMIT_SQL, _values(held, said, rater=rater, is_counted=is_counted))
        return Submitted(cursor.fetchone()[0], is_counted)


def _values(held: _Held, verdict: Verdict, *, rater: Rater, is_counted: bool) -> dict[str, Any]:
    pairs = edges(response_ids=held.response_ids, ranks=verdict.ranks, strength=verdict.strength)
    a, b, outcomes, strengths = (list(column) for column in zip(*pairs, strict=True))
    return {
        "assignment": held.assignment_id,
        "task": held.task_id,
        "prompt": held.prompt_id,
        "gold": held.is_gold,
        "rater": rater.pk,
        "counted": is_counted,
        "ranks": verdict.ranks,
        "strength": verdict.strength,
        "both_bad": verdict.both_bad,
        "rationale": verdict.rationale,
        "reasons": verdict.reasons,
        "a": a,
        "b": b,
        "outcomes": outcomes,
        "strengths": strengths,
    }


def _lock_assignment(*, assignment_id: int, rater: Rater) -> Assignment:
    queue.lock_rater(rater.pk)
    assignment = (
        Assignment.objects.select_for_update(no_key=True)
        .filter(pk=assignment_id, rater=rater)
        .first()
    )
    if assignment is None:
        raise NotFound("This task is not yours.")
    return assignment


def write_preferences(*, judgment: Judgment, task: Task) -> None:
    """The edges of a judgment that did not come from the desk, in its own transaction."""
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
    queue.lock_rater(rater.pk)
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
