"""What reviewers should look at: items opened and closed from what the votes add up to.

An item is one task and one reason, open until somebody decides or it is no longer true. Deciding
is ``services.adjudication``; here is only the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from annotator.models import ReviewItem, Task, User
from annotator.queries.review import REASONS

__all__ = ["REASONS", "close", "flag", "refresh", "reopen"]

# How an item was closed by a person.
DECIDED: Final = "decided"
MADE_GOLD: Final = "gold"
SENT_BACK: Final = "sent-back"
DISMISSED: Final = "dismissed"
FINAL: Final = (DECIDED, MADE_GOLD, SENT_BACK, DISMISSED)
UNDONE: Final = "undone"  # a decision that was taken back: the item may open again
# Opened and closed by ``refresh``; a flag stays until a person closes it.
COMPUTED: Final = ("failed-gold", "disagreement", "low-posterior")

# Of all pairs of raters on a task, fewer than this say the same: 2 to 1 and 2 to 2 are below, 3
# to 1 is not.
AGREEMENT_BELOW: Final = 0.5
POSTERIOR_BELOW: Final = 0.7
# A gold is looked at when so many raters miss it and they are at least this share of all.
GOLD_MISSES: Final = 2
GOLD_MISSED_SHARE: Final = 0.5
# A rater who missed so many golds, and at least this share of those they had.
RATER_MISSES: Final = 3
RATER_MISSED_SHARE: Final = 0.5

# Severities: doubt is between 0 and 1, a gold above that, what a person asked for above all.
GOLD_SEVERITY: Final = 1.0
FLAG_SEVERITY: Final = 3.0

# Every statement below goes through the project once, in the database.
WANTED: Final = """
    WITH hits AS (
        SELECT j.task_id, j.rater_id, j.is_hit, j.submitted_at
        FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
        WHERE j.project_id = %(project)s AND j.is_current AND j.kind = 'vote'
          AND j.is_hit IS NOT NULL AND NOT r.is_excluded
          AND r.kind <> 'judge'  -- what a judge misses is in its report
    ), missed_golds AS (
        SELECT task_id, count(*) FILTER (WHERE NOT is_hit) AS misses, count(*) AS votes
        FROM hits GROUP BY task_id
        HAVING count(*) FILTER (WHERE NOT is_hit) >= %(gold_misses)s
           AND avg((NOT is_hit)::int) >= %(gold_share)s
    ), missing_raters AS (  -- the gold they missed last stands for all they missed
        SELECT (array_agg(task_id ORDER BY submitted_at DESC)
                FILTER (WHERE NOT is_hit))[1] AS task_id, rater_id,
               count(*) FILTER (WHERE NOT is_hit) AS misses, count(*) AS votes
        FROM hits GROUP BY rater_id
        HAVING count(*) FILTER (WHERE NOT is_hit) >= %(rater_misses)s
           AND avg((NOT is_hit)::int) >= %(rater_share)s
    ), golds AS (
        SELECT task_id, max(misses) AS worst, jsonb_strip_nulls(jsonb_build_object(
                   'misses', max(misses) FILTER (WHERE rater_id IS NULL),
                   'votes', max(votes) FILTER (WHERE rater_id IS NULL),
                   'raters', jsonb_agg(jsonb_build_array(rater_id, misses, votes)
                                       ORDER BY misses DESC, rater_id)
                             FILTER (WHERE rater_id IS NOT NULL))) AS detail
        FROM (SELECT task_id, NULL::bigint AS rater_id, misses, votes FROM missed_golds
              UNION ALL SELECT task_id, rater_id, misses, votes FROM missing_raters) both_ways
        GROUP BY task_id
    ), doubts AS (
        SELECT c.task_id, c.agreement, c.posterior, c.votes,
               c.votes >= 2 AND c.agreement < %(agreement)s AS is_split
        FROM annotator_consensus c JOIN annotator_task t ON t.id = c.task_id
        WHERE c.project_id = %(project)s AND NOT t.is_settled AND NOT t.is_gold
          -- votes that are still to come may settle it by themselves
          AND (t.judged = 0 OR t.judged >= t.overlap)
          -- a judge's vote alone was accepted on other evidence than its neighbours' votes
          AND (t.judged > 0 OR NOT EXISTS (
            SELECT FROM annotator_acceptance a
            WHERE a.task_id = c.task_id AND a.revoked_at IS NULL))
          AND (c.votes >= 2 AND c.agreement < %(agreement)s OR c.posterior < %(posterior)s)
    ), wanted (task_id, reason, severity, detail) AS (
        SELECT task_id, 'failed-gold', %(gold)s + 1 - 1.0 / (1 + worst), detail FROM golds
        UNION ALL
        SELECT task_id, CASE WHEN is_split THEN 'disagreement' ELSE 'low-posterior' END,
               CASE WHEN is_split THEN 1 - agreement ELSE 1 - posterior END,
               jsonb_build_object('agreement', agreement, 'posterior', posterior, 'votes', votes)
        FROM doubts
    )
