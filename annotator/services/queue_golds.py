"""Tasks with a known answer: golds mixed in among the others, and the set that qualifies.

Neither has places: everybody gets each of them once, and ``Task.free`` stays 0. A gold looks
like any task because it is one: the same assignment, page and addresses; a lease that ran out
brings it back as it brings back any other task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from annotator.services.queue_gate import Gate, Withheld

Row = tuple[Any, ...]

# Writes the lease; {picked} is a query of id and size.
LEASE_SQL: Final = """
    INSERT INTO annotator_assignment AS a
        (project_id, task_id, rater_id, state, seed, shown_order, leased_at, expires_at,
         first_paint_at, skip_reason)
    SELECT %(project)s, taken.id, %(rater)s, 'leased', %(seed)s,
           (SELECT array_agg(place ORDER BY md5(%(seed)s::text || ':' || place))
            FROM generate_series(0, taken.size - 1) AS place),
           now(), now() + make_interval(mins => %(minutes)s), now(), ''
    FROM {picked} taken
    ON CONFLICT (task_id, rater_id) DO UPDATE  -- had it before and let it expire: as it was
        SET state = 'leased', leased_at = now(), closed_at = NULL,
            expires_at = excluded.expires_at
    RETURNING a.id, a.task_id, a.shown_order, a.expires_at
"""

NOT_HAD: Final = """
    COALESCE((SELECT a.state <> 'expired' FROM annotator_assignment a
              WHERE a.task_id = t.id AND a.rater_id = %(rater)s), false) = false
"""

# The weakest lock there is: only who makes it an ordinary task is in its way, and counts the
# leases that were there before (services.tasks).
PICK_SQL: Final = f"""
    WITH picked AS (
        SELECT t.id, cardinality(t.response_ids) AS size FROM annotator_task t
        WHERE t.project_id = %(project)s AND t.is_gold
          AND t.is_qualification = %(qualification)s
          AND t.group_id = ANY(%(groups)s) AND {{only}} AND {NOT_HAD}
        ORDER BY t.position, t.id LIMIT 1 FOR KEY SHARE OF t SKIP LOCKED
    )
    {LEASE_SQL.format(picked="picked")}
"""
AGAIN_SQL: Final = PICK_SQL.format(only="t.id = %(again)s")
FROM_SQL: Final = PICK_SQL.format(only="t.position >= %(start)s")
BEFORE_SQL: Final = PICK_SQL.format(only="t.position < %(start)s")
QUALIFY_SQL: Final = PICK_SQL.format(only="true")

# A place drawn between the first gold and the last: from there on, and then round.
START_SQL: Final = """
    SELECT min(t.position)
           + floor((max(t.position)::numeric - min(t.position) + 1) * %(draw)s::numeric)
    FROM annotator_task t
    WHERE t.project_id = %(project)s AND t.is_gold AND NOT t.is_qualification
"""


def is_due(gate: Gate, *, rate: float, draw: float) -> bool:
    """Whether this claim is a gold's turn; ``draw`` is uniform in [0, 1)."""
    return gate.gold_again is not None or draw < rate


def lease_gold(cursor: Any, values: dict[str, Any], gate: Gate, *, draw: float) -> Row | None:
    """A gold this rater has not had, leased; None when there is none.

    The caller has seen that an ordinary task is left. ``draw``, uniform in [0, 1), says where
    to begin: each rater meets the golds in an order of their own.
    """
    values = values | {"qualification": False, "groups": gate.groups}
    if gate.gold_again is not None:
        cursor.execute(AGAIN_SQL, values | {"again": gate.gold_again})
        if row := cursor.fetchone():
            return row
    cursor.execute(START_SQL, values | {"draw": f"{draw:.12f}"})
    start = cursor.fetchone()[0]
    if start is None:
        return None
    for statement in (FROM_SQL, BEFORE_SQL):
        cursor.execute(statement, values | {"start": int(start)})
        if row := cursor.fetchone():
            return row
    return None


def lease_qualification(cursor: Any, values: dict[str, Any], gate: Gate) -> Row | None:
    """The next task of the qualification set, in its order; None after the last."""
    cursor.execute(QUALIFY_SQL, values | {"qualification": True, "groups": gate.groups})
    return cursor.fetchone()


@dataclass(frozen=True)
class Result:
    """How a rater did on the qualification set: a skipped task is not right."""

    right: int
    size: int
    done: int
    waiting: int | None = None  # one that is not done

    def passes(self, share: float) -> bool:
        return self.right >= share * self.size - 1e-9


RESULT_SQL: Final = """
    SELECT count(*) FILTER (WHERE j.is_hit), count(*), count(a.id),
           min(t.id) FILTER (WHERE a.id IS NULL)
    FROM annotator_task t
    LEFT JOIN annotator_assignment a ON a.task_id = t.id AND a.rater_id = %(rater)s
         AND a.state IN ('submitted', 'skipped')
    LEFT JOIN annotator_judgment j ON j.task_id = t.id AND j.rater_id = %(rater)s
         AND j.is_current AND j.kind = 'vote'
    WHERE t.project_id = %(project)s AND t.is_gold AND t.is_qualification
      AND t.group_id = ANY(%(groups)s)
"""


def result(cursor: Any, *, project_id: int, rater_id: int, groups: list[int]) -> Result:
    """What the rater got right of the set that is theirs."""
    cursor.execute(RESULT_SQL, {"project": project_id, "rater": rater_id, "groups": groups})
    return Result(*cursor.fetchone())


def decide(cursor: Any, values: dict[str, Any], found: Result, *, share: float) -> Withheld | None:
    """After the last task of the set: qualified, which lets the claim go on, or not."""
    column = "qualified_at" if found.passes(share) else "disqualified_at"
    cursor.execute(f"UPDATE annotator_rater SET {column} = now() WHERE id = %s", [values["rater"]])
    return None if found.passes(share) else not_qualified(found, share=share)


def not_qualified(found: Result, *, share: float) -> Withheld:
    return Withheld(
        "not_qualified",
        "You have not qualified",
        f"You got {found.right:,} of {found.size:,} right in the qualification of this project,"
        f" and {100 * share:g} % are asked for. Its owner can allow you another try.",
    )
