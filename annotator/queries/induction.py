"""What there is to induce a rubric from: pairs by split, how long texts are, what people wrote."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.db import connection

from annotator.models import Judge, Project, Rater, Rubric, Split
from annotator.queries.figures import cached
from annotator.queries.pairs import Selection, counted
from annotator.queries.snapshot import current
from rubrics.judging import ASKING

LEARNED: Final = (Split.TRAIN, Split.VALIDATION)
HELD_OUT: Final = (Split.TEST,)
SAMPLE: Final = 500  # prompts whose texts are measured
MOST_OFFERED: Final = 200  # judges, or rubrics, in a list to choose from


@dataclass(frozen=True)
class Material:
    """Decided pairs to learn from and to measure on, and their prompts."""

    learned: int = 0
    learned_prompts: int = 0
    held: int = 0
    held_prompts: int = 0


@dataclass(frozen=True)
class Lengths:
    """Means over a sample of prompts that somebody judged: characters, and reasons of people.

    ``reasons``: texts in which somebody said why, a pair; ``reasons_chars`` all those of a pair;
    ``agreed`` the share of pairs on which two people or more said why.
    """

    prompt: float = 0.0
    response: float = 0.0
    reasons: float = 0.0
    reasons_chars: float = 0.0
    agreed: float = 0.0


COUNTS: Final = """
SELECT split, count(*), count(DISTINCT prompt_id) FROM ({counted}) pairs
WHERE (wins_a > wins_b AND wins_a > ties) OR (wins_b > wins_a AND wins_b > ties)
GROUP BY split
"""
LENGTHS: Final = """
WITH sample AS (
    SELECT DISTINCT prompt_id FROM annotator_preference WHERE project_id = %(project)s
    LIMIT %(most)s
), said AS (
    SELECT v.prompt_id, least(v.a_id, v.b_id) AS a, greatest(v.a_id, v.b_id) AS b,
           count(DISTINCT j.id) AS reasons, count(DISTINCT j.rater_id) AS raters,
           coalesce(sum(length(j.rationale)), 0) AS chars
    FROM annotator_preference v JOIN sample USING (prompt_id)
    LEFT JOIN (
        annotator_judgment j
        JOIN annotator_rater r ON r.id = j.rater_id AND r.kind <> %(judge)s AND NOT r.is_excluded
    ) ON j.id = v.judgment_id AND j.rationale <> '' AND v.outcome <> 0
    WHERE v.project_id = %(project)s AND NOT v.is_gold
    GROUP BY 1, 2, 3
)
SELECT (SELECT avg(length(p.messages::text)) FROM annotator_prompt p
        WHERE p.id IN (SELECT prompt_id FROM sample)),
       (SELECT avg(length(o.text)) FROM annotator_response o
        WHERE o.prompt_id IN (SELECT prompt_id FROM sample)),
       (SELECT avg(reasons) FROM said), (SELECT avg(chars) FROM said),
       (SELECT avg(CASE WHEN raters > 1 THEN 1 ELSE 0 END) FROM said)
"""


def material(project: Project, raters: str) -> Material:
    """Decided pairs under a choice of raters, a minute old at most. Raises Invalid."""
    name = f"material.{raters}"
    return cached(name, [project.pk], lambda _: {project.pk: count(project, raters)})[project.pk]


def count(project: Project, raters: str) -> Material:
    """The same, counted now: a walk over all votes."""
    sql, values = counted(project, Selection(raters))
    with current().cursor() as cursor:
        cursor.execute(COUNTS.format(counted=sql), values)
        found = {split: (pairs, prompts) for split, pairs, prompts in cursor.fetchall()}

    def total(splits: tuple[str, ...]) -> tuple[int, int]:
        rows = [found.get(split, (0, 0)) for split in splits]
        return sum(pairs for pairs, _ in rows), sum(prompts for _, prompts in rows)

    return Material(*total(LEARNED), *total(HELD_OUT))


def lengths(project: Project) -> Lengths:
    """A minute old at most."""
    found = cached("lengths", [project.pk], partial(_lengths, project))
    return found[project.pk]


def _lengths(project: Project, _: list[int]) -> dict[int, Lengths]:
    values = {"project": project.pk, "most": SAMPLE, "judge": Rater.Kind.JUDGE}
    with connection.cursor() as cursor:
        cursor.execute(LENGTHS, values)
        row: tuple[Any, ...] = cursor.fetchone()
    return {project.pk: Lengths(*(float(value or 0) for value in row))}


def asking_judges(project: Project) -> list[Judge]:
    """Judges in use whose endpoint could be asked, newest first."""
    rows = Judge.objects.filter(
        project=project, kind__in=ASKING, archived_at=None, endpoint__archived_at=None
    )
    if project.modality == Project.Modality.IMAGE:
        rows = rows.filter(endpoint__has_images=True)
    found = rows.filter(endpoint__isnull=False).select_related("endpoint", "project")
    return list(found.order_by("-pk")[:MOST_OFFERED])


def rubrics_offered(project: Project) -> list[Rubric]:
    """Rubrics whose next version could be made, newest first."""
    rows = Rubric.objects.filter(project=project, archived_at=None)
    return list(rows.order_by("-pk")[:MOST_OFFERED])