"""
# What was decided or set aside stays so until somebody says something new about the task.
OPEN: Final = f"""
    {WANTED}
    INSERT INTO annotator_reviewitem
        (project_id, task_id, reason, severity, detail, created_at, decision)
    SELECT %(project)s, w.task_id, w.reason, w.severity, w.detail, clock_timestamp(), ''
    FROM wanted w
    WHERE NOT EXISTS (
        SELECT FROM annotator_reviewitem old
        WHERE old.task_id = w.task_id AND old.project_id = %(project)s
          AND old.reason = w.reason AND old.decision = ANY(%(final)s)
          AND NOT EXISTS (
            SELECT FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
            WHERE j.task_id = w.task_id AND j.is_current AND j.submitted_at > old.closed_at
              AND r.kind <> 'judge'))
    ON CONFLICT (task_id, reason) WHERE closed_at IS NULL
    DO UPDATE SET severity = excluded.severity, detail = excluded.detail
    WHERE (annotator_reviewitem.severity, annotator_reviewitem.detail)
          IS DISTINCT FROM (excluded.severity, excluded.detail)
    RETURNING xmax = 0
"""
CLOSE: Final = f"""
    {WANTED}
    UPDATE annotator_reviewitem i SET closed_at = clock_timestamp(), decision = 'resolved'
    WHERE i.project_id = %(project)s AND i.closed_at IS NULL AND i.reason = ANY(%(computed)s)
      AND NOT EXISTS (SELECT FROM wanted w WHERE w.task_id = i.task_id AND w.reason = i.reason)
"""
# An import can bring votes on tasks that are settled: they are overruled like the others.
OVERRULE: Final = """
    UPDATE annotator_preference p SET is_overruled = true
    FROM annotator_judgment d JOIN annotator_task t ON t.id = d.task_id
    WHERE d.project_id = %(project)s AND d.kind = 'adjudication' AND d.is_current
      AND p.project_id = %(project)s AND p.prompt_id = t.prompt_id AND p.task_id = t.id
      AND p.judgment_id <> d.id AND NOT p.is_overruled
"""


@dataclass(frozen=True)
class Refreshed:
    opened: int
    closed: int


@transaction.atomic
def refresh(project_id: int) -> Refreshed:
    """Open and close the items that follow from consensus and golds; running it twice is once.

    Reads Consensus as the last quality run left it. One refresh of a project at a time.
    """
    values = {
        "project": project_id,
        "agreement": AGREEMENT_BELOW,
        "posterior": POSTERIOR_BELOW,
        "gold_misses": GOLD_MISSES,
        "gold_share": GOLD_MISSED_SHARE,
        "rater_misses": RATER_MISSES,
        "rater_share": RATER_MISSED_SHARE,
        "gold": GOLD_SEVERITY,
        "computed": list(COMPUTED),
        "final": list(FINAL),
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext('touchstone review'), %s)", [project_id]
        )
        cursor.execute(OVERRULE, values)
        cursor.execute(f"WITH opened (is_new) AS ({OPEN}) SELECT count(*) FROM opened WHERE is_new",
                       values)  # fmt: skip
        opened = cursor.fetchone()[0]
        cursor.execute(CLOSE, values)
        return Refreshed(opened=opened, closed=cursor.rowcount)


def flag(*, task: Task) -> None:
    """Open a task's flagged item at once; each further flag makes it more urgent."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO annotator_reviewitem
                (project_id, task_id, reason, severity, detail, created_at, decision)
            VALUES (%s, %s, 'flagged', %s, '{"flags": 1}', clock_timestamp(), '')
            ON CONFLICT (task_id, reason) WHERE closed_at IS NULL DO UPDATE
            SET severity = annotator_reviewitem.severity + 1,
                detail = jsonb_build_object(
                    'flags', (annotator_reviewitem.detail ->> 'flags')::int + 1)
            """,
            [task.project_id, task.pk, FLAG_SEVERITY],
        )


def close(*, task: Task, by: User, decision: str) -> int:
    """Close whatever is open about a task. Returns how many items that were."""
    return ReviewItem.objects.filter(task=task, closed_at__isnull=True).update(
        closed_at=timezone.now(), decided_by=by, decision=decision
    )


def reopen(*, task: Task) -> None:
    """The decision on a task is taken back: what it closed may open again."""
    ReviewItem.objects.filter(task=task, decision__in=[DECIDED, MADE_GOLD]).update(decision=UNDONE)
