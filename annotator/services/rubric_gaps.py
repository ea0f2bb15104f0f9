"""Unexplained pairs sent on: to people, as one more vote on each, or to a method, as the next round.

A pair gets one more vote by its task: one more place, where no vote is still to come and none has
come since the pair was measured. So asking twice asks once. Places and locks are those of
``services.queue``; a pair without a task gets one.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db import connection, transaction

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import (
    AuditEvent,
    Judge,
    Project,
    Prompt,
    Response,
    RubricMeasurement,
    RubricVersion,
    Run,
    Task,
    User,
)
from annotator.queries import rubric_gaps as queries
from annotator.queries.rubric_gaps import Basis, PairIds
from annotator.samplers import SAMPLERS
from annotator.services import hashing, induction, queue, rubrics, runs
from annotator.services.queue_marks import lock_tasks
from annotator.services.queue_order import settings_of
from annotator.services.tasks import MAX_OVERLAP
from rubrics.gaps import Unexplained
from rubrics.registry import pick

ACTION: Final = "another-vote"
INLINE: Final = 500  # pairs that are queued while the request waits
CHUNK: Final = 500
ROUND: Final = re.compile(r"^(?P<base>.+), round (?P<number>[1-9]\d{0,3})$")

WAITING: Final = "a vote is still to come on them"
VOTED: Final = "somebody has voted since they were measured: measure again first"
GOLD: Final = "they are golds"
SETTLED: Final = "a reviewer has decided them"
FULL: Final = f"they have {MAX_OVERLAP} judgments"
GONE: Final = "an answer is not there any more"


@dataclass
class Queued:
    """What came of it. ``raised`` tasks ask for one more vote, ``made`` are new; ``refused``
    counts pairs by why they stay as they are."""

    raised: int = 0
    made: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def add(self, other: Queued) -> None:
        self.raised += other.raised
        self.made += other.made
        for reason, count in other.refused.items():
            self.refuse(reason, count)

    def refuse(self, reason: str, count: int = 1) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + count


def basis(version: RubricVersion) -> Basis | None:
    """What the gaps of a version are counted on; None where it was never measured."""
    return queries.basis(version, rubrics.in_force(version))


def not_measured(version: RubricVersion) -> Conflict:
    """What is said where there is nothing to count on."""
    return Conflict(f"{version} was not measured yet.", advice="Measure it first.")


def listed(found: Basis, kind: str) -> Unexplained:
    """The unexplained pairs that a filter shows. Raises Invalid for one there is not."""
    if kind not in queries.FILTERS:
        raise Invalid("There is no such kind of unexplained pair.")
    return queries.unexplained(found.sheet, found.weights).of(*queries.FILTERS[kind][0])


# To people ------------------------------------------------------------------------------------


def queue_votes(*, found: Basis, kind: str, by: User | None) -> Queued | Run:
    """One more vote on each pair of a filter: now, or for many as a run to be enqueued.

    Raises Invalid, Conflict.
    """
    project = found.project
    if Project.objects.filter(pk=project.pk, archived_at__isnull=False).exists():
        raise Conflict("This project is archived: nobody is handed a task.")
    pairs = queries.ids_of(found.sheet, listed(found, kind).rows)
    if not pairs:
        raise Invalid("There is no such pair to ask about.")
    if len(pairs) > INLINE:
        config = {
            "action": ACTION,
            "version": found.version.pk,
            "measurement": found.measurement,
            "kind": kind,
            "weights": [[int(pk), weight] for pk, weight in found.weights_by_id.items()],
        }
        title = f"Another vote on {len(pairs):,} pairs that {found.version} does not explain"
        return runs.start(project=project, kind=Run.Kind.TASKS, title=title, config=config, by=by)
    done = _chunk(project, pairs, found.since)
    _note(found.version, by, kind, done)
    return done


def perform(pen: runs.Work) -> dict[str, Any]:
    """The work of such a run: the pairs that were listed when it was started, chunk by chunk.

    It may be done again from the start: who is asked once is not asked twice.
    """
    config = pen.run.config
    found = _as_started(pen.run)
    pairs = queries.ids_of(found.sheet, listed(found, config["kind"]).rows)
    done = Queued()
    for start in range(0, len(pairs), CHUNK):
        done.add(_chunk(found.project, pairs[start : start + CHUNK], found.since))
        pen.progress(min(start + CHUNK, len(pairs)), len(pairs), unit="pairs")
        pen.check()
    _note(found.version, pen.run.created_by, config["kind"], done)
    return asdict(done)


def _as_started(run: Run) -> Basis:
    rows = RubricMeasurement.objects.select_related("version__rubric__project", "run")
    measured = rows.filter(
        pk=run.config["measurement"], version__rubric__project_id=run.project_id
    ).first()
    if measured is None:
        raise NotFound("What was measured of this version is not there any more.")
    return queries.basis_of(measured, {int(pk): weight for pk, weight in run.config["weights"]})


@transaction.atomic
def _chunk(project: Project, pairs: list[PairIds], since: Any) -> Queued:
    """Some pairs. Locks: the project's settings, tasks by id, raters."""
    done = Queued()
    with connection.cursor() as cursor:
        place = pick(SAMPLERS, settings_of(cursor, project.pk).sampler)()
        tasks = queries.tasks_of(project.pk, pairs)
        ids = sorted({one.task_id for one in tasks.values()})
        lock_tasks(cursor, ids)
        why = _reasons(cursor, ids, since)
        for one in tasks.values():
            if why.get(one.task_id):
                done.refuse(why[one.task_id])
            elif one.task_id not in why:  # deleted meanwhile
                done.refuse(GONE)
        done.raised = _raise(cursor, [pk for pk in ids if why.get(pk) == ""])
        new = [pair for pair in pairs if pair not in tasks]
        if new:
            done.add(_make(cursor, project, new, place))
    if done.raised or done.made:
        queue.reset_marks(project_id=project.pk)
    return done


