"""Which responses people are to check under a version of a rubric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.db import connection

from annotator.models import Project
from annotator.queries.pairs import Selection
from annotator.queries.preference_pairs import chosen

CHUNK: Final = 500


class Group(NamedTuple):
    """Responses of one prompt that are checked in one task."""

    prompt_id: int
    response_ids: tuple[int, ...]


class Prompt(NamedTuple):
    id: int
    content_hash: bytes
    tags: list[str]


@dataclass(frozen=True)
class Taken:
    """What tasks of a version ask already: their hashes, and every response in one."""

    hashes: frozenset[bytes]
    responses: frozenset[int]
    of_run: int  # tasks that one run has made


def pairs(project: Project, *, splits: Sequence[str], seed: str) -> Iterator[Group]:
    """Both sides of every pair on which most votes are for one, in an order drawn by the seed.

    The smaller id comes first: the order of a task says nothing of who was preferred.
    """
    for one in chosen(project, Selection(splits=tuple(splits)), seed=seed):
        first, second = sorted((one.chosen_id, one.rejected_id))
        yield Group(one.prompt_id, (first, second))


PROMPTS: Final = """
    SELECT p.id FROM annotator_prompt p
    WHERE p.project_id = %(project)s AND p.split = ANY(%(splits)s)
    ORDER BY md5(%(seed)s || ':' || p.id)
"""
RESPONSES: Final = """
    SELECT r.prompt_id, array_agg(r.id ORDER BY r.id) FROM annotator_response r
    WHERE r.prompt_id = ANY(%s) GROUP BY 1
"""


def prompts(project: Project, *, splits: Sequence[str], seed: str, size: int) -> Iterator[Group]:
    """All responses of every prompt, ``size`` to a task, prompts in an order drawn by the seed."""
    with connection.cursor() as cursor:
        cursor.execute(PROMPTS, {"project": project.pk, "splits": list(splits), "seed": seed})
        ids = [row[0] for row in cursor.fetchall()]
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        with connection.cursor() as cursor:
            cursor.execute(RESPONSES, [some])
            found = dict(cursor.fetchall())
        for prompt_id in some:
            replies = found.get(prompt_id, [])
            for at in range(0, len(replies), size):
                yield Group(prompt_id, tuple(replies[at : at + size]))


def taken(version_id: int, *, project_id: int, run_id: int) -> Taken:
    """What tasks of this version there are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT content_hash, response_ids, import_run_id FROM annotator_task"
            " WHERE project_id = %s AND rubric_version_id = %s",
            [project_id, version_id],
        )
        rows = cursor.fetchall()
    return Taken(
        hashes=frozenset(bytes(row[0]) for row in rows),
        responses=frozenset(pk for row in rows for pk in row[1]),
        of_run=sum(row[2] == run_id for row in rows),
    )


def named(groups: Sequence[Group]) -> tuple[dict[int, Prompt], dict[int, bytes]]:
    """The prompts of groups, and the hashes of their responses; what is gone is left out."""
    rows: list[Any]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, content_hash, (SELECT coalesce(array_agg(tag), '{}')"
            " FROM jsonb_array_elements_text(tags) AS tag)"
            " FROM annotator_prompt WHERE id = ANY(%s)",
            [[one.prompt_id for one in groups]],
        )
        rows = cursor.fetchall()
        found = {row[0]: Prompt(row[0], bytes(row[1]), row[2]) for row in rows}
        cursor.execute(
            "SELECT id, content_hash FROM annotator_response WHERE id = ANY(%s)",
            [[pk for one in groups for pk in one.response_ids]],
        )
        return found, {row[0]: bytes(row[1]) for row in cursor.fetchall()}
