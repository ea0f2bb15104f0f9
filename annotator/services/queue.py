"""Handing out tasks: exact overlap, no task twice to one rater, cost independent of size.

How it stays exact
    ``Task.free`` is overlap - counted judgments - live leases. Every change of it happens under
    the task's row lock, in the transaction that changes the judgment or the lease. Golds and
    qualification tasks have no places: their ``free`` is 0 and stays 0.

How it stays fast
    The pick walks a partial index over tasks with a free place, in hand-out order: once for
    everybody's tasks and once for each group of the rater, and takes the first of what it finds.
    A rater who is far ahead of the others would walk over every open task already had; the
    rater's low-water mark skips them. A place that becomes free again before a mark moves the
    mark back; tasks that change place or group, and raters who change group, reset marks.

What one rater does is done one after another: claim, submit, skip and reopen begin with that
rater's advisory lock. Row locks are then taken in the order assignment, tasks by id, raters by
id; a pick takes the rater first, but never waits for a task (SKIP LOCKED), and the assignment it
may revive is its rater's own.

Who gets something at all is decided by ``queue_gate``; golds and qualification are in
``queue_golds``; what changes a whole queue is in ``queue_order``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from annotator.models import Project, Rater
from annotator.samplers.orders import STRIDE
from annotator.services import queue_gate, queue_golds
from annotator.services.queue_gate import END, FEWEST_FIRST, Gate, Withheld
from annotator.services.queue_marks import lock_raters, lock_tasks, reset_marks
from annotator.services.queue_order import reorder, set_overlap

__all__ = [
    "IMPORT_LOCK_SQL",
    "Claim",
    "Lease",
    "Withheld",
    "claim",
    "claim_next",
    "give_back_places",
    "hold_imports",
    "lock_rater",
    "reorder",
    "reset_marks",
    "set_overlap",
    "sweep_expired",
    "take_place",
]

# A mark is exact when set and goes stale by one task per claim: this bounds the walk.
CLAIMS_PER_MARK: Final = 40
SWEEP_LIMIT: Final = 50
# How often a claim waits for whoever holds the last open tasks before it says that none is left.
WAITS: Final = 8
DRAWS: Final = 2**31


@dataclass(frozen=True)
class Lease:
    """A task held by a rater. ``shown_order`` lists places in ``Task.response_ids``."""

    assignment_id: int
    task_id: int
    shown_order: list[int]
    expires_at: datetime


@dataclass(frozen=True)
class Claim:
    """What a claim came to: a lease, or why there is none."""

    lease: Lease | None = None
    withheld: Withheld | None = None


# One probe of the index per group. The scalar subquery is never flattened into a join: one index
# probe per walked task, whatever the planner thinks of the table sizes.
OPEN_TASKS: Final = f"""
    FROM unnest(%(groups)s::bigint[]) AS mine (group_id)
    CROSS JOIN LATERAL (
        SELECT t.id, t.priority * -1 AS rank, t.position, cardinality(t.response_ids) AS size
        FROM annotator_task t
        WHERE t.project_id = %(project)s AND t.group_id = mine.group_id AND t.free > 0
          AND (t.priority * -1, t.position, t.id) >= (%(rank)s, %(position)s, %(task)s)
          AND {queue_golds.NOT_HAD}
        ORDER BY t.priority * -1, t.position, t.id
        LIMIT 1
        {{lock}}
    ) best
    ORDER BY best.rank, best.position, best.id
    LIMIT 1
"""
FIRST_OPEN_SQL: Final = f"SELECT best.rank, best.position, best.id {OPEN_TASKS.format(lock='')}"

# A task moves on by a round with each place taken, where fewest votes come first.
MOVED: Final = f"""
    CASE WHEN {{fewest}} THEN t.id + {STRIDE} * (t.overlap - (t.free {{places}})) ELSE t.position END
"""

IS_FEWEST_FIRST: Final = f"""
    (SELECT p.settings ->> 'sampler' = '{FEWEST_FIRST}' FROM annotator_project p
     WHERE p.id = t.project_id)
"""

# The next open task, leased now.
CLAIM_SQL: Final = f"""
    WITH picked AS (
        SELECT best.id, best.size
        {OPEN_TASKS.format(lock="FOR NO KEY UPDATE OF t SKIP LOCKED")}
    ), taken AS (
        UPDATE annotator_task t SET free = t.free - 1, position = {MOVED.format(fewest="%(fewest)s", places="- 1")}
        FROM picked WHERE t.id = picked.id
        RETURNING t.id, picked.size
    ), counted AS (
        UPDATE annotator_rater SET claims_since_mark = claims_since_mark + 1
        WHERE id = %(rater)s AND EXISTS (SELECT FROM taken)
    )
    {queue_golds.LEASE_SQL.format(picked="taken")}