# A vote is what a person said: judges and imports take no place.
REASONS: Final = """
    SELECT t.id, CASE
        WHEN t.is_gold THEN %(gold)s
        WHEN t.is_settled THEN %(settled)s
        WHEN t.free > 0 OR EXISTS (
            SELECT FROM annotator_assignment a WHERE a.task_id = t.id AND a.state = 'leased')
            THEN %(waiting)s
        WHEN EXISTS (
            SELECT FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
            WHERE j.task_id = t.id AND j.is_current AND j.kind = 'vote' AND r.kind = 'human'
              AND j.submitted_at > %(since)s)
            THEN %(voted)s
        WHEN t.overlap - t.free >= %(most)s THEN %(full)s
        ELSE '' END
    FROM annotator_task t WHERE t.id = ANY(%(ids)s)
"""


def _reasons(cursor: Any, ids: list[int], since: Any) -> dict[int, str]:
    """Why a task is not asked again, "" where it is; the caller has locked them."""
    values = {
        "ids": ids, "since": since, "most": MAX_OVERLAP, "gold": GOLD, "settled": SETTLED,
        "waiting": WAITING, "voted": VOTED, "full": FULL,
    }  # fmt: skip
    cursor.execute(REASONS, values)
    return dict(cursor.fetchall())


def _raise(cursor: Any, ids: list[int]) -> int:
    """One free place, whatever more than it asked for a task already has."""
    cursor.execute(
        "UPDATE annotator_task SET overlap = overlap + 1 - free, free = 1 WHERE id = ANY(%s)", [ids]
    )
    return int(cursor.rowcount)


