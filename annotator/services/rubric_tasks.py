"""A version of a rubric as checklists for people: which responses, made by a run.

Nobody checks a response twice under one version: a response is in at most one task of it, so that
what a rater says of a response under a criterion is one verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson
from django.db import connection, transaction

from annotator.errors import Conflict, Invalid
from annotator.kinds.base import MAX_ANSWERS
from annotator.kinds.checklist import Checklist
from annotator.models import AuditEvent, Group, RubricVersion, Run, Split, Task, User
from annotator.queries import figures, rubric_lists, rubric_sample
from annotator.queries.rubric_lists import ListOf
from annotator.queries.rubric_sample import Taken
from annotator.samplers import SAMPLERS
from annotator.services import hashing, queue, runs
from annotator.services.queue_order import settings_of
from annotator.services.tasks import MAX_OVERLAP, MAX_PRIORITY
from rubrics.registry import pick

ACTION: Final = "checklists"
CHUNK: Final = 200  # tasks that one transaction makes
MOST: Final = 10_000
MAX_SEED: Final = 40
SAMPLES: Final = {
    "pairs": "Both sides of pairs that people decided",
    "more": "Both sides of pairs, beyond those asked already",
    "prompts": "All answers of a prompt",
}


@dataclass(frozen=True)
class Wish:
    """What is to be checked.

    ``number`` tasks: of ``which`` "pairs" the first in an order drawn by ``seed``, so that the
    same wish again makes nothing new; of "more" that many beyond those there are; of "prompts"
    all answers, ``size`` at most to a task. ``group`` is a Group's id or Task.EVERYBODY.
    """

    which: Literal["pairs", "more", "prompts"] = "pairs"
    number: int = 60
    size: int = 4
    overlap: int = 2
    priority: int = 0
    group: int = Task.EVERYBODY
    splits: tuple[str, ...] = field(default=tuple(Split.values))
    seed: str = ""
    with_machines: bool = False  # also what a program or a reward model checks

    def check(self, version: RubricVersion) -> None:
        """Raises Invalid for what makes no sense, Conflict for a draft."""
        if version.is_draft:
            raise Conflict(
                f"{version} is a draft, and what it asks may still change.",
                advice="Approve it first.",
            )
        if self.which not in SAMPLES:
            raise Invalid("Choose which answers are to be checked.")
        bounds = {
            "Tasks": (self.number, 1, MOST),
            "Answers in a task": (self.size, 1, Checklist.most),
            "Judgments per task": (self.overlap, 1, MAX_OVERLAP),
            "A priority": (self.priority, -MAX_PRIORITY, MAX_PRIORITY),
        }
        for what, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise Invalid(f"{what}: a number from {low:,} to {high:,}.")
        if not self.splits or set(self.splits) - set(Split.values):
            raise Invalid("Choose one split or more.")
        if len(self.seed) > MAX_SEED or "\0" in self.seed:
            raise Invalid(f"A seed has {MAX_SEED} characters at most.")
        project = version.rubric.project_id
        if self.group and not Group.objects.filter(pk=self.group, project=project).exists():
            raise Invalid("This group is not there any more.")


def start(*, version: RubricVersion, wish: Wish, by: User | None) -> Run:
    """A queued run that makes the tasks; the caller enqueues it. Raises Invalid, Conflict."""
    wish.check(version)
    verifiers = {one.verifier for one in _in_force(version)}
    if not wish.with_machines and verifiers <= set(rubric_lists.MACHINES):
        raise Conflict(
            "Programs check every criterion of this version.",
            advice="Ask people about them as well, or approve a version that has others.",
        )
    return runs.start(
        project=version.rubric.project,
        kind=Run.Kind.TASKS,
        title=f"Checklists of {version}",
        config={"action": ACTION, "version": version.pk, **asdict(wish)},
        by=by,
    )


def _in_force(version: RubricVersion) -> list[Any]:
    return list(version.criteria.filter(decision="accepted").only("verifier"))


def perform(pen: runs.Work) -> dict[str, Any]:
    """The work of a run; done again after a death it goes on where it was."""
    config = dict(pen.run.config)
    names = Wish.__dataclass_fields__
    wish = Wish(**{key: value for key, value in config.items() if key in names})
    version = (
        RubricVersion.objects.select_related("rubric__project")
        .filter(pk=config["version"], rubric__project=pen.run.project_id)
        .first()
    )
    if version is None:
        raise Conflict("This version is not there any more.")
    wish.check(version)
    result = _Maker(pen, version, wish).make()
    AuditEvent.objects.create(
        project_id=pen.run.project_id,
        actor=pen.run.created_by,
        verb="tasks.checklists",
        subject=f"rubric {version.rubric_id}",
        data={"version": version.number, **result},
    )
    return result


INSERT: Final = """
    INSERT INTO annotator_task
        (project_id, prompt_id, kind, response_ids, content_hash, overlap, judged, free, priority,
         position, group_id, is_gold, rubric_version_id, import_run_id, created_at)
    SELECT %(project)s, x.prompt, 'checklist',
           ARRAY(SELECT jsonb_array_elements_text(x.responses)::bigint), decode(x.hash, 'hex'),
           %(overlap)s, 0, %(overlap)s, %(priority)s, 0, %(group)s, false, %(version)s, %(run)s,
           clock_timestamp()
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x (prompt bigint, responses jsonb, hash text)
    ON CONFLICT (project_id, content_hash) DO NOTHING
    RETURNING id
