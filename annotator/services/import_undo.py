"""Taking back an import: what its rows added, as far as nobody has judged it since.

Locks in the order of everyone else: tasks, then (only those that are free) assignments, then
raters. Someone who is saving a verdict at this moment holds an assignment: that task is kept.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from annotator.errors import Conflict
from annotator.models import AuditEvent, Judge, JudgeOutcome, Rater, Run, RunState, User
from annotator.services import images

# Tasks of the run that someone else's work hangs on: a verdict from outside this run, a lease or
# a remark.
JUDGED: Final = """
    EXISTS (SELECT FROM annotator_judgment j
            WHERE j.task_id = t.id AND j.import_run_id IS DISTINCT FROM %(run)s)
    OR EXISTS (SELECT FROM annotator_assignment a
               WHERE a.task_id = t.id
                 AND (a.state = 'submitted' OR a.state = 'leased' AND a.expires_at > now()))
    OR EXISTS (SELECT FROM annotator_comment c WHERE c.task_id = t.id)
"""
FIND_TASKS: Final = """
    CREATE TEMPORARY TABLE undone (id bigint PRIMARY KEY) ON COMMIT DROP;
    WITH locked AS (
        SELECT id FROM annotator_task
        WHERE project_id = %(project)s AND import_run_id = %(run)s ORDER BY id FOR UPDATE
    )
    INSERT INTO undone SELECT id FROM locked
"""
KEEP_JUDGED: Final = f"DELETE FROM undone t WHERE {JUDGED}"
KEEP_BUSY: Final = """
    WITH free AS (
        SELECT a.id FROM annotator_assignment a JOIN undone ON undone.id = a.task_id
        FOR UPDATE OF a SKIP LOCKED
    )
    DELETE FROM undone USING annotator_assignment a
    WHERE a.task_id = undone.id AND a.id NOT IN (SELECT id FROM free)
"""
DROP_VOTES: Final = """
    WITH gone AS (
        SELECT id FROM annotator_judgment
        WHERE project_id = %(project)s AND import_run_id = %(run)s
    )
    DELETE FROM annotator_preference p USING gone WHERE p.judgment_id = gone.id
"""
DROP_JUDGMENTS: Final = """
    WITH gone AS (
        DELETE FROM annotator_judgment
        WHERE project_id = %(project)s AND import_run_id = %(run)s RETURNING rater_id
    ), counted AS (
        UPDATE annotator_rater r SET judged = r.judged - c.votes
        FROM (SELECT rater_id, count(*) AS votes FROM gone GROUP BY 1) c
        WHERE r.id = c.rater_id
    )
    SELECT count(*) FROM gone
"""
# What judges of files said goes like their votes; with its task goes what any judge said of it.
DROP_SAID: Final = tuple(
    f"""
    DELETE FROM annotator_{table} o USING annotator_judge j
    WHERE j.project_id = %(project)s AND j.kind = 'imported'
      AND o.judge_id = j.id AND o.run_id = %(run)s
    """
    for table in ("judgeanswer", "judgeoutcome")
)
DROP_SAID_OF_TASKS: Final = tuple(
    f"DELETE FROM annotator_{table} o USING undone WHERE o.task_id = undone.id"
    for table in ("judgeanswer", "judgeoutcome")
)
DROP_ASSIGNMENTS: Final = """
    WITH gone AS (
        DELETE FROM annotator_assignment a USING undone WHERE a.task_id = undone.id
        RETURNING a.rater_id, a.state
    )
    UPDATE annotator_rater r SET skipped = greatest(0, r.skipped - c.skips)
    FROM (SELECT rater_id, count(*) AS skips FROM gone WHERE state = 'skipped' GROUP BY 1) c
    WHERE r.id = c.rater_id
"""
# What was computed from the votes goes with the tasks.
DROP_CONSENSUS: Final = "DELETE FROM annotator_consensus c USING undone WHERE c.task_id = undone.id"
DROP_ITEMS: Final = "DELETE FROM annotator_reviewitem i USING undone WHERE i.task_id = undone.id"
DROP_TASKS: Final = "DELETE FROM annotator_task t USING undone WHERE t.id = undone.id"
DROP_RESPONSES: Final = """
    DELETE FROM annotator_response r
    WHERE r.project_id = %(project)s AND r.import_run_id = %(run)s
      AND NOT EXISTS (SELECT FROM annotator_task t
                      WHERE t.prompt_id = r.prompt_id AND r.id = ANY(t.response_ids))
"""
# No foreign key does it: rows that come a million at a time have none.
DROP_SCORES: Final = """
    DELETE FROM annotator_rewardscore s
    WHERE s.project_id = %(project)s
      AND NOT EXISTS (SELECT FROM annotator_response r WHERE r.id = s.response_id)
