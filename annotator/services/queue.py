"""Handing out tasks: exact overlap, no task twice to one rater, cost independent of size.

How it stays exact
    ``Task.free`` is overlap - counted judgments - live leases. Every change of it happens under
    the task's row lock, in the transaction that changes the judgment or the lease.

How it stays fast
    The pick walks a partial index over tasks with a free place, in hand-out order. A rater who
    is far ahead of the others would walk over every open task already had; the rater's
    low-water mark skips them. A place that becomes free again before a mark moves the mark back.

What one rater does is done one after another: claim, submit, skip and reopen begin with that
rater's advisory lock. Row locks are then taken in the order assignment, tasks by id, raters by
id; a pick takes the rater first, but never waits for a task (SKIP LOCKED), and the assignment it
may revive is its rater's own.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from annotator.models import Project, Rater

# A mark is exact when set and goes stale by one task per claim: this bounds the walk.
CLAIMS_PER_MARK: Final = 40
SWEEP_LIMIT: Final = 50


@dataclass(frozen=True)
class Lease:
    """A task held by a rater. ``shown_order`` lists places in ``Task.response_ids``."""

    assignment_id: int
    task_id: int
    shown_order: list[int]
    expires_at: datetime


# The scalar subquery is never flattened into a join: one index probe per walked task, whatever
# the planner thinks of the table sizes.
OPEN_TASKS: Final = """
    FROM annotator_task t
    WHERE t.project_id = %(project)s AND t.free > 0
      AND (t.priority * -1, t.position, t.id) >= (%(rank)s, %(position)s, %(task)s)
      AND COALESCE((SELECT a.state <> 'expired' FROM annotator_assignment a
                    WHERE a.task_id = t.id AND a.rater_id = %(rater)s), false) = false
    ORDER BY t.priority * -1, t.position, t.id
    LIMIT 1
"""

# What the rater holds already, else the next open task, leased now.
CLAIM_SQL: Final = f"""
    WITH held AS (
        SELECT id, task_id, shown_order, expires_at
        FROM annotator_assignment
        WHERE rater_id = %(rater)s AND state = 'leased' AND expires_at > now()
        ORDER BY leased_at DESC, id DESC LIMIT 1
    ), picked AS (
        SELECT t.id {OPEN_TASKS.replace("WHERE", "WHERE NOT EXISTS (SELECT FROM held) AND", 1)}
        FOR NO KEY UPDATE OF t SKIP LOCKED
    ), taken AS (
        UPDATE annotator_task t SET free = t.free - 1
        FROM picked WHERE t.id = picked.id
        RETURNING t.id, cardinality(t.response_ids) AS size
    ), counted AS (
        UPDATE annotator_rater SET claims_since_mark = claims_since_mark + 1
        WHERE id = %(rater)s AND EXISTS (SELECT FROM taken)
    ), leased AS (
        INSERT INTO annotator_assignment AS a
            (project_id, task_id, rater_id, state, seed, shown_order, leased_at, expires_at,
             first_paint_at, skip_reason)
        SELECT %(project)s, taken.id, %(rater)s, 'leased', %(seed)s,
               (SELECT array_agg(place ORDER BY md5(%(seed)s::text || ':' || place))
                FROM generate_series(0, taken.size - 1) AS place),
               now(), now() + make_interval(mins => %(minutes)s), now(), ''
        FROM taken
        ON CONFLICT (task_id, rater_id) DO UPDATE  -- had it before and let it expire: as it was
            SET state = 'leased', leased_at = now(), closed_at = NULL,
                expires_at = excluded.expires_at
        RETURNING a.id, a.task_id, a.shown_order, a.expires_at
    )
    SELECT id, task_id, shown_order, expires_at, false FROM held
    UNION ALL
    SELECT id, task_id, shown_order, expires_at, true FROM leased
"""

# Held by the import of a project until it commits; whoever would change what it goes by asks.
IMPORT_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(hashtext('touchstone import'), %s)"

# The first and the last place in hand-out order, as (priority * -1, position, id).
TOP: Final = (-(2**31), -(2**63), 0)
END: Final = (2**31 - 1, 2**63 - 1, 2**63 - 1)


def claim_next(*, project: Project, rater: Rater) -> Lease | None:
    """The task this rater holds, else the next one, leased now; None when there is none.

    Two requests of one rater at once get the same task: the rater's row is locked first. An
    archived project hands nothing out.
    """
    if project.archived_at is not None:
        return None
    values = {
        "project": project.pk,
        "rater": rater.pk,
        "minutes": project.options.lease_minutes,
        "seed": secrets.randbits(62),
    }
    swept = True
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            lock_rater(rater.pk)
            mark, claims, overdue = _lock_mark(cursor, values)
            values |= dict(zip(("rank", "position", "task"), mark, strict=True))
            # A sweep that found nothing to do met a lock: its holder gives the places back.
            if not (overdue and swept):
                cursor.execute(CLAIM_SQL, values)
                row = cursor.fetchone()
                is_new = row is not None and row[4]
                if row is None or (is_new and claims + 1 >= CLAIMS_PER_MARK):
                    _set_mark(cursor, values)
                return Lease(*row[:4]) if row else None
        # Outside the rater's lock: a sweep locks tasks, and tasks are locked before raters.
        swept = sweep_expired(project_id=project.pk) > 0


def lock_rater(rater_id: int) -> None:
    """Wait until nothing else of this rater is under way; held until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('touchstone rater', %s))", [rater_id]
        )


