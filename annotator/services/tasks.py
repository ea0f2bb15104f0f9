"""Changes of tasks: how many judgments, how urgent, for whom, golds; some, or all that fit.

What reaches more tasks than a request should wait for goes to a run (kind ``tasks``), chunk by
chunk. Locks are taken in the order that ``services.queue`` gives; whatever may bring a task
before a mark resets the marks in the same transaction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db import connection, transaction

from annotator.errors import Invalid
from annotator.kinds.base import kind
from annotator.models import (
    AuditEvent,
    Group,
    Judgment,
    Preference,
    Project,
    Rater,
    Run,
    Task,
    User,
)
from annotator.queries import tasks as queries
from annotator.queries.tasks import Filter
from annotator.services import groups, queue, runs
from annotator.services.judgments import as_verdict
from annotator.services.queue_marks import lock_tasks
from annotator.services.queue_order import chunks, set_overlap_of

INLINE: Final = 5_000  # tasks of a project that are changed while the request waits
MAX_PRIORITY: Final = 1_000
MAX_OVERLAP: Final = 50
ACTIONS: Final = {
    "overlap": "Judgments per task",
    "priority": "Priority",
    "assign": "Assign to",
    "stop": "Stop asking for more",
    "gold": "Make golds",
    "qualification": "Put into the qualification set",
    "ordinary": "Make ordinary tasks again",
}


@dataclass(frozen=True)
class Change:
    """What is done to tasks: an action and, for the first three, its value.

    ``assign`` takes a group's id, or 0 for everybody.
    """

    action: str
    value: int = 0

    def check(self, project: Project) -> None:
        """Raises Invalid for what makes no sense in this project."""
        bounds = {
            "overlap": (1, MAX_OVERLAP, "Judgments per task"),
            "priority": (-MAX_PRIORITY, MAX_PRIORITY, "A priority"),
        }
        if self.action not in ACTIONS:
            raise Invalid("Choose what to do with the tasks.")
        if self.action in bounds:
            low, high, what = bounds[self.action]
            if not low <= self.value <= high:
                raise Invalid(f"{what}: a number from {low:,} to {high:,}.")
        if (
            self.action == "assign"
            and self.value
            and not Group.objects.filter(pk=self.value, project=project).exists()
        ):
            raise Invalid("This group is not there any more.")


@dataclass
class Done:
    """What a change came to. ``refused`` counts tasks by the reason why they stay as they are."""

    changed: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def add(self, other: Done) -> None:
        self.changed += other.changed
        for reason, count in other.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count


def assignee(*, project: Project, value: str) -> int:
    """A group's id from what the page offers: "", "group-ID" or "rater-ID".

    Raises Invalid for a group or person that is not of this project.
    """
    kind_, _, number = value.partition("-")
    if not value:
        return Task.EVERYBODY
    if number.isascii() and number.isdecimal() and len(number) < 19:
        if kind_ == "group" and project.groups.filter(pk=number).exists():
            return int(number)
        people = project.raters.filter(kind=Rater.Kind.HUMAN)
        if kind_ == "rater" and (rater := people.filter(pk=number).first()):
            return groups.of_person(rater).pk
    raise Invalid("Choose a group or a person of this project.")


@transaction.atomic
def change(*, project: Project, task_ids: list[int], change: Change, by: User | None) -> Done:
    """Change some tasks now. Ids of other projects are left out. Raises Invalid."""
    change.check(project)
    done = _apply(project.pk, sorted(set(task_ids)), change)
    _note(project, by, change, done)
    return done


def _note(project: Project, by: User | None, change: Change, done: Done, **data: Any) -> None:
    AuditEvent.objects.create(
        project=project,
        actor=by,
        verb=f"tasks.{change.action}",
        subject=project.slug,
        data={"value": change.value, **asdict(done), **data},
    )


def _apply(project_id: int, ids: list[int], change: Change) -> Done:
    """One chunk, in the caller's transaction."""
    with connection.cursor() as cursor:
        if change.action == "assign" and change.value:
            # Nobody deletes the group meanwhile: see services.groups.delete.
            cursor.execute("SELECT FROM annotator_group WHERE id = %s FOR SHARE", [change.value])
        cursor.execute(
            "SELECT id FROM annotator_task WHERE project_id = %s AND id = ANY(%s)",
            [project_id, ids],
        )
        ids = sorted(row[0] for row in cursor.fetchall())
        # Claims of golds share a lease's lock: see services.queue_golds.
        lock_tasks(cursor, ids, how="UPDATE" if change.action == "ordinary" else "NO KEY UPDATE")
        done = _ACTIONS[change.action](cursor, ids, change.value)
        if done.changed:
            queue.reset_marks(project_id=project_id)
        return done


