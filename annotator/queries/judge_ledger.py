"""What a judge's verdicts took, and how those ended that it did not give."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg

from annotator.models import Judge
from annotator.queries.columns import Columns, read_columns

MODELS: Final = 20


class Spent(NamedTuple):
    """Calls of one model, from the ledger."""

    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    money: float
    retries: int


class Totals(NamedTuple):
    """Over everything a judge has done."""

    judgments: int
    tasks: int
    failed: int
    answers: int
    unreadable: int
    cached: int
    paid: int
    latency_median_ms: float | None
    latency_p95_ms: float | None


# A call belongs to a judge that a verdict came from it, whoever paid, or that paid for it: replies
# that could not be read and were asked for again are in the second part only. A union of ids: with
# an OR, keys that do not fit into work_mem would be searched from end to end for every call.
CALLS: Final = """
    SELECT c.* FROM annotator_llmcall c WHERE c.id IN (
        SELECT said.id FROM annotator_judgeanswer a
        JOIN annotator_llmcall said ON said.project_id = %(project)s AND said.key = a.call_key
        WHERE a.judge_id = %(judge)s
        UNION ALL
        SELECT paid.id FROM annotator_llmcall paid
        WHERE paid.project_id = %(project)s AND paid.run_id IN (
            SELECT id FROM annotator_run WHERE project_id = %(project)s
            AND kind = 'judge' AND config -> 'judge' = to_jsonb(%(judge)s::bigint)))
"""
SPENT_SQL: Final = f"""
    SELECT model, count(*), sum(tokens_in), sum(tokens_out), sum(cost),
           sum(greatest(attempts - 1, 0))
    FROM ({CALLS}) calls GROUP BY model ORDER BY sum(cost) DESC, count(*) DESC, model
    LIMIT {MODELS}
"""
LATENCY_SQL: Final = f"""
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms)
    FROM ({CALLS}) calls
"""
JUDGED_SQL: Final = """
    SELECT count(*), count(DISTINCT task_id) FROM annotator_judgment
    WHERE project_id = %(project)s AND rater_id = %(rater)s AND is_current
      AND kind <> 'adjudication'
"""
ANSWERS_SQL: Final = """
    SELECT count(*), count(*) FILTER (WHERE error IN ('unreadable', 'cut', 'unfit'))
    FROM annotator_judgeanswer WHERE judge_id = %(judge)s
"""
CACHED_SQL: Final = """
    SELECT count(*) FROM annotator_judgeanswer a
    JOIN annotator_llmcall c ON c.project_id = %(project)s AND c.key = a.call_key
    WHERE a.judge_id = %(judge)s AND c.run_id IS DISTINCT FROM a.run_id
"""
PAID_SQL: Final = f"""
    SELECT count(*) FROM ({CALLS}) calls WHERE run_id IN (
        SELECT id FROM annotator_run WHERE project_id = %(project)s
        AND kind = 'judge' AND config -> 'judge' = to_jsonb(%(judge)s::bigint))
"""
FAILURES_SQL: Final = """
    SELECT error, count(*) FROM annotator_judgeoutcome
    WHERE judge_id = %(judge)s AND error <> '' GROUP BY error ORDER BY count(*) DESC, error
"""
GOLDS_SQL: Final = """
    SELECT t.prompt_id, j.is_hit::int AS hit FROM annotator_judgment j JOIN annotator_task t ON t.id = j.task_id
    WHERE j.project_id = %(project)s AND j.rater_id = %(rater)s AND j.is_current
      AND j.kind <> 'adjudication' AND j.is_hit IS NOT NULL
"""


def _values(judge: Judge) -> dict[str, Any]:
    return {"project": judge.project_id, "judge": judge.pk, "rater": judge.rater_id}


def spent(raw: psycopg.Connection, judge: Judge) -> list[Spent]:
    """What its calls took, a row per model, the dearest first."""
    rows = raw.execute(SPENT_SQL, _values(judge)).fetchall()
    return [Spent(row[0], *(int(n) for n in row[1:4]), float(row[4]), int(row[5])) for row in rows]


def failures(raw: psycopg.Connection, judge: Judge) -> list[tuple[str, int]]:
    """(reason, tasks) of the tasks that ended without a verdict, the commonest first."""
    return [(error, int(n)) for error, n in raw.execute(FAILURES_SQL, _values(judge)).fetchall()]


def totals(raw: psycopg.Connection, judge: Judge) -> Totals:
    values = _values(judge)
    judgments, tasks = raw.execute(JUDGED_SQL, values).fetchone() or (0, 0)
    answers, unreadable = raw.execute(ANSWERS_SQL, values).fetchone() or (0, 0)
    (cached,) = raw.execute(CACHED_SQL, values).fetchone() or (0,)
    (paid,) = raw.execute(PAID_SQL, values).fetchone() or (0,)
    median, slow = raw.execute(LATENCY_SQL, values).fetchone() or (None, None)
    failed = sum(n for _, n in failures(raw, judge))
    return Totals(judgments, tasks, failed, answers, unreadable, cached, paid, median, slow)


def gold_hits(raw: psycopg.Connection, judge: Judge) -> Columns:
    """``hit`` 1 or 0 and ``prompt_id`` of every known answer the judge was asked about."""
    columns = {"prompt_id": "bigint", "hit": "smallint"}
    return read_columns(raw, GOLDS_SQL, _values(judge), columns)