def hold_imports(project_id: int) -> bool:
    """Keep imports of a project waiting until this transaction ends; False if one is under way."""
    with connection.cursor() as cursor:
        cursor.execute(IMPORT_LOCK_SQL, [project_id])
        return cursor.fetchone()[0]


def _lock_mark(cursor: Any, values: dict[str, Any]) -> tuple[tuple[int, int, int], int, bool]:
    """The rater's mark, the claims since it was set, and whether leases of others ran out.

    A lease lost in a crash only means that the task is handed out again: not worth a sync.
    """
    cursor.execute(
        """
        SELECT mark_priority, mark_position, mark_task_id, claims_since_mark,
               EXISTS (SELECT FROM annotator_assignment
                       WHERE project_id = %(project)s AND state = 'leased'
                         AND expires_at <= now()),
               set_config('synchronous_commit', 'off', true)
        FROM annotator_rater WHERE id = %(rater)s FOR NO KEY UPDATE
        """,
        values,
    )
    priority, position, task_id, claims, overdue, _ = cursor.fetchone()
    return (TOP if priority is None else (-priority, position, task_id)), claims, overdue


def _set_mark(cursor: Any, values: dict[str, Any]) -> None:
    """Move the mark to the first open task not yet had; locked ones count, so none is lost."""
    cursor.execute(f"SELECT t.priority * -1, t.position, t.id {OPEN_TASKS}", values)
    rank, position, task_id = cursor.fetchone() or END
    cursor.execute(
        "UPDATE annotator_rater SET mark_priority = %s, mark_position = %s, mark_task_id = %s,"
        " claims_since_mark = 0 WHERE id = %s",
        [-rank, position, task_id, values["rater"]],
    )


def sweep_expired(*, project_id: int) -> int:
    """Give back the places of leases that ran out; drafts stay. Returns how many.

    A claim that finds leases overdue does this first, so they expire without a clock process.
    """
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute(
            """
            WITH gone AS (
                SELECT id, task_id FROM annotator_assignment
                WHERE project_id = %s AND state = 'leased' AND expires_at <= now()
                ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE annotator_assignment a SET state = 'expired', closed_at = now()
            FROM gone WHERE a.id = gone.id RETURNING a.task_id
            """,
            [project_id, SWEEP_LIMIT],
        )
        tasks = [row[0] for row in cursor.fetchall()]
        if tasks:
            give_back_places(project_id=project_id, task_ids=tasks)
    return len(tasks)


def give_back_places(*, project_id: int, task_ids: list[int]) -> None:
    """A place of each task is free again, two where a task is named twice.

    Marks that lie beyond the first of them move back to it.

    All tasks are locked before any rater, and every rater of the project is locked before its
    mark is read: a claim under way may be about to move a mark past a place it cannot see yet.
    """
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM annotator_task WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            [task_ids],
        )
        cursor.execute(
            """
            UPDATE annotator_task t SET free = t.free + back.places
            FROM (SELECT id, count(*) AS places FROM unnest(%s::bigint[]) AS id GROUP BY id) back
            WHERE t.id = back.id RETURNING t.priority * -1, t.position, t.id
            """,
            [task_ids],
        )
        rank, position, task_id = min(cursor.fetchall())
        _lock_raters(project_id)
        cursor.execute(
            """
            UPDATE annotator_rater
            SET mark_priority = %(priority)s, mark_position = %(position)s,
                mark_task_id = %(task)s
            WHERE project_id = %(project)s AND kind = 'human' AND mark_priority IS NOT NULL
              AND (mark_priority * -1, mark_position, mark_task_id)
                  > (%(rank)s, %(position)s, %(task)s)
            """,
            {
                "project": project_id,
                "rank": rank,
                "priority": -rank,
                "position": position,
                "task": task_id,
            },
        )


def _lock_raters(project_id: int) -> None:
    """Lock every person's row, by id: bulk updates of them must not meet in two orders."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM annotator_rater WHERE project_id = %s AND kind = 'human'"
            " ORDER BY id FOR NO KEY UPDATE",
            [project_id],
        )


def take_place(*, task_id: int) -> bool:
    """Take a free place of a task for a verdict that came after its lease; False when none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotator_task SET free = free - 1 WHERE id = %s AND free > 0", [task_id]
        )
        return cursor.rowcount == 1


@transaction.atomic
def reset_marks(*, project_id: int) -> None:
    """Forget every low-water mark: after an import, or when priorities or overlap changed.

    Touches every rater, also those without a mark: see ``give_back_places``.
    """
    _lock_raters(project_id)
    Rater.objects.filter(project_id=project_id, kind=Rater.Kind.HUMAN).update(
        mark_priority=None, mark_position=None, mark_task_id=None, claims_since_mark=0
    )


def set_overlap(*, project_id: int, overlap: int) -> int:
    """Ask for another number of judgments on every task of a project. Returns tasks changed.

    Judgments that are in stay in: a task that has more than it now needs keeps them.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotator_task SET free = free + (%(new)s - overlap), overlap = %(new)s"
            " WHERE project_id = %(project)s AND overlap <> %(new)s",
            {"new": overlap, "project": project_id},
        )
        changed = cursor.rowcount
        reset_marks(project_id=project_id)
    return changed