def _overlap(cursor: Any, ids: list[int], value: int) -> Done:
    return Done(set_overlap_of(cursor, ids, overlap=value))


def _set(column: str) -> Any:
    def act(cursor: Any, ids: list[int], value: int) -> Done:
        cursor.execute(
            f"UPDATE annotator_task SET {column} = %s WHERE id = ANY(%s) AND {column} <> %s",
            [value, ids, value],
        )
        return Done(cursor.rowcount)

    return act


def _stop(cursor: Any, ids: list[int], _: int) -> Done:
    """No more places than are taken: what is held may be finished."""
    cursor.execute(
        "UPDATE annotator_task SET overlap = overlap - free, free = 0"
        " WHERE id = ANY(%s) AND free > 0 AND NOT is_gold",
        [ids],
    )
    return Done(cursor.rowcount)


NO_VERDICT: Final = (
    "no right answer is known: no reviewer decided it, and fewer than two people judged it"
)
SPLIT: Final = "no right answer is known: the verdicts differ and no reviewer decided"


def _golds(*, qualification: bool) -> Any:
    def act(cursor: Any, ids: list[int], _: int) -> Done:
        done = Done()
        for task in Task.objects.filter(pk__in=ids).order_by("pk"):
            if task.is_gold and task.is_qualification == qualification:
                continue
            gold, why = known_verdict(task)
            if gold is None:
                done.add(Done(refused={why: 1}))
                continue
            _make_gold(cursor, task, gold, qualification=qualification)
            done.changed += 1
        return done

    return act


def _make_gold(cursor: Any, task: Task, gold: dict[str, Any], *, qualification: bool) -> None:
    was_gold, task.is_gold, task.is_qualification = task.is_gold, True, qualification
    task.gold, task.free = gold, 0
    task.save(update_fields=["is_gold", "is_qualification", "gold", "free"])
    if not was_gold:
        _edges_are_gold(cursor, [task.pk], is_gold=True)


def _edges_are_gold(cursor: Any, ids: list[int], *, is_gold: bool) -> None:
    """Edges say for themselves whether they are of a gold: training and export leave those out."""
    Preference.objects.filter(
        judgment__in=Judgment.objects.filter(task_id__in=ids).values("pk")
    ).update(is_gold=is_gold)


def known_verdict(task: Task) -> tuple[dict[str, Any] | None, str]:
    """The right answer of a task as ``Task.gold`` keeps it, else None and why it is not known.

    What was imported or set comes first, then a reviewer's decision, then a verdict that two
    people or more gave and nobody contradicted.
    """
    if task.gold is not None:
        return task.gold, ""
    current = Judgment.objects.filter(task=task, is_current=True).order_by("submitted_at", "pk")
    decided = current.filter(kind=Judgment.Kind.ADJUDICATION).last()
    if decided is not None:
        return as_verdict(decided).as_gold(), ""
    # Whose votes count nowhere does not say what is right either, and no judge does.
    counted = current.filter(rater__is_excluded=False).exclude(rater__kind=Rater.Kind.JUDGE)
    votes = [as_verdict(one) for one in counted[:MAX_OVERLAP]]
    if len(votes) < 2:
        return None, NO_VERDICT
    first, of_kind = votes[0], kind(task.kind)
    if not all(of_kind.matches(vote, first) and of_kind.matches(first, vote) for vote in votes):
        return None, SPLIT
    return first.as_gold(), ""


