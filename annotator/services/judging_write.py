"""What a judge said, in the tables: several tasks per transaction, whoever else writes them too.

A group is locked as ``services.queue`` has it: tasks by id, then the rater. The outcome of a task
decides who writes the rest: it is inserted or takes the place of a failure, and where another run
of the same judge was first, nothing is written. So a worker may be killed at any point and what it
did done again, by itself or by two at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection, transaction

from annotator.errors import Invalid
from annotator.kinds.base import Kind, from_gold
from annotator.kinds.base import kind as find_kind
from annotator.kinds.checklist import checked
from annotator.kinds.rating import rated
from annotator.kinds.verdict import MAX_RATIONALE, Verdict
from annotator.models import Judge, JudgeOutcome, ProjectSettings
from annotator.queries import rubric_lists
from annotator.queries.rubric_lists import ListOf
from annotator.services import criterion_verdicts
from rubrics.judging.types import Decision, Opinion

MAX_DETAIL: Final = JudgeOutcome._meta.get_field("detail").max_length
MAX_ERROR: Final = JudgeOutcome._meta.get_field("error").max_length
BEST_WORST_STRENGTH: Final = 2  # as kinds.best_worst gives it

# SHARE waits for a reviewer who is settling the task, and holds up nobody who only reads it.
LOCK: Final = f"""
    SELECT id, prompt_id, response_ids, kind, is_gold, is_settled,
           CASE WHEN is_gold THEN gold::text END, {rubric_lists.LIST_OF}
    FROM annotator_task t WHERE id = ANY(%(tasks)s) AND project_id = %(project)s
    ORDER BY id FOR SHARE
"""
OUTCOMES: Final = """
    INSERT INTO annotator_judgeoutcome AS o
        (judge_id, task_id, run_id, confidence, probability, is_consistent, error, detail, at)
    SELECT %(judge)s, x.task, %(run)s, x.confidence, x.probability, x.is_consistent, x.error,
           x.detail, clock_timestamp()
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x
        (task bigint, confidence float8, probability float8, is_consistent bool, error text,
         detail text)
    ORDER BY x.task
    ON CONFLICT (judge_id, task_id) DO UPDATE
    SET run_id = excluded.run_id, confidence = excluded.confidence,
        probability = excluded.probability, is_consistent = excluded.is_consistent,
        error = excluded.error, detail = excluded.detail, at = excluded.at
    WHERE o.error <> ''
    RETURNING task_id
"""
JUDGMENTS: Final = """
    INSERT INTO annotator_judgment
        (project_id, task_id, rater_id, kind, revision, is_current, is_counted, ranks, strength,
         both_bad, ratings, rationale, reasons, confidence, submitted_at, is_hit)
    SELECT %(project)s, x.task, %(rater)s, 'vote', 1, true, false, x.ranks, x.strength,
           x.both_bad, x.ratings, x.rationale, '{}'::varchar[], x.confidence, clock_timestamp(), x.is_hit
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x
        (task bigint, ranks smallint[], strength smallint, both_bad bool, ratings jsonb,
         rationale text, confidence float8, is_hit bool)
    ORDER BY x.task
    ON CONFLICT (task_id, rater_id, revision) DO NOTHING
    RETURNING id, task_id
"""
LINK: Final = """
    UPDATE annotator_judgeoutcome o SET judgment_id = j.id
    FROM annotator_judgment j
    WHERE o.judge_id = %(judge)s AND o.task_id = ANY(%(tasks)s)
      AND j.task_id = o.task_id AND j.rater_id = %(rater)s AND j.is_current
"""
EDGES: Final = """
    INSERT INTO annotator_preference
        (project_id, judgment_id, task_id, prompt_id, rater_id, a_id, b_id, outcome, strength,
         both_bad, is_gold, is_overruled, is_held)
    SELECT %(project)s, x.judgment, x.task, x.prompt, %(rater)s, x.a, x.b, x.outcome, x.strength,
           x.both_bad, x.is_gold, x.is_overruled, true
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x
        (judgment bigint, task bigint, prompt bigint, a bigint, b bigint, outcome smallint,
         strength smallint, both_bad bool, is_gold bool, is_overruled bool)
