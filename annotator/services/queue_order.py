"""Changes of a whole queue: the order of its tasks and how many judgments they ask for.

A project may have a million tasks, so both go chunk by chunk, each chunk a transaction: nobody
waits for longer than one takes, and a process that dies leaves whole chunks behind. Both are
safe to run again. Locks are taken in the order that ``services.queue`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
from django.db import connection, transaction

from annotator.models import ProjectSettings
from annotator.samplers import SAMPLERS
from annotator.services.queue_marks import lock_tasks, reset_marks
from rubrics.registry import pick

CHUNK: Final = 2_000  # tasks that one transaction changes


def chunks(project_id: int, *, after: int = 0) -> Iterator[list[int]]:
    """The ids of a project's tasks, chunk by chunk, in the order of import."""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM annotator_task WHERE project_id = %s AND id > %s"
                " ORDER BY id LIMIT %s",
                [project_id, after, CHUNK],
            )
            ids = [row[0] for row in cursor.fetchall()]
        if not ids:
            return
        yield ids
        after = ids[-1]


def settings_of(cursor: Any, project_id: int) -> ProjectSettings:
    """A project's settings; they stay as they are until this transaction ends."""
    cursor.execute("SELECT settings FROM annotator_project WHERE id = %s FOR SHARE", [project_id])
    found = cursor.fetchone()[0]
    return ProjectSettings.model_validate(orjson.loads(found) if isinstance(found, str) else found)


def reorder(project_id: int, *, between: Callable[[int], None] = lambda done: None) -> int:
    """Write every task's place in the order of the project's sampler. Returns tasks moved.

    In chunks, each a transaction of its own: claims go on meanwhile, and see some tasks in the
    new order and some in the old. Safe to run twice. ``between`` hears how many tasks were
    looked at; what it raises ends the work after a whole chunk.
    """
    moved = looked = 0
    for ids in chunks(project_id):
        with transaction.atomic(), connection.cursor() as cursor:
            place = pick(SAMPLERS, settings_of(cursor, project_id).sampler)()
            lock_tasks(cursor, ids)
            cursor.execute(
                f"""
                UPDATE annotator_task t SET position = {place}
                WHERE t.id = ANY(%s) AND NOT t.is_gold AND t.position IS DISTINCT FROM {place}
                """,
                [ids],
            )
            if cursor.rowcount:
                moved += cursor.rowcount
                reset_marks(project_id=project_id)
        looked += len(ids)
        between(looked)
    return moved


def set_overlap(
    *,
    project_id: int,
    overlap: int | None = None,
    was: int | None = None,
    between: Callable[[int], None] = lambda done: None,
) -> int:
    """Ask for another number of judgments on the tasks of a project. Returns tasks changed.

    Without ``overlap`` it is what the project asks for, read again with every chunk: an owner
    may change it while this goes on. ``was`` leaves out tasks that ask for another number than
    this: their owner set them apart. Judgments that are in stay in: a task that has more than it
    now needs keeps them. In chunks, as ``reorder``.
    """
    changed = looked = 0
    for ids in chunks(project_id):
        with transaction.atomic(), connection.cursor() as cursor:
            asked = overlap or settings_of(cursor, project_id).overlap
            lock_tasks(cursor, ids)
            if found := set_overlap_of(cursor, ids, overlap=asked, was=was):
                changed += found
                reset_marks(project_id=project_id)
        looked += len(ids)
        between(looked)
    return changed


def set_overlap_of(cursor: Any, ids: list[int], *, overlap: int, was: int | None = None) -> int:
    """Set the overlap of tasks that the caller has locked; returns how many changed."""
    cursor.execute(
        """
        UPDATE annotator_task
        SET free = CASE WHEN is_gold THEN free ELSE free + (%(new)s - overlap) END,
            overlap = %(new)s
        WHERE id = ANY(%(ids)s) AND overlap <> %(new)s
          AND (%(was)s::int IS NULL OR overlap = %(was)s)
        """,
        {"new": overlap, "was": was, "ids": ids},
    )
    return int(cursor.rowcount)
