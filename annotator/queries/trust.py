"""What a judge said beside what is known to be right: what its trust is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from annotator.models import Acceptance, AcceptRule, Battery, Judge
from annotator.queries.columns import read_columns

UNKNOWN: Final = 9  # nobody has said what is right

# What is right: the known answer, else a reviewer's decision, else what most people say; 0 where
# they tie or disagree. Votes of people and imported labels; never those of judges. Golds are left
# out: they were chosen for being plain, and a judge does better on them than on the rest.
CASES: Final = """
    WITH people AS (
        SELECT j.task_id, count(*) FILTER (WHERE j.ranks[1] < j.ranks[2]) AS a,
               count(*) FILTER (WHERE j.ranks[1] > j.ranks[2]) AS b,
               count(*) FILTER (WHERE j.ranks[1] = j.ranks[2]) AS tie
        FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
        WHERE j.project_id = %(project)s AND j.is_current AND j.kind IN ('vote', 'imported')
          AND r.kind <> 'judge' AND NOT r.is_excluded
        GROUP BY j.task_id
    ), decided AS (
        SELECT task_id, ranks FROM annotator_judgment
        WHERE project_id = %(project)s AND is_current AND kind = 'adjudication'
    )
    SELECT t.id AS task, t.prompt_id AS prompt, coalesce(o.confidence, -1) AS confidence,
           sign(v.ranks[2] - v.ranks[1]) AS says,
           CASE WHEN jsonb_typeof(t.gold -> 'ranks' -> 1) = 'number'
                THEN sign((t.gold -> 'ranks' ->> 1)::float8 - (t.gold -> 'ranks' ->> 0)::float8)
                WHEN d.task_id IS NOT NULL THEN sign(d.ranks[2] - d.ranks[1])
                WHEN p.task_id IS NULL THEN 9
                WHEN p.a > p.b AND p.a > p.tie THEN 1
                WHEN p.b > p.a AND p.b > p.tie THEN -1
                ELSE 0 END AS truth,
           CASE WHEN c.id IS NULL THEN 0 WHEN c.is_audit THEN 2 ELSE 1 END AS accepted,
           (t.judged = 0 AND t.gold IS NULL AND NOT t.is_settled AND p.task_id IS NULL)::int
               AS is_open,
           t.free AS free
    FROM annotator_judgeoutcome o
    JOIN annotator_judgment v ON v.id = o.judgment_id AND v.is_current
    JOIN annotator_task t ON t.id = o.task_id AND t.kind = 'pairwise' AND NOT t.is_gold
    LEFT JOIN people p ON p.task_id = t.id
    LEFT JOIN decided d ON d.task_id = t.id
    LEFT JOIN annotator_acceptance c ON c.task_id = t.id AND c.revoked_at IS NULL {mine}
    WHERE o.judge_id = %(judge)s AND o.error = '' AND cardinality(v.ranks) = 2
    ORDER BY t.id
"""
CASE_COLUMNS: Final = {
    "task": "bigint",
    "prompt": "bigint",
    "confidence": "double precision",
    "says": "smallint",
    "truth": "smallint",
    "accepted": "smallint",
    "is_open": "smallint",
    "free": "smallint",
}
NOT_ACCEPTED, ACCEPTED, AUDITED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Cases:
    """Every pair a judge has judged, (m,) each, by rising task.

    ``says`` 1 the first is better, -1 the second, 0 a tie; ``truth`` the same, or UNKNOWN.
    ``confidence`` as the judge gave it, -1 where it has none.
    """

    tasks: NDArray[np.int64]
    prompts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    says: NDArray[np.int16]
    truth: NDArray[np.int16]
    accepted: NDArray[np.int16]
    is_open: NDArray[np.bool_]  # nobody has judged it, nobody knows
    free: NDArray[np.int16]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return self.truth != UNKNOWN

    @property
    def is_decided(self) -> NDArray[np.bool_]:
        """The judge took a side and says how sure it is: others are never accepted."""
        return (self.says != 0) & (self.confidence >= 0) & np.isfinite(self.confidence)

    @property
    def is_wrong(self) -> NDArray[np.bool_]:
        """Where the truth is known. A side taken where people see none is wrong."""
        return self.says != self.truth


def cases(judge: Judge, *, raw: psycopg.Connection, own: bool = False) -> Cases:
    """What a judge said of pairs. ``own``: accepted by this judge only, not by any."""
    sql = CASES.format(mine="AND c.judge_id = %(judge)s" if own else "")
    values = {"project": judge.project_id, "judge": judge.pk}
    rows = read_columns(raw, sql, values, CASE_COLUMNS)
    return Cases(
        tasks=rows["task"],
        prompts=rows["prompt"],
        confidence=rows["confidence"],
        says=rows["says"],
        truth=rows["truth"],
        accepted=rows["accepted"],
        is_open=rows["is_open"] == 1,
        free=rows["free"],
    )


SAVED: Final = """
    SELECT count(*), count(*) FILTER (WHERE c.is_audit),
           coalesce(sum(greatest(0, c.overlap_before - t.overlap))
                    FILTER (WHERE NOT c.is_audit), 0)
    FROM annotator_acceptance c JOIN annotator_task t ON t.id = c.task_id
    WHERE c.judge_id = %s AND c.revoked_at IS NULL
"""


@dataclass(frozen=True)
class Saved:
    """Acceptances of a judge in force. ``places``: judgments that people need not give."""

    accepted: int
    audited: int
    places: int


def saved(judge: Judge) -> Saved:
    with connection.cursor() as cursor:
        cursor.execute(SAVED, [judge.pk])
        return Saved(*(int(one) for one in cursor.fetchone()))


def latest_battery(judge: Judge) -> Battery | None:
    return Battery.objects.filter(judge=judge).order_by("-created_at", "-pk").first()


def rule_of(judge: Judge) -> AcceptRule | None:
    return AcceptRule.objects.filter(judge=judge).first()


def acceptances(judge: Judge, **where: Any) -> Any:
    """Acceptances in force, newest first."""
    return Acceptance.objects.filter(judge=judge, revoked_at=None, **where).order_by("-pk")