"""
ANSWERS: Final = """
    INSERT INTO annotator_judgeanswer AS a
        (judge_id, task_id, run_id, shown_order, repeat, model, ranks, probability, scores, error,
         call_key)
    SELECT %(judge)s, x.task, %(run)s, x.shown_order, x.repeat, x.model, x.ranks, x.probability,
           x.scores, x.error, decode(x.call_key, 'hex')
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x
        (task bigint, shown_order smallint[], repeat smallint, model text, ranks smallint[],
         probability float8, scores jsonb, error text, call_key text)
    ORDER BY x.task
    ON CONFLICT (judge_id, task_id, model, repeat, shown_order) DO UPDATE
    SET run_id = excluded.run_id, ranks = excluded.ranks, probability = excluded.probability,
        scores = excluded.scores, error = excluded.error, call_key = excluded.call_key
    WHERE a.error <> ''
"""
RATER: Final = "UPDATE annotator_rater SET judged = judged + %(judged)s WHERE id = %(rater)s"

_kind = cache(find_kind)


class _Task(NamedTuple):
    id: int
    prompt_id: int
    response_ids: list[int]
    kind: str
    is_gold: bool
    is_settled: bool
    gold: str | None
    list_of: Any  # as rubric_lists.LIST_OF has it


@dataclass
class Written:
    """What a group came to. ``failed`` counts tasks by reason, ``errors`` single answers."""

    judged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Written) -> None:
        self.judged += other.judged
        self.failed += other.failed
        self.errors += other.errors


def write(
    *, judge: Judge, run_id: int, options: ProjectSettings, said: Sequence[tuple[int, Decision]]
) -> Written:
    """Record decisions by task, one transaction. Tasks that are gone are left out."""
    decisions = dict(said)
    with transaction.atomic(), connection.cursor() as cursor:
        group = _Group(cursor, judge, run_id)
        tasks = group.lock(sorted(decisions))
        made = [_made(task, decisions[task.id], options) for task in tasks]
        won = group.outcomes(made)
        made = [one for one in made if one.task.id in won]
        group.answers(made)
        judged = group.judgments([one for one in made if one.verdict])
    return Written(
        judged,
        Counter(one.decision.error for one in made if one.decision.error),
        Counter(said.error for one in made for said in one.decision.opinions if said.error),
    )


@dataclass(frozen=True)
class _Made:
    """A decision on a task that is there; ``verdict`` None where it failed, with its error."""

    task: _Task
    decision: Decision
    verdict: Verdict | None
    of_kind: Kind
    of: ListOf | None  # the list that the task asks
    options: ProjectSettings  # with that list


def _made(task: _Task, decision: Decision, options: ProjectSettings) -> _Made:
    of_kind, of = _kind(task.kind), rubric_lists.parse(task.list_of)
    options = rubric_lists.options_of(options, of)
    verdict = None
    if not decision.error:
        try:
            verdict = _verdict(task, decision, options)
            verdict.check(responses=len(task.response_ids))
        except Invalid as error:
            verdict = None
            decision = replace(decision, ranks=None, error="unfit", detail=error.message)
    return _Made(task, decision, verdict, of_kind, of, options)


def _verdict(task: _Task, decision: Decision, options: ProjectSettings) -> Verdict:
    """A decision as the desk would have made it. Raises Invalid for one without an order."""
    if task.kind == "rating" and decision.ratings:
        said = rated(decision.ratings)
    elif task.kind == "checklist" and decision.ratings:
        said = checked(decision.ratings, options=options)
    elif decision.ranks is None:
        raise Invalid("The judge gave neither an order nor a reason.")
    elif task.kind == "best-worst" and len(set(decision.ranks)) > 1:
        said = Verdict(ranks=list(decision.ranks), strength=BEST_WORST_STRENGTH)
    else:
        said = Verdict(ranks=list(decision.ranks), strength=decision.strength)
    return replace(
        said, both_bad=decision.both_bad, rationale=clean(decision.rationale)[:MAX_RATIONALE]
    )


def clean(text: str) -> str:
    """Text that PostgreSQL and JSON can hold, whatever a model wrote."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


