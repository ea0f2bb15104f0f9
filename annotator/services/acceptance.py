"""Accepting a judge's votes in place of people's, and taking that back.

What an acceptance is
    The judge's edges count (``Preference.is_held`` is false) and the task has no more places than
    people hold or have filled: the others are spared, and ``Acceptance.overlap_before`` says how
    many it had. An audited one keeps its places.

A person's word comes first
    As soon as a person has judged the task all the same (a lease was out, it is audited, the owner
    asked for more), their vote counts and the judge's is held again; it counts once more when that
    vote is withdrawn. ``follow`` keeps it so. A reviewer's decision overrules both.

Never accepted: tasks whose answer is known, control tasks first, settled ones, those that a person
or a label from outside has judged, ties, and what another judge was accepted on: the first one stays.

Every chunk is a transaction of its own and may be done again. Locks are taken in the order rule,
then as ``services.queue`` has it; whether the rule is still on is read under its lock, so that
nothing is accepted once ``turn_off`` has returned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from django.db import connection, transaction

from annotator.errors import Conflict
from annotator.models import AcceptRule, AuditEvent, Judge, Run
from annotator.queries import figures
from annotator.services import queue, runs, trust
from annotator.services.queue_marks import lock_tasks

CHUNK: Final = 1_000  # tasks of one transaction
DONE: Final = {trust.ACCEPT: "trust.accepted", trust.REVOKE: "trust.revoked"}  # for the audit
Between = Callable[[int], None]

# Votes of this judge that nobody has judged beside it, by rising task.
CANDIDATES: Final = """
    SELECT t.id FROM annotator_judgeoutcome o
    JOIN annotator_judgment v ON v.id = o.judgment_id AND v.is_current
    JOIN annotator_task t ON t.id = o.task_id
    WHERE o.judge_id = %(judge)s AND o.task_id > %(after)s AND o.error = ''
      AND o.confidence >= %(threshold)s AND {fit}
    ORDER BY o.task_id LIMIT %(size)s
"""
FIT: Final = """
    t.kind = 'pairwise' AND t.gold IS NULL AND NOT t.is_gold AND NOT t.is_settled
    AND cardinality(v.ranks) = 2 AND v.ranks[1] <> v.ranks[2]
    AND NOT EXISTS (SELECT FROM annotator_acceptance c
                    WHERE c.task_id = t.id AND c.revoked_at IS NULL)
    AND NOT EXISTS (SELECT FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
                    WHERE j.task_id = t.id AND j.is_current AND r.kind <> 'judge')
"""
# Asked again now that the tasks are locked: a person may have been quicker.
LOCKED: Final = f"""
    SELECT t.id, o.judgment_id, o.confidence FROM annotator_task t
    JOIN annotator_judgeoutcome o ON o.task_id = t.id AND o.judge_id = %(judge)s AND o.error = ''
    JOIN annotator_judgment v ON v.id = o.judgment_id AND v.is_current
    WHERE t.id = ANY(%(tasks)s) AND o.confidence >= %(threshold)s AND {FIT}
"""
ACCEPT: Final = """
    INSERT INTO annotator_acceptance
        (project_id, task_id, judge_id, judgment_id, run_id, confidence, is_audit,
         overlap_before, accepted_at)
    SELECT t.project_id, t.id, %(judge)s, x.judgment, %(run)s, x.confidence, x.is_audit,
           t.overlap, clock_timestamp()
    FROM unnest(%(tasks)s::bigint[], %(judgments)s::bigint[], %(confidences)s::float8[],
                %(audits)s::bool[]) AS x (task, judgment, confidence, is_audit)
    JOIN annotator_task t ON t.id = x.task
"""
SPARE: Final = """
    WITH spared AS (
        SELECT id, free FROM annotator_task WHERE id = ANY(%s) AND free > 0
    ), done AS (
        UPDATE annotator_task t SET overlap = t.overlap - t.free, free = 0
        FROM spared WHERE t.id = spared.id
    )
    SELECT coalesce(sum(free), 0) FROM spared
