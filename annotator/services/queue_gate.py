"""What decides whether a person gets a task now: limits, pauses, roles, groups, the mark.

Read in one statement after the rater's lock is held, so that two requests of one person see each
other's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.utils import timezone

from annotator.models import Role
from annotator.queries.access import RANK

# The first and the last place in hand-out order, as (priority * -1, position, id).
TOP: Final = (-(2**31), -(2**63), 0)
END: Final = (2**31 - 1, 2**63 - 1, 2**63 - 1)

# The sampler under which a task moves back by one round with every place that is taken.
FEWEST_FIRST: Final = "fewest-votes-first"


@dataclass(frozen=True)
class Withheld:
    """Why nothing is handed out: a key for programs, words for people."""

    key: str
    title: str
    text: str


ARCHIVED: Final = Withheld(
    "archived", "This project is put away", "It is archived and hands out no more tasks."
)
PROJECT_PAUSED: Final = Withheld(
    "project_paused",
    "The project is paused",
    "Its owner has paused it: nothing new is handed out for now. What you hold you can finish.",
)
PAUSED: Final = Withheld(
    "paused",
    "You are paused in this project",
    "Its owner has paused your work: nothing new is handed out to you for now.",
)
NOTHING_LEFT: Final = Withheld("nothing_left", "You are up to date", "")


@dataclass(frozen=True)
class Gate:
    """One rater at the moment of a claim."""

    mark: tuple[int, int, int]
    has_mark: bool
    claims: int  # since the mark was set
    overdue: bool  # leases of the project ran out and were not swept
    judged: int
    paused: bool
    quota: int | None
    daily_cap: int | None
    qualified: bool
    disqualified: bool
    project_paused: bool
    archived: bool
    sampler: str
    groups: list[int]
    role: str | None
    has_qualification: bool
    gold_again: int | None  # a gold whose lease ran out on this rater, the last that did
    held: tuple[int, int, list[int], datetime] | None

    @property
    def must_qualify(self) -> bool:
        """Owners and reviewers know the answers: they need not qualify."""
        exempt = self.role is not None and RANK[Role(self.role)] >= RANK[Role.REVIEWER]
        return self.has_qualification and not self.qualified and not exempt


# A lease lost in a crash only means that the task is handed out again: not worth a sync.
GATE_SQL: Final = """
    SELECT r.mark_priority, r.mark_position, r.mark_task_id, r.claims_since_mark,
           EXISTS (SELECT FROM annotator_assignment
                   WHERE project_id = r.project_id AND state = 'leased' AND expires_at <= now()),
           r.judged, r.paused_at IS NOT NULL, r.quota, r.daily_cap,
           r.qualified_at IS NOT NULL, r.disqualified_at IS NOT NULL,
           p.paused_at IS NOT NULL, p.archived_at IS NOT NULL, p.settings ->> 'sampler',
           ARRAY(SELECT g.group_id FROM annotator_group_raters g WHERE g.rater_id = r.id),
           (SELECT m.role FROM annotator_membership m
            WHERE m.project_id = r.project_id AND m.user_id = r.user_id),
           EXISTS (SELECT FROM annotator_task t
                   WHERE t.project_id = r.project_id AND t.is_gold AND t.is_qualification),
           (SELECT t.id FROM
                (SELECT a.task_id FROM annotator_assignment a
                 WHERE a.rater_id = r.id AND a.state = 'expired'
                 ORDER BY a.closed_at DESC NULLS LAST LIMIT 1) gone
            JOIN annotator_task t ON t.id = gone.task_id
            WHERE t.is_gold AND NOT t.is_qualification
              AND (t.group_id = 0 OR t.group_id IN
                   (SELECT g.group_id FROM annotator_group_raters g WHERE g.rater_id = r.id))),
           held.id, held.task_id, held.shown_order, held.expires_at,
           set_config('synchronous_commit', 'off', true)
    FROM annotator_rater r
    JOIN annotator_project p ON p.id = r.project_id
    LEFT JOIN LATERAL (
        SELECT id, task_id, shown_order, expires_at FROM annotator_assignment a
        WHERE a.rater_id = r.id AND a.state = 'leased' AND a.expires_at > now()
        ORDER BY leased_at DESC, id DESC LIMIT 1
    ) held ON true
    WHERE r.id = %s FOR NO KEY UPDATE OF r
"""


def read(cursor: Any, rater_id: int) -> Gate:
    """The rater's row is locked until the transaction ends; the caller holds its lock."""
    cursor.execute(GATE_SQL, [rater_id])
    (priority, position, task_id, claims, overdue, judged, paused, quota, cap, qualified,
     disqualified, project_paused, archived, sampler, groups, role, has_qualification,
     gold_again, held_id, held_task, shown, expires_at, _) = cursor.fetchone()  # fmt: skip
    return Gate(
        mark=TOP if priority is None else (-priority, position, task_id),
        has_mark=priority is not None,
        claims=claims,
        overdue=overdue,
        judged=judged,
        paused=paused,
        quota=quota,
        daily_cap=cap,
        qualified=qualified,
        disqualified=disqualified,
        project_paused=project_paused,
        archived=archived,
        sampler=sampler or "sequential",
        groups=[0, *groups],
        role=role,
        has_qualification=has_qualification,
        gold_again=gold_again,
        held=None if held_id is None else (held_id, held_task, shown, expires_at),
    )


def withheld(gate: Gate, *, rater_id: int, quota: int, daily_cap: int) -> Withheld | None:
    """Why this rater gets nothing new, whatever is left. Limits of the project; 0 is none."""
    if gate.project_paused:
        return PROJECT_PAUSED
    if gate.paused:
        return PAUSED
    quota = quota if gate.quota is None else gate.quota
    # Golds and qualification tasks are no work of the project: they use up no quota. Counting
    # them costs a walk over the rater's verdicts, so only those who are near the end pay for it.
    if quota and gate.judged >= quota and (done := _real_work(rater_id)) >= quota:
        return Withheld(
            "quota",
            "You have done your share",
            f"Your quota in this project is {quota:,}, and you have done {done:,}. Thank you.",
        )
    cap = daily_cap if gate.daily_cap is None else gate.daily_cap
    if cap and gate.judged >= cap and _real_work(rater_id, since=midnight()) >= cap:
        return Withheld(
            "daily_cap", "Done for today", f"You have done today’s {cap:,}. More tomorrow."
        )
    return None


def midnight() -> datetime:
    """When today began, for caps and for the bar that shows them."""
    return timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)


def _real_work(rater_id: int, since: datetime | None = None) -> int:
    """Verdicts in force on tasks that were no golds when they were given."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM annotator_judgment
            WHERE rater_id = %s AND is_current AND kind = 'vote' AND is_hit IS NULL
              AND (%s::timestamptz IS NULL OR submitted_at >= %s::timestamptz)
            """,
            [rater_id, since, since],
        )
        return int(cursor.fetchone()[0])
