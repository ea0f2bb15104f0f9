"""The list that a task asks: the criteria of a version of a rubric, or the project's settings.

A version that was approved never changes, so that each process reads it once. A task without a
version costs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection

from annotator.kinds.asked import AskedLine, ask_of
from annotator.models import Criterion, ProjectSettings, RubricVersion, Task

MOST_KNOWN: Final = 512  # versions that a process remembers
MACHINES: Final = (Criterion.Verifier.PROGRAM, Criterion.Verifier.REWARD_MODEL)

# Of a task ``t``: which list it asks, and what decides about a narrower criterion; null where it
# asks that of the settings. ``parse`` reads it.
LIST_OF: Final = """
    CASE WHEN t.rubric_version_id IS NOT NULL THEN
        (SELECT json_build_array(t.rubric_version_id, t.import_run_id, asked.id, asked.tags)
         FROM annotator_prompt asked WHERE asked.id = t.prompt_id) END
"""
# A run that made the tasks says whether people are also asked what a machine checks.
LINES: Final = """
    SELECT c.id, c.text, c.polarity, c.theme, c.scope, c."group"
    FROM annotator_criterion c JOIN annotator_rubricversion v ON v.id = c.version_id
    WHERE v.id = %(version)s AND v.state = %(approved)s AND c.decision = %(accepted)s
      AND (NOT c.verifier = ANY(%(machines)s) OR EXISTS (
          SELECT FROM annotator_run r
          WHERE r.id = %(run)s AND (r.config ->> 'with_machines')::bool))
    ORDER BY c.position
"""


class ListOf(NamedTuple):
    """Which list a task asks."""

    version_id: int
    run_id: int | None
    prompt_id: int
    tags: Sequence[str]


class Line(NamedTuple):
    """A criterion as people are asked it."""

    criterion_id: int
    text: str
    polarity: int
    theme: str
    scope: str
    group: str

    def is_about(self, prompt_id: int, tags: Sequence[str]) -> bool:
        if self.scope == Criterion.Scope.PROMPT:
            return self.group == str(prompt_id)
        return self.scope == Criterion.Scope.PROJECT or self.group in tags

    @property
    def asked(self) -> AskedLine:
        return AskedLine(self.text, self.polarity < 0, self.theme)


_known: dict[tuple[int, int | None], tuple[Line, ...]] = {}


def lines_of(version_id: int, run_id: int | None = None) -> tuple[Line, ...]:
    """What people are asked of an approved version, in its order; () where there is none such.

    ``run_id`` is the run that made the task.
    """
    key = (version_id, run_id)
    found = _known.get(key)
    if found is None:
        found = _read(version_id, run_id)
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        if found:
            _known[key] = found
    return found


def _read(version_id: int, run_id: int | None) -> tuple[Line, ...]:
    with connection.cursor() as cursor:
        cursor.execute(
            LINES,
            {
                "version": version_id,
                "run": run_id,
                "approved": RubricVersion.State.APPROVED.value,
                "accepted": Criterion.Decision.ACCEPTED.value,
                "machines": [one.value for one in MACHINES],
            },
        )
        return tuple(Line(*row) for row in cursor.fetchall())


def parse(column: Any) -> ListOf | None:
    """What ``LIST_OF`` selected."""
    given = orjson.loads(column) if isinstance(column, str) else column
    return ListOf(*given) if given else None


def of_task(task: Task) -> ListOf | None:
    """The same of a task at hand; reads its prompt where it asks a version."""
    if task.rubric_version_id is None:
        return None
    return ListOf(
        task.rubric_version_id, task.import_run_id, task.prompt_id, tuple(task.prompt.tags)
    )


def asked(of: ListOf) -> list[Line]:
    """The lines that are about the task's prompt."""
    lines = lines_of(of.version_id, of.run_id)
    return [line for line in lines if line.is_about(of.prompt_id, of.tags)]


def options_of(options: ProjectSettings, of: ListOf | None) -> ProjectSettings:
    """The settings that a task goes by: with the list of its version, where it asks one."""
    return options if of is None else ask_of(options, (line.asked for line in asked(of)))


def options_for(task: Task, options: ProjectSettings) -> ProjectSettings:
    """The settings that this task goes by; ``options`` are its project's."""
    return options_of(options, of_task(task))


def ids_by_text(lines: Iterable[Line]) -> dict[str, list[int]]:
    """Criteria by text: two of one text were asked once and are answered at once."""
    found: dict[str, list[int]] = {}
    for line in lines:
        found.setdefault(line.text, []).append(line.criterion_id)
    return found