def _ordinary(cursor: Any, ids: list[int], _: int) -> Done:
    """Places again: as many as are not taken by verdicts and leases."""
    cursor.execute(
        """
        UPDATE annotator_task t
        SET is_gold = false, is_qualification = false,
            free = t.overlap - t.judged - (SELECT count(*) FROM annotator_assignment a
                                           WHERE a.task_id = t.id AND a.state = 'leased')
        WHERE t.id = ANY(%s) AND t.is_gold RETURNING t.id
        """,
        [ids],
    )
    changed = [row[0] for row in cursor.fetchall()]
    if changed:
        _edges_are_gold(cursor, changed, is_gold=False)
    return Done(len(changed))


_ACTIONS: Final = {
    "overlap": _overlap,
    "priority": _set("priority"),
    "assign": _set("group_id"),
    "stop": _stop,
    "gold": _golds(qualification=False),
    "qualification": _golds(qualification=True),
    "ordinary": _ordinary,
}


def is_large(project_id: int) -> bool:
    """Whether a change of all tasks is more than a request should wait for."""
    return queries.size(project_id, most=INLINE + 1) > INLINE


def change_matching(
    *, project: Project, chosen: Filter, change: Change, by: User | None
) -> Done | Run:
    """Change every task that fits: at once, or in a large project as a run to be enqueued."""
    change.check(project)
    if is_large(project.pk):
        config = {"filter": chosen.as_dict(), **asdict(change)}
        return _start(project, f"Tasks: {ACTIONS[change.action].lower()}", config, by)
    done = Done()
    for ids in chunks(project.pk):
        with transaction.atomic():
            done.add(_apply(project.pk, queries.matching(project.pk, chosen, ids), change))
    _note(project, by, change, done, filter=chosen.as_dict())
    return done


def _start(project: Project, title: str, config: dict[str, Any], by: User | None) -> Run:
    return runs.start(project=project, kind=Run.Kind.TASKS, title=title, config=config, by=by)


def follow_settings(
    *, project: Project, before: dict[str, Any], changed: list[str], by: User | None
) -> dict[str, Any]:
    """Bring tasks in line with changed settings; returns what to write down about it.

    In a large project by a run, which a worker's watch finds without being told.
    """
    data: dict[str, Any] = {}
    large = is_large(project.pk)
    if not large and {"overlap", "sampler"} & set(changed):
        _lock_all(project.pk)
    if "overlap" in changed:
        was = before["overlap"]
        if large:
            data["run"] = _later(
                project, "Judgments per task", {"action": "follow", "was": was}, by
            )
        else:
            data["tasks"] = queue.set_overlap(project_id=project.pk, was=was)
    if "sampler" in changed:
        if large:
            data["order"] = _later(project, "Order of tasks", {"action": "reorder"}, by)
        else:
            queue.reorder(project.pk)
    return data


def _lock_all(project_id: int) -> None:
    """The caller's transaction goes through all chunks, and each locks raters after its tasks."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM annotator_task WHERE project_id = %s ORDER BY id FOR NO KEY UPDATE",
            [project_id],
        )


def _later(project: Project, title: str, config: dict[str, Any], by: User | None) -> int:
    run = _start(project, title, config, by)
    runs.postpone(run=run)
    return run.pk


def perform(pen: runs.Work) -> dict[str, Any]:
    """The work of a run. It may be done again from the start: what is changed stays changed."""
    config, project = pen.run.config, pen.run.project

    def between(looked: int) -> None:
        pen.progress(looked, unit="tasks")
        pen.check()

    if config["action"] == "reorder":
        return {"changed": queue.reorder(project.pk, between=between)}
    if config["action"] == "follow":
        return {
            "changed": queue.set_overlap(project_id=project.pk, was=config["was"], between=between)
        }
    chosen, change = Filter(**config["filter"]), Change(config["action"], config["value"])
    change.check(project)
    done, looked = Done(), 0
    for ids in chunks(project.pk):
        with transaction.atomic():
            done.add(_apply(project.pk, queries.matching(project.pk, chosen, ids), change))
        looked += len(ids)
        between(looked)
    _note(project, pen.run.created_by, change, done, filter=chosen.as_dict())
    return asdict(done)