def _make(cursor: Any, project: Project, pairs: list[PairIds], place: str) -> Queued:
    """Pairwise tasks that ask for one judgment each. Raises Conflict while an import writes."""
    if not queue.hold_imports(project.pk):
        raise Conflict(
            "Tasks of this project are being written, and some pairs need one of their own.",
            advice="Try again when that has ended.",
        )
    done, rows = Queued(), []
    # Somebody who held the lock until now may have made them.
    there = queries.tasks_of(project.pk, pairs)
    if there:
        done.refuse(WAITING, len(there))
        pairs = [pair for pair in pairs if pair not in there]
    prompts = Prompt.objects.filter(project=project).in_bulk([prompt for prompt, *_ in pairs])
    answers = Response.objects.filter(project=project).only("prompt_id", "content_hash")
    sides = answers.in_bulk([pk for _, *both in pairs for pk in both])
    for prompt_id, *both in pairs:
        known = [sides[pk] for pk in sorted(both) if pk in sides]
        if prompt_id not in prompts or len({one.pk for one in known}) < 2 or any(
            one.prompt_id != prompt_id for one in known
        ):  # fmt: skip
            done.refuse(GONE)
            continue
        hashes = [bytes(one.content_hash) for one in known]
        rows.append(
            Task(
                project=project,
                prompt_id=prompt_id,
                kind="pairwise",
                response_ids=[one.pk for one in known],
                content_hash=hashing.of_task(
                    "pairwise", bytes(prompts[prompt_id].content_hash), hashes
                ),
                overlap=1,
                free=1,
            )
        )
    made = Task.objects.bulk_create(sorted(rows, key=lambda one: one.content_hash))
    done.made = len(made)
    cursor.execute(
        f"UPDATE annotator_task t SET position = {place} WHERE t.id = ANY(%s)",
        [[one.pk for one in made]],
    )
    return done


def _note(version: RubricVersion, by: User | None, kind: str, done: Queued) -> None:
    AuditEvent.objects.create(
        project_id=version.rubric.project_id,
        actor=by,
        verb=f"tasks.{ACTION}",
        subject=f"rubric {version.rubric_id}",
        data={"version": version.number, "kind": kind, **asdict(done)},
    )


# To the next round ----------------------------------------------------------------------------


@transaction.atomic
def next_round(*, found: Basis, kind: str, by: User | None) -> Run:
    """A run that induces a rubric from these pairs only, as this version was; to be enqueued.

    The surest pairs come first where a method that asks a model is given fewer than there are.
    Raises Invalid for a version written by hand, Conflict where the new rubric's draft is in work.
    """
    version = found.version
    source = method_of(version)
    if source is None:
        raise Invalid(
            f"{version} was written by hand: no method made it.",
            advice="Induce a rubric with the method of your choice.",
        )
    rows = listed(found, kind).rows
    if not len(rows):
        raise Invalid("There is no such pair to learn from.")
    most = induction.PAIRS if induction.needs_model(source.method) else induction.MOST_ONLY
    pairs = queries.ids_of(found.sheet, rows[:most])
    name = name_of_round(version.rubric.name)
    return induction.start(
        project=found.project,
        method=source.method,
        options=source.options,
        judge=judge_of(version, source),
        name=name,
        only={"version": version.pk, "rows": [list(pair) for pair in pairs]},
        by=by,
    )


def judge_of(version: RubricVersion, source: RubricVersion) -> Judge | None:
    """Whose endpoint and model the method asks, where it asks one."""
    if not induction.needs_model(source.method):
        return None
    return version.verifier or source.verifier


def method_of(version: RubricVersion) -> RubricVersion | None:
    """The version whose method made this one: itself, or what it was edited from."""
    seen: set[int] = set()
    found: RubricVersion | None = version
    while found is not None and not found.method and found.pk not in seen:
        seen.add(found.pk)
        found = found.parent
    return found if found is not None and found.method else None


def name_of_round(name: str) -> str:
    """ "Tone" -> "Tone, round 2" -> "Tone, round 3", never longer than a name can be."""
    matched = ROUND.match(name)
    base = matched["base"] if matched else name
    ending = f", round {int(matched['number']) + 1 if matched else 2}"
    return base[: rubrics.MAX_NAME - len(ending)].rstrip() + ending