"""
# A vote counts while it is accepted and nobody else's counts: whose votes are left out do not.
FOLLOW: Final = """
    UPDATE annotator_preference p SET is_held = x.held
    FROM (
        SELECT c.judgment_id, c.revoked_at IS NOT NULL OR EXISTS (
                   SELECT FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
                   WHERE j.task_id = c.task_id AND j.is_current AND j.kind IN ('vote', 'imported')
                     AND r.kind <> 'judge' AND NOT r.is_excluded) AS held
        FROM annotator_acceptance c WHERE {which}
    ) x
    WHERE p.judgment_id = x.judgment_id AND p.is_held <> x.held
"""
IN_FORCE: Final = """
    SELECT c.task_id FROM annotator_acceptance c {below}
    WHERE c.judge_id = %(judge)s AND c.revoked_at IS NULL AND c.task_id > %(after)s
    ORDER BY c.task_id LIMIT %(size)s
"""
# Those that a threshold that has risen would not accept any more.
BELOW: Final = """
    JOIN annotator_judgeoutcome o ON o.task_id = c.task_id AND o.judge_id = c.judge_id
                                  AND o.confidence < %(threshold)s
"""
REVOKE: Final = """
    WITH back AS (
        UPDATE annotator_acceptance SET revoked_at = clock_timestamp()
        WHERE judge_id = %(judge)s AND task_id = ANY(%(tasks)s) AND revoked_at IS NULL
        RETURNING id, task_id, overlap_before
    ), places AS (
        -- an owner may have asked for more meanwhile: these are not given twice
        UPDATE annotator_task t
        SET free = CASE WHEN t.is_gold THEN t.free
                        ELSE t.free + greatest(0, b.overlap_before - t.overlap) END,
            overlap = greatest(t.overlap, b.overlap_before)
        FROM back b WHERE t.id = b.task_id
    )
    SELECT id FROM back
"""


@dataclass
class Applied:
    """What going through a judge's votes came to. ``places``: judgments spared."""

    accepted: int = 0
    audited: int = 0
    places: int = 0
    revoked: int = 0


def is_drawn(*, judge_id: int, task_id: int, share: float) -> bool:
    """Whether an accepted task goes to people all the same: by hash, so the same every time."""
    drawn = sha256(f"touchstone audit {judge_id} {task_id}".encode()).digest()
    return int.from_bytes(drawn[:8]) < share * 2**64


def apply(
    *, judge: Judge, run: Run | None = None, between: Between = lambda looked: None
) -> Applied:
    """Accept what the judge's rule allows and nothing has accepted yet; nothing where it is off.

    What people said of the audited ones is looked at first: a rule that is broken turns itself
    off. ``between`` hears how many votes were looked at after each chunk; what it raises ends the
    work.
    """
    done, looked, after = Applied(), 0, 0
    if AcceptRule.objects.filter(judge=judge, is_on=True).exists():
        trust.enforce(judge)
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            rule = _rule(judge)
            if rule is None:
                break
            values = {
                "judge": judge.pk,
                "after": after,
                "threshold": rule.figures["rule"]["threshold"],
                "size": CHUNK,
            }
            cursor.execute(CANDIDATES.format(fit=FIT), values)
            ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                break
            lock_tasks(cursor, ids)
            cursor.execute(LOCKED, values | {"tasks": ids})
            _accept(cursor, judge, rule, run, cursor.fetchall(), done)
        looked, after = looked + len(ids), ids[-1]
        between(looked)
    if done.accepted:
        figures.forget(judge.project_id)
        figures.forget(judge.project_id, "readiness")
    return done


def _rule(judge: Judge) -> AcceptRule | None:
    """The rule if it is on; it stays so until this transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM annotator_acceptrule WHERE judge_id = %s AND is_on FOR SHARE", [judge.pk]
        )
        if cursor.fetchone() is None:
            return None
    return AcceptRule.objects.get(judge=judge)


def _accept(
    cursor: Any,
    judge: Judge,
    rule: AcceptRule,
    run: Run | None,
    votes: Sequence[tuple[int, int, float]],
    done: Applied,
) -> None:
    """Accept votes (task, judgment, confidence) on tasks that are locked."""
    if not votes:
        return
    tasks = [task for task, _, _ in votes]
    audits = [is_drawn(judge_id=judge.pk, task_id=task, share=rule.audit_share) for task in tasks]
    cursor.execute(
        ACCEPT,
        {
            "judge": judge.pk,
            "run": run.pk if run else None,
            "tasks": tasks,
            "judgments": [judgment for _, judgment, _ in votes],
            "confidences": [_right(rule, confidence) for _, _, confidence in votes],
            "audits": audits,
        },
    )
    spared = [task for task, is_audit in zip(tasks, audits, strict=True) if not is_audit]
    cursor.execute(SPARE, [spared])
    done.places += int(cursor.fetchone()[0])
    follow(tasks)
    done.accepted += len(tasks)
    done.audited += sum(audits)


def _right(rule: AcceptRule, confidence: float) -> float:
    """The judge's confidence put right: the share of known cases that were right at it."""
    knots = rule.figures["chance_right"]
    at = bisect_right([knot for knot, _ in knots], confidence) - 1
    return float(knots[max(at, 0)][1])


