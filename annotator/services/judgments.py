"""Recording verdicts. Everything a submit changes is one transaction, durable before it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import orjson
from django.db import connection, transaction
from django.db.models import F, Max, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone

from annotator.errors import Conflict, NotFound
from annotator.kinds.base import Answers, Kind, from_gold, kind
from annotator.kinds.verdict import Edge, Verdict, as_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    Judgment,
    Preference,
    ProjectSettings,
    Rater,
    Task,
)
from annotator.queries import rubric_lists
from annotator.services import acceptance, criterion_verdicts, queue


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
    kind: str
    is_gold: bool
    gold: dict[str, Any] | None
    may_be_accepted: bool  # a judge of the project is or was trusted
    list_of: Any  # as rubric_lists.LIST_OF has it


LOCK_SQL: Final = f"""
    SELECT a.id, a.state, a.shown_order, t.id, t.prompt_id, t.response_ids, t.kind, t.is_gold,
           CASE WHEN t.is_gold THEN t.gold END,
           EXISTS (SELECT FROM annotator_judge g JOIN annotator_acceptrule u ON u.judge_id = g.id
                   WHERE g.project_id = a.project_id),
           {rubric_lists.LIST_OF}
    FROM annotator_assignment a JOIN annotator_task t ON t.id = a.task_id
    WHERE a.id = %s AND a.rater_id = %s FOR NO KEY UPDATE OF a
"""

# Judgment, edges, counters and the closed assignment: one round trip, one set of locks.
SUBMIT_SQL: Final = """
    WITH judgment AS (
        INSERT INTO annotator_judgment
            (project_id, task_id, rater_id, kind, revision, is_current, is_counted, ranks,
             strength, both_bad, ratings, rationale, reasons, shown_order, first_paint_at,
             submitted_at, active_ms, is_hit)
        SELECT a.project_id, a.task_id, a.rater_id, 'vote',
               (SELECT coalesce(max(revision), 0) + 1 FROM annotator_judgment
                WHERE task_id = a.task_id AND rater_id = a.rater_id),
               true, %(counted)s, %(ranks)s, %(strength)s, %(both_bad)s,
               %(ratings)s::jsonb, %(rationale)s, %(reasons)s, a.shown_order, a.first_paint_at,
               clock_timestamp(),
               -- what the browser measured, never more than has passed
               least(greatest(0, extract(epoch FROM clock_timestamp() - a.first_paint_at)
                     * 1000), 2147483647, %(active_ms)s)::int,
               %(is_hit)s
        FROM annotator_assignment a WHERE a.id = %(assignment)s
        RETURNING id, project_id, task_id, rater_id, both_bad
    ), task AS (  -- locked even when not counted: a reviewer may be settling it
        UPDATE annotator_task SET judged = judged + %(counted)s::int
        WHERE id = %(task)s RETURNING id, is_gold, is_settled
    ), edges AS (
        INSERT INTO annotator_preference
            (project_id, judgment_id, task_id, prompt_id, rater_id, a_id, b_id, outcome,
             strength, both_bad, is_gold, is_overruled)
        SELECT j.project_id, j.id, j.task_id, %(prompt)s, j.rater_id, e.a, e.b, e.outcome,
               e.strength, j.both_bad, t.is_gold, t.is_settled
        FROM judgment j, task t,
             unnest(%(a)s::bigint[], %(b)s::bigint[], %(outcomes)s::int[], %(strengths)s::int[])
                 AS e (a, b, outcome, strength)
    ), assignment AS (
        UPDATE annotator_assignment
        SET state = 'submitted', closed_at = clock_timestamp(), draft = NULL,
            sent_back_at = NULL, sent_back_note = ''
        WHERE id = %(assignment)s
    ), rater AS (  -- asks for the task's row, so that it is locked first (services.queue)
        UPDATE annotator_rater SET judged = judged + 1, skipped = skipped - %(was_skipped)s::int
        WHERE id = %(rater)s AND (SELECT count(*) FROM task) >= 0
    )
    SELECT id FROM judgment