"""

# Held by the import of a project until it commits; whoever would change what it goes by asks.
IMPORT_LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(hashtext('touchstone import'), %s)"


def claim_next(*, project: Project, rater: Rater) -> Lease | None:
    """The task this rater holds, else the next one, leased now; None when there is none."""
    return claim(project=project, rater=rater).lease


def claim(*, project: Project, rater: Rater) -> Claim:
    """The task this rater holds, else the next one, leased now; else why there is none.

    Two requests of one rater at once get the same task. An archived project hands nothing out;
    where the project or the rater is paused or has reached a limit, only what is held.
    """
    options = project.options
    # One number for the shown order and, by other bits of it, for whether a gold's turn has come.
    seed = secrets.randbits(62)
    values = {
        "project": project.pk,
        "rater": rater.pk,
        "minutes": options.lease_minutes,
        "seed": seed,
        "rate": options.gold_rate,
        "share": options.qualification_share,
        "quota": options.quota,
        "cap": options.daily_cap,
    }
    swept, waits = True, 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            lock_rater(rater.pk)
            gate = queue_gate.read(cursor, rater.pk)
            # A sweep that found nothing to do met a lock: its holder gives the places back.
            if not (gate.overdue and swept):
                found, locked = _claim(cursor, values, gate)
                if locked is None or waits == WAITS:
                    return found
                waits += 1
        # Outside the rater's lock: tasks are locked before raters.
        if gate.overdue and swept:
            swept = sweep_expired(project_id=project.pk) > 0
        elif locked is not None:
            _wait_for(locked)


def _claim(cursor: Any, values: dict[str, Any], gate: Gate) -> tuple[Claim, int | None]:
    """What this rater gets now, and the open task that another transaction keeps from them."""
    if gate.archived:
        return Claim(withheld=queue_gate.ARCHIVED), None
    if gate.held:
        return Claim(Lease(*gate.held)), None
    why = queue_gate.withheld(
        gate, rater_id=values["rater"], quota=values["quota"], daily_cap=values["cap"]
    )
    if why is not None:
        return Claim(withheld=why), None
    if gate.must_qualify:
        row, why, locked = _qualify(cursor, values, gate)
        if row or why or locked:
            return Claim(Lease(*row) if row else None, why), locked
    rank, position, task_id = gate.mark
    values = values | {
        "groups": gate.groups,
        "fewest": gate.sampler == FEWEST_FIRST,
        "rank": rank,
        "position": position,
        "task": task_id,
    }
    draw = values["seed"] % DRAWS / DRAWS
    if queue_golds.is_due(gate, rate=values["rate"], draw=draw) and _first_open(cursor, values):
        row = queue_golds.lease_gold(cursor, values, gate, draw=(values["seed"] // DRAWS) / DRAWS)
        if row is not None:
            return Claim(Lease(*row)), None
    cursor.execute(CLAIM_SQL, values)
    row = cursor.fetchone()
    if row is None or not gate.has_mark or gate.claims + 1 >= CLAIMS_PER_MARK:
        first = _set_mark(cursor, values)
        if row is None:
            return Claim(withheld=queue_gate.NOTHING_LEFT), first and first[2]
    return Claim(Lease(*row)), None


def _qualify(
    cursor: Any, values: dict[str, Any], gate: Gate
) -> tuple[tuple[Any, ...] | None, Withheld | None, int | None]:
    """A lease of the qualification set, or why not, or the rater has just qualified."""
    row = None if gate.disqualified else queue_golds.lease_qualification(cursor, values, gate)
    if row is not None:
        return row, None, None
    found = queue_golds.result(
        cursor, project_id=values["project"], rater_id=values["rater"], groups=gate.groups
    )
    if gate.disqualified:
        return None, queue_golds.not_qualified(found, share=values["share"]), None
    if found.done < found.size:  # the rest is being made into ordinary tasks at this moment
        return None, queue_gate.NOTHING_LEFT, found.waiting
    return None, queue_golds.decide(cursor, values, found, share=values["share"]), None


def _wait_for(task_id: int) -> None:
    """Until whoever has this task's row has ended; holds no other lock meanwhile."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM annotator_task WHERE id = %s FOR SHARE", [task_id])


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


def _first_open(cursor: Any, values: dict[str, Any]) -> tuple[int, int, int] | None:
    """The first open task not yet had; locked ones count."""
    cursor.execute(FIRST_OPEN_SQL, values)
    return cursor.fetchone()


def _set_mark(cursor: Any, values: dict[str, Any]) -> tuple[int, int, int] | None:
    """Move the mark to the first open task not yet had, and return it, so that none is lost."""
    first = _first_open(cursor, values)
    rank, position, task_id = first or END
    cursor.execute(
        "UPDATE annotator_rater SET mark_priority = %s, mark_position = %s, mark_task_id = %s,"
        " claims_since_mark = 0 WHERE id = %s",
        [-rank, position, task_id, values["rater"]],
    )
    return first


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
    """A place of each task is free again, two where a task is named twice. Golds have none.

    Marks that lie beyond the first of them move back to it.

    All tasks are locked before any rater, and every rater of the project is locked before its
    mark is read: a claim under way may be about to move a mark past a place it cannot see yet.
    """
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        lock_tasks(cursor, task_ids)
        cursor.execute(
            f"""
            UPDATE annotator_task t
            SET free = t.free + back.places,
                position = {MOVED.format(fewest=IS_FEWEST_FIRST, places="+ back.places")}
            FROM (SELECT id, count(*) AS places FROM unnest(%(tasks)s::bigint[]) AS id
                  GROUP BY id) back
            WHERE t.id = back.id AND NOT t.is_gold
            RETURNING t.priority * -1, t.position, t.id
            """,
            {"tasks": task_ids},
        )
        back = cursor.fetchall()
        if not back:
            return
        rank, position, task_id = min(back)
        lock_raters(project_id)
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


def take_place(*, task_id: int) -> bool:
    """Take a free place of a task for a verdict that came after its lease; False when none.

    A gold has no places to run out of: whoever comes late to one comes in time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE annotator_task t
            SET free = CASE WHEN t.is_gold THEN t.free ELSE t.free - 1 END,
                position = CASE WHEN t.is_gold THEN t.position
                           ELSE {MOVED.format(fewest=IS_FEWEST_FIRST, places="- 1")} END
            WHERE t.id = %(task)s AND (t.free > 0 OR t.is_gold)
            """,
            {"task": task_id},
        )
        return cursor.rowcount == 1