def follow(task_ids: list[int]) -> None:
    """Bring accepted votes on these tasks in line with what people have said of them since.

    In the caller's transaction, which holds the tasks' locks or has just written the votes.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            FOLLOW.format(which="c.revoked_at IS NULL AND c.task_id = ANY(%s)"), [task_ids]
        )


def follow_sql(tasks: str) -> str:
    """The same as a statement, for the tasks that another one selects."""
    return FOLLOW.format(which=f"c.revoked_at IS NULL AND c.task_id IN ({tasks})")


def follow_rater(rater_id: int) -> None:
    """The same for every task that a rater has judged: their votes count again, or no more."""
    which = """
        c.revoked_at IS NULL AND EXISTS (SELECT FROM annotator_judgment mine
            WHERE mine.task_id = c.task_id AND mine.rater_id = %s AND mine.is_current)
    """
    with connection.cursor() as cursor:
        cursor.execute(FOLLOW.format(which=which), [rater_id])


def take_back(
    *, judge: Judge, below: float | None = None, between: Between = lambda looked: None
) -> int:
    """Revoke what is accepted of a judge, or what is less sure than ``below``. Returns how many.

    Places come back as they were, also those of tasks that were judged or settled meanwhile.
    """
    count = after = 0
    sql = IN_FORCE.format(below="" if below is None else BELOW)
    values = {"judge": judge.pk, "threshold": below, "size": CHUNK}
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql, values | {"after": after})
            ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                break
            lock_tasks(cursor, ids)
            cursor.execute(REVOKE, {"judge": judge.pk, "tasks": ids})
            back = [row[0] for row in cursor.fetchall()]
            if back:
                cursor.execute(FOLLOW.format(which="c.id = ANY(%s)"), [back])
                queue.reset_marks(project_id=judge.project_id)
        count, after = count + len(back), ids[-1]
        between(count)
    if count:
        figures.forget(judge.project_id)
        figures.forget(judge.project_id, "readiness")
    return count


def perform(pen: runs.Work) -> dict[str, Any]:
    """The work of a run that ``trust.turn_on`` or ``trust.revoke`` started. Safe to do again."""
    judge = (
        Judge.objects.filter(project_id=pen.run.project_id, pk=pen.run.config.get("judge"))
        .select_related("project", "rater")
        .first()
    )
    if judge is None:
        raise Conflict("The judge is not there any more.")

    def between(looked: int) -> None:
        pen.progress(looked, unit="tasks")
        pen.check()

    if pen.run.config["action"] == trust.REVOKE:
        done = Applied(revoked=take_back(judge=judge, between=between))
    else:
        done = _go_through(pen, judge, between)
    AuditEvent.objects.create(
        project_id=judge.project_id,
        actor=pen.run.created_by,
        verb=DONE[pen.run.config["action"]],
        subject=f"judge {judge.pk}",
        data={"judge": str(judge), **asdict(done)},
    )
    return asdict(done)


def _go_through(pen: runs.Work, judge: Judge, between: Between) -> Applied:
    """Take back what a risen threshold does not allow, then accept what it does."""
    rule = AcceptRule.objects.filter(judge=judge, is_on=True).first()
    if rule is None:
        return Applied()
    revoked = take_back(judge=judge, below=rule.figures["rule"]["threshold"], between=between)
    done = apply(judge=judge, run=pen.run, between=between)
    done.revoked = revoked
    return done