"""
# Of a rubric's checklist: what is said of its criteria in the same round trip.
SUBMIT_CRITERIA_SQL: Final = SUBMIT_SQL.replace(
    "WITH judgment AS", f"WITH criteria AS ({criterion_verdicts.WRITE}), judgment AS"
)


def answer(
    *, assignment_id: int, rater: Rater, answers: Answers, options: ProjectSettings
) -> Submitted:
    """Record what a page or a program answered, in the fields of the task's kind.

    Raises annotator.kinds.base.Unfit where the answers are not a verdict yet.
    """
    return _submit(
        assignment_id,
        rater,
        options,
        lambda of_kind, shown_order, asked: of_kind.read(
            answers, options=asked, shown_order=shown_order
        ),
    )


def submit(
    *,
    assignment_id: int,
    rater: Rater,
    options: ProjectSettings,
    verdict: Callable[[Kind, list[int]], Verdict],
) -> Submitted:
    """Record a verdict; a late one takes a free place or is kept as an extra.

    ``verdict`` gives the verdict in canonical order for the task's kind and the order that was
    shown. Raises Invalid for one that does not fit the task, NotFound for another's assignment.
    """
    return _submit(
        assignment_id, rater, options, lambda of_kind, shown_order, _: verdict(of_kind, shown_order)
    )


@transaction.atomic
def _submit(
    assignment_id: int,
    rater: Rater,
    options: ProjectSettings,
    verdict: Callable[[Kind, list[int], ProjectSettings], Verdict],
) -> Submitted:
    """``verdict`` is also given the settings that the task goes by."""
    with connection.cursor() as cursor:
        queue.lock_rater(rater.pk)
        cursor.execute(LOCK_SQL, [assignment_id, rater.pk])
        row = cursor.fetchone()
        if row is None:
            raise NotFound("This task is not yours.")
        held = _Held(*row)
        of_kind = kind(held.kind)
        of = rubric_lists.parse(held.list_of)
        asked = rubric_lists.options_of(options, of)
        said = verdict(of_kind, held.shown_order, asked)
        said.check(responses=len(held.response_ids))
        if held.state == AssignmentState.SUBMITTED:
            return _repeated(task_id=held.task_id, rater=rater, verdict=said)
        is_counted = held.state == AssignmentState.LEASED or queue.take_place(task_id=held.task_id)
        values = _values(held, said, rater=rater, is_counted=is_counted)
        values |= _edge_columns(held, of_kind.edges(said, options=asked))
        values["is_hit"] = _is_hit(held, of_kind, said)
        if of is not None:
            on_criteria = criterion_verdicts.Said(of, held.response_ids, said.ratings or {})
            values |= criterion_verdicts.columns([on_criteria], rater_id=rater.pk)
        cursor.execute(SUBMIT_SQL if of is None else SUBMIT_CRITERIA_SQL, values)
        judgment_id = cursor.fetchone()[0]
        if held.may_be_accepted:
            acceptance.follow([held.task_id])
        return Submitted(judgment_id, is_counted)


def _repeated(*, task_id: int, rater: Rater, verdict: Verdict) -> Submitted:
    """A double press is recorded once. Another verdict is not dropped in silence: Conflict."""
    current = _votes_in_force().get(task_id=task_id, rater=rater)
    if replace(as_verdict(current), active_ms=None) != replace(verdict, active_ms=None):
        raise Conflict(
            "You have judged this task already, and differently. Your first verdict stands.",
            advice="Open it in your judgments to change it.",
        )
    return Submitted(current.pk, current.is_counted, was_repeat=True)


def _votes_in_force() -> QuerySet[Judgment]:
    """A reviewer's decision on the same task stands beside the vote and is not one."""
    return Judgment.objects.filter(is_current=True).exclude(kind=Judgment.Kind.ADJUDICATION)


def _is_hit(held: _Held, of_kind: Kind, verdict: Verdict) -> bool | None:
    if not held.is_gold or held.gold is None:
        return None
    # Django's connection leaves jsonb to its fields; a raw cursor hands out text.
    gold = orjson.loads(held.gold) if isinstance(held.gold, str) else held.gold
    return of_kind.matches(verdict, from_gold(gold))


def _values(held: _Held, verdict: Verdict, *, rater: Rater, is_counted: bool) -> dict[str, Any]:
    return {
        "assignment": held.assignment_id,
        "task": held.task_id,
        "prompt": held.prompt_id,
        "rater": rater.pk,
        "counted": is_counted,
        # Skipped in one tab, judged in another.
        "was_skipped": held.state == AssignmentState.SKIPPED,
        "ranks": verdict.ranks,
        "strength": verdict.strength,
        "both_bad": verdict.both_bad,
        "ratings": orjson.dumps(verdict.ratings).decode() if verdict.ratings else None,
        "rationale": verdict.rationale,
        "reasons": verdict.reasons,
        "active_ms": verdict.active_ms,
    }