"""


class _Maker:
    """One attempt at a run."""

    def __init__(self, pen: runs.Work, version: RubricVersion, wish: Wish) -> None:
        self._pen, self._version, self._wish = pen, version, wish
        self._project = version.rubric.project
        self._lines = rubric_lists.lines_of(version.pk, pen.run.pk)
        self._size = min(wish.size, max(1, MAX_ANSWERS // max(1, len(self._lines))))
        self._taken = self._read_taken()
        self.made = self._taken.of_run
        self._there: dict[str, int] = {"there": 0, "overlapping": 0, "nothing_asked": 0}

    def _read_taken(self) -> Taken:
        return rubric_sample.taken(
            self._version.pk, project_id=self._project.pk, run_id=self._pen.run.pk
        )

    def make(self) -> dict[str, Any]:
        """Returns counts: made; there already, in another task, without a criterion."""
        wanted = self._wish.number
        self._pen.progress(self.made, wanted, unit="tasks")
        used: set[int] = set()
        waiting: list[dict[str, Any]] = []
        begun = self.made if self._wish.which == "more" else 0
        for row in self._rows(used):
            fresh = bytes.fromhex(row["hash"]) not in self._taken.hashes
            if fresh:
                waiting.append(row)
            else:
                self._there["there"] += 1
            begun += fresh or self._wish.which != "more"
            if begun >= wanted:
                break
            if len(waiting) >= CHUNK:
                self._write(waiting)
                waiting = []
        self._write(waiting)
        result = {"made": self.made, **self._there}
        self._pen.progress(self.made, max(self.made, 1), unit="tasks", message=said(result))
        for name in ("figures", "readiness"):  # pages shown right after count again
            figures.forget(self._project.pk, name)
        return result

    def _rows(self, used: set[int]) -> Iterator[dict[str, Any]]:
        """Tasks of the sample in its order, each response in one at most."""
        held: list[rubric_sample.Group] = []
        for group in self._groups():
            held.append(group)
            if len(held) == rubric_sample.CHUNK:
                yield from self._checked(held, used)
                held = []
        yield from self._checked(held, used)

    def _groups(self) -> Iterator[rubric_sample.Group]:
        splits, seed = self._wish.splits, self._wish.seed
        if self._wish.which == "prompts":
            return rubric_sample.prompts(self._project, splits=splits, seed=seed, size=self._size)
        return rubric_sample.pairs(self._project, splits=splits, seed=seed)

    def _checked(
        self, groups: list[rubric_sample.Group], used: set[int]
    ) -> Iterator[dict[str, Any]]:
        prompts, responses = rubric_sample.named(groups)
        for prompt_id, ids in groups:
            if prompt_id not in prompts or not set(ids) <= set(responses):
                continue
            prompt = prompts[prompt_id]
            of = ListOf(self._version.pk, self._pen.run.pk, prompt_id, prompt.tags)
            if not rubric_lists.asked(of):
                self._there["nothing_asked"] += 1
                continue
            key = hashing.of_task(
                "checklist", prompt.content_hash, [responses[pk] for pk in ids],
                rubric_version=self._version.pk,
            )  # fmt: skip
            is_there = key in self._taken.hashes
            if used & set(ids) or (not is_there and self._taken.responses & set(ids)):
                self._there["overlapping"] += 1
                continue
            used.update(ids)
            yield {"prompt": prompt_id, "responses": ids, "hash": key.hex()}

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """One chunk, one transaction: the tasks, their places in the queue, the marks."""
        self._pen.check()
        if not rows:
            return
        wish = self._wish
        with transaction.atomic(), connection.cursor() as cursor:
            if wish.group:  # nobody deletes the group meanwhile: see services.groups.delete
                cursor.execute("SELECT FROM annotator_group WHERE id = %s FOR SHARE", [wish.group])
                if not cursor.rowcount:
                    raise Conflict("The group is not there any more.")
            cursor.execute(
                INSERT,
                {
                    "project": self._project.pk,
                    "overlap": wish.overlap,
                    "priority": wish.priority,
                    "group": wish.group,
                    "version": self._version.pk,
                    "run": self._pen.run.pk,
                    "rows": orjson.dumps(rows).decode(),
                },
            )
            ids = [row[0] for row in cursor.fetchall()]
            place = pick(SAMPLERS, settings_of(cursor, self._project.pk).sampler)()
            cursor.execute(
                f"UPDATE annotator_task t SET position = {place} WHERE t.id = ANY(%s)", [ids]
            )
            queue.reset_marks(project_id=self._project.pk)
        self.made += len(ids)
        self._there["there"] += len(rows) - len(ids)
        self._pen.progress(self.made)


def said(result: dict[str, Any]) -> str:
    """What a run came to, in a sentence."""
    parts = [f"{result['made']:,} task{'' if result['made'] == 1 else 's'} made"]
    words = {
        "there": "there already",
        "overlapping": "left out: an answer is in another task of this version",
        "nothing_asked": "left out: no criterion is about the prompt",
    }
    parts += [f"{result[key]:,} {text}" for key, text in words.items() if result.get(key)]
    return "; ".join(parts)
