"""Genuine, mediocre answers: what the probes of the attack battery stand beside."""

from __future__ import annotations

from typing import Final

import orjson
from django.db import connection

from annotator.models import Judge, Project
from rubrics.battery import Genuine

LEAST_CHARS: Final = 20  # shorter answers are taken where a project has none that are longer

# One answer of each prompt, prompts in the order of their hash: as good as drawn, the same every
# time. The answer in the middle of what people made of the prompt's answers; with no consensus,
# or of two, which are both as far from the middle, the one with the smaller hash.
GENUINE: Final = """
    SELECT p.id, p.messages::text, best.text
    FROM annotator_prompt p
    CROSS JOIN LATERAL (
        SELECT r.text FROM annotator_response r
        LEFT JOIN LATERAL (
            SELECT c.ranks[array_position(t.response_ids, r.id)]::float8 AS rank,
                   cardinality(t.response_ids) AS size
            FROM annotator_task t JOIN annotator_consensus c ON c.task_id = t.id
            WHERE t.prompt_id = p.id AND r.id = ANY(t.response_ids)
            ORDER BY cardinality(t.response_ids) DESC, t.id LIMIT 1
        ) found ON true
        WHERE r.prompt_id = p.id AND r.messages IS NULL AND r.image_id IS NULL
          AND length(btrim(r.text, E' \\t\\n\\r')) >= %(least)s
        ORDER BY abs((found.rank - 1) / greatest(found.size - 1, 1) - 0.5) NULLS LAST,
                 r.content_hash
        LIMIT 1
    ) best
    WHERE p.project_id = %(project)s
    ORDER BY p.content_hash LIMIT %(most)s
"""


def genuines(project: Project, judge: Judge, *, most: int) -> list[Genuine]:
    """At most so many prompts with an answer each, as the judge is shown them."""
    found = _rows(project, most=most, least=LEAST_CHARS)
    if len(found) < most:
        found = _rows(project, most=most, least=1)
    criteria = judge.options.get("criteria") or project.options.criteria
    return [
        Genuine(
            id=pk,
            messages=orjson.loads(messages),
            text=text,
            question=project.question,
            guidelines=project.guidelines,
            criteria=tuple(criteria),
        )
        for pk, messages, text in found
    ]


def _rows(project: Project, *, most: int, least: int) -> list[tuple[int, str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(GENUINE, {"project": project.pk, "most": most, "least": least})
        return cursor.fetchall()