def _edge_columns(held: _Held, edges: list[Edge]) -> dict[str, list[int]]:
    return {
        "a": [held.response_ids[edge.a] for edge in edges],
        "b": [held.response_ids[edge.b] for edge in edges],
        "outcomes": [edge.outcome for edge in edges],
        "strengths": [edge.strength for edge in edges],
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


def write_preferences(*, judgment: Judgment, task: Task, options: ProjectSettings) -> None:
    """The edges of a judgment that did not come from the desk, in its own transaction."""
    asked = rubric_lists.options_for(task, options)
    edges = kind(task.kind).edges(as_verdict(judgment), options=asked)
    Preference.objects.bulk_create(
        Preference(
            project_id=task.project_id,
            judgment_id=judgment.pk,
            task_id=task.pk,
            prompt_id=task.prompt_id,
            rater_id=judgment.rater_id,
            a_id=task.response_ids[edge.a],
            b_id=task.response_ids[edge.b],
            outcome=edge.outcome,
            strength=edge.strength,
            both_bad=judgment.both_bad,
            is_gold=task.is_gold,
        )
        for edge in edges
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
def undo(*, rater: Rater, options: ProjectSettings) -> Assignment:
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
    return reopen(assignment_id=last, rater=rater, options=options)


@transaction.atomic
def reopen(*, assignment_id: int, rater: Rater, options: ProjectSettings) -> Assignment:
    """Put one closed task of this rater back on the desk, with its answers as the draft."""
    assignment = _lock_assignment(assignment_id=assignment_id, rater=rater)
    if assignment.state == AssignmentState.SUBMITTED:
        held = _withdraw(assignment=assignment, options=options)
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
    assignment.expires_at = now + timedelta(minutes=options.lease_minutes)
    assignment.closed_at = None
    assignment.draft_at = now
    assignment.skip_reason = ""
    assignment.save()
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE annotator_rater SET {counter} = {counter} - 1 WHERE id = %s", [rater.pk]
        )
    return assignment


def _withdraw(*, assignment: Assignment, options: ProjectSettings) -> bool:
    """Take the verdict in force out of force; returns whether its place stays taken."""
    # The task before its verdicts and edges: services.adjudication changes those in this order.
    task = (
        Task.objects.select_for_update(no_key=True)
        .only("kind", "response_ids", "rubric_version_id", "import_run_id", "prompt_id")
        .get(pk=assignment.task_id)
    )
    of = rubric_lists.of_task(task)
    current = (
        _votes_in_force()
        .select_for_update()
        .get(task_id=assignment.task_id, rater_id=assignment.rater_id)
    )
    Judgment.objects.filter(pk=current.pk).update(is_current=False)
    Preference.objects.filter(judgment_id=current.pk).delete()
    if of is not None:
        criterion_verdicts.remove(of, task.response_ids, rater_id=assignment.rater_id)
    assignment.draft = kind(task.kind).show(
        as_verdict(current),
        options=rubric_lists.options_of(options, of),
        shown_order=assignment.shown_order,
    )
    counted = current.is_counted
    current.pk = None
    current.kind = Judgment.Kind.WITHDRAWAL
    current.revision = next_revision(task_id=assignment.task_id, rater_id=assignment.rater_id)
    current.is_current = False
    current.submitted_at = timezone.now()
    current.save(force_insert=True)
    if counted:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE annotator_task SET judged = judged - 1 WHERE id = %s",
                [assignment.task_id],
            )
    acceptance.follow([assignment.task_id])
    return counted


def next_revision(*, task_id: int, rater_id: int) -> int:
    """The next number in a rater's history of a task; the caller holds the rater's lock."""
    had = Judgment.objects.filter(task_id=task_id, rater_id=rater_id).aggregate(Max("revision"))
    return (had["revision__max"] or 0) + 1


def save_draft(
    *, assignment_id: int, rater: Rater, draft: dict[str, str], lease_minutes: int
) -> bool:
    """Keep unfinished answers; work on a held task renews its lease. False once closed."""
    now = timezone.now()
    open_ones = Assignment.objects.filter(pk=assignment_id, rater=rater)
    changed = open_ones.filter(state=AssignmentState.LEASED).update(
        draft=draft,
        draft_at=now,
        # Never sooner: a task sent back is held for days.
        expires_at=Greatest(F("expires_at"), now + timedelta(minutes=lease_minutes)),
    )
    if not changed:
        changed = open_ones.filter(state=AssignmentState.EXPIRED).update(draft=draft, draft_at=now)
    return bool(changed)