class _Group:
    """The statements of one transaction."""

    def __init__(self, cursor: Any, judge: Judge, run_id: int) -> None:
        self._cursor = cursor
        self._values = {
            "project": judge.project_id,
            "judge": judge.pk,
            "rater": judge.rater_id,
            "run": run_id,
        }

    def _execute(self, sql: str, rows: Iterable[dict[str, Any]], **values: Any) -> None:
        self._cursor.execute(sql, self._values | values | {"rows": _json(list(rows))})

    def lock(self, ids: list[int]) -> list[_Task]:
        self._cursor.execute(LOCK, self._values | {"tasks": ids})
        return [_Task(*row) for row in self._cursor.fetchall()]

    def outcomes(self, made: list[_Made]) -> set[int]:
        """The tasks whose outcome is ours to write."""
        self._execute(OUTCOMES, map(_outcome, made))
        return {row[0] for row in self._cursor.fetchall()}

    def answers(self, made: list[_Made]) -> None:
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for one in made:
            for said in one.decision.opinions:
                key = (one.task.id, said.model, said.repeat, said.shown_order)
                if key not in rows or rows[key]["error"]:  # one row twice is more than one may say
                    rows[key] = _answer(one.task.id, said)
        if rows:
            self._execute(ANSWERS, rows.values())

    def judgments(self, made: list[_Made]) -> int:
        """Verdicts, their edges, the rater's count; returns how many are new."""
        if not made:
            return 0
        self._execute(JUDGMENTS, map(_judgment, made))
        fresh = {task: pk for pk, task in self._cursor.fetchall()}
        self._execute(LINK, [], tasks=[one.task.id for one in made])
        self._execute(
            EDGES,
            (
                edge
                for one in made
                if one.task.id in fresh
                for edge in _edges(one, fresh[one.task.id])
            ),
        )
        self._criteria([one for one in made if one.task.id in fresh])
        self._cursor.execute(RATER, self._values | {"judged": len(fresh)})
        return len(made)

    def _criteria(self, made: list[_Made]) -> None:
        """What was said of a rubric's criteria, as verdicts on them."""
        said = [
            criterion_verdicts.Said(one.of, one.task.response_ids, one.verdict.ratings or {})
            for one in made
            if one.of is not None and one.verdict is not None
        ]
        if said:
            self._cursor.execute(
                criterion_verdicts.WRITE,
                criterion_verdicts.columns(said, rater_id=self._values["rater"]),
            )


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()


def _outcome(one: _Made) -> dict[str, Any]:
    decision = one.decision
    return {
        "task": one.task.id,
        "confidence": decision.confidence,
        "probability": decision.probability,
        "is_consistent": decision.is_consistent,
        "error": decision.error[:MAX_ERROR],
        "detail": clean(decision.detail)[:MAX_DETAIL],
    }


def _answer(task_id: int, said: Opinion) -> dict[str, Any]:
    return {
        "task": task_id,
        "shown_order": said.shown_order,
        "repeat": said.repeat,
        "model": clean(said.model),
        "ranks": said.ranks,
        "probability": said.probability,
        "scores": said.scores,
        "error": said.error[:MAX_ERROR],
        "call_key": said.call_key.hex() if said.call_key else None,
    }


def _judgment(one: _Made) -> dict[str, Any]:
    verdict = one.verdict
    assert verdict is not None
    gold = orjson.loads(one.task.gold) if one.task.gold else None
    return {
        "task": one.task.id,
        "ranks": verdict.ranks,
        "strength": verdict.strength,
        "both_bad": verdict.both_bad,
        "ratings": verdict.ratings,
        "rationale": verdict.rationale,
        "confidence": one.decision.confidence,
        "is_hit": None if gold is None else one.of_kind.matches(verdict, from_gold(gold)),
    }


def _edges(one: _Made, judgment: int) -> Iterable[dict[str, Any]]:
    verdict, task = one.verdict, one.task
    assert verdict is not None
    for edge in one.of_kind.edges(verdict, options=one.options):
        yield {
            "judgment": judgment,
            "task": task.id,
            "prompt": task.prompt_id,
            "a": task.response_ids[edge.a],
            "b": task.response_ids[edge.b],
            "outcome": edge.outcome,
            "strength": edge.strength,
            "both_bad": verdict.both_bad,
            "is_gold": task.is_gold,
            "is_overruled": task.is_settled,
        }