"""
DROP_VERDICTS: Final = """
    DELETE FROM annotator_criterionverdict v
    USING annotator_criterion c, annotator_rubricversion n, annotator_rubric b
    WHERE v.criterion_id = c.id AND n.id = c.version_id AND b.id = n.rubric_id
      AND b.project_id = %(project)s
      AND NOT EXISTS (SELECT FROM annotator_response r WHERE r.id = v.response_id)
"""
DROP_PROMPTS: Final = """
    DELETE FROM annotator_prompt p
    WHERE p.project_id = %(project)s AND p.import_run_id = %(run)s
      AND NOT EXISTS (SELECT FROM annotator_response r WHERE r.prompt_id = p.id)
      AND NOT EXISTS (SELECT FROM annotator_task t WHERE t.prompt_id = p.id)
"""
DROP_RATERS: Final = """
    DELETE FROM annotator_rater r
    WHERE r.project_id = %(project)s AND r.kind = 'imported' AND r.name = ANY(%(raters)s)
      AND NOT EXISTS (SELECT FROM annotator_judgment j WHERE j.rater_id = r.id)
"""
FORETELL: Final = f"""
    SELECT count(*), count(*) FILTER (WHERE {JUDGED}) FROM annotator_task t
    WHERE t.project_id = %(project)s AND t.import_run_id = %(run)s
"""


def foretell(run: Run) -> dict[str, int]:
    """Tasks that would go and tasks that would stay, as things stand."""
    with connection.cursor() as cursor:
        cursor.execute(FORETELL, {"project": run.project_id, "run": run.pk})
        tasks, judged = cursor.fetchone()
    return {"tasks": tasks - judged, "kept": judged}


def check(run: Run) -> None:
    """Raises Conflict for a run that has nothing to take back."""
    if run.kind != Run.Kind.IMPORT or run.state != RunState.DONE:
        raise Conflict("Only an import that is done can be undone.")
    if "undone" in run.result:
        raise Conflict("This import was undone already.")


@transaction.atomic
def undo(*, run: Run, by: User | None) -> dict[str, int]:
    """Remove what a run added and nobody has judged since. Returns what went and what stayed.

    The votes that came with the file go in every case; a task that somebody else judged, or holds
    at this moment, stays with its prompt and answers. Raises Conflict where there is nothing to
    undo.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext('touchstone import'), %s)", [run.project_id]
        )
    run = Run.objects.select_for_update(of=("self",)).get(pk=run.pk)
    check(run)
    result = _remove(run)
    run.result = {**run.result, "undone": result}
    run.save(update_fields=["result"])
    AuditEvent.objects.create(
        project_id=run.project_id,
        actor=by,
        verb="import.undo",
        subject=f"run {run.pk}",
        data=result,
    )
    return result


def _drop_judges(run: Run) -> int:
    """Remove the judges of the run's file that have said nothing else, with their reports."""
    silent = Judge.objects.filter(
        ~Exists(JudgeOutcome.objects.filter(judge_id=OuterRef("pk"))),
        project_id=run.project_id,
        kind=Judge.IMPORTED,
        name__in=run.result.get("judges", []),
    )
    raters = list(silent.values_list("rater_id", flat=True))
    Rater.objects.filter(pk__in=raters).delete()
    return len(raters)


def _remove(run: Run) -> dict[str, int]:
    values: dict[str, Any] = {
        "project": run.project_id,
        "run": run.pk,
        "raters": list(run.result.get("raters", {})),
    }
    with connection.cursor() as cursor:

        def drop(statement: str) -> int:
            cursor.execute(statement, values)
            return cursor.rowcount

        for statement in FIND_TASKS.split(";\n"):
            found = drop(statement)
        drop(KEEP_JUDGED)
        drop(KEEP_BUSY)
        drop(DROP_VOTES)
        for statement in DROP_SAID:
            drop(statement)
        cursor.execute(DROP_JUDGMENTS, values)
        judgments = cursor.fetchone()[0]
        drop(DROP_ASSIGNMENTS)
        for statement in DROP_SAID_OF_TASKS:
            drop(statement)
        drop(DROP_CONSENSUS)
        drop(DROP_ITEMS)
        tasks = drop(DROP_TASKS)
        result = {
            "judgments": judgments,
            "tasks": tasks,
            "kept": found - tasks,
            "responses": drop(DROP_RESPONSES),
            "prompts": drop(DROP_PROMPTS),
            "raters": drop(DROP_RATERS) + _drop_judges(run),
        }
        drop(DROP_SCORES)
        drop(DROP_VERDICTS)
    images.sweep(project_id=run.project_id)
    return result
