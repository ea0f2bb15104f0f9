"""What a version of a rubric does not explain, as pages show it.

Only pairs that the version could learn from are ever listed. Pairs of the test split stay unseen:
were people asked again where the rubric is wrong, or a method given those pairs, its
held-out accuracy would flatter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from django.db import connection

from annotator.models import (
    Criterion,
    Project,
    Prompt,
    Response,
    RubricMeasurement,
    RubricVersion,
)
from annotator.queries import rubrics as queries
from annotator.rendering import summary_line, visible
from rubrics import gaps
from rubrics.gaps import CONTRARY, KINDS, SILENT, UNSCORED, Unexplained
from rubrics.sheet import Sheet

PAGE: Final = 50
LINE: Final = 120  # characters of a prompt in a row
EXCERPT: Final = 600  # of an answer
# What a filter shows -> its kinds and its words. What was never scored is shown when asked for.
FILTERS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "": ((SILENT, CONTRARY), "All"),
    SILENT: ((SILENT,), "Silent"),
    CONTRARY: ((CONTRARY,), "Sure of the other"),
    UNSCORED: ((UNSCORED,), "Not scored"),
}

PairIds = tuple[int, int, int]  # prompt, chosen, rejected


@dataclass(frozen=True)
class Basis:
    """What is counted on: the pairs of a measurement that can be learned from, and weights.

    ``weights`` and ``polarities`` (k,) of the sheet's criteria, a weight 0 for one that is not in
    force; ``criteria`` in force by id; those of ``unmeasured`` are not in the sheet. Votes
    later than ``since`` are not in it either.
    """

    version: RubricVersion
    measurement: int
    since: datetime
    sheet: Sheet
    weights: Any
    polarities: Any
    criteria: dict[int, Criterion]
    unmeasured: list[Criterion]

    @property
    def project(self) -> Project:
        return self.version.rubric.project

    @property
    def weights_by_id(self) -> dict[str, float]:
        """As a run's configuration keeps them."""
        rows = zip(self.sheet.criteria, self.weights, strict=True)
        return {str(int(pk)): float(weight) for pk, weight in rows if weight}


def basis(version: RubricVersion, in_force: Sequence[Criterion]) -> Basis | None:
    """Of the newest measurement; None for a version that was never measured."""
    measured = version.measurements.select_related("run").order_by("-id").first()
    if measured is None:
        return None
    measured.version = version
    return _basis(measured, {one.pk: one for one in in_force}, {})


def basis_of(measured: RubricMeasurement, weights: dict[int, float]) -> Basis:
    """Of one measurement and the weights that were in force at some time."""
    criteria = measured.version.criteria.filter(pk__in=weights)
    return _basis(measured, {one.pk: one for one in criteria}, weights)


def _basis(
    measured: RubricMeasurement, criteria: dict[int, Criterion], weights: dict[int, float]
) -> Basis:
    sheet = queries.sheet_now(measured, criteria.values()).learned()
    known = [int(pk) for pk in sheet.criteria]
    used = weights or {pk: _weight(one) for pk, one in criteria.items()}
    polarities = [float(criteria[pk].polarity) if pk in criteria else 1.0 for pk in known]
    return Basis(
        version=measured.version,
        measurement=measured.pk,
        since=(measured.run and measured.run.started_at) or measured.created_at,
        sheet=sheet,
        weights=np.array([used.get(pk, 0.0) for pk in known]),
        polarities=np.array(polarities),
        criteria=criteria,
        unmeasured=[one for pk, one in criteria.items() if pk not in known],
    )


def _weight(criterion: Criterion) -> float:
    return float(criterion.polarity if criterion.weight is None else criterion.weight)


def unexplained(sheet: Sheet, weights: Any) -> Unexplained:
    """Of the pairs that can be learned from; one vote is enough where no pair has two."""
    learned = sheet.learned()
    return gaps.unexplained(learned, weights, gaps.enough_votes(learned))


def ids_of(sheet: Sheet, rows: Iterable[int]) -> list[PairIds]:
    """(prompt, chosen, rejected) of rows of a sheet."""
    return [
        (int(sheet.prompts[row]), int(sheet.chosen[row]), int(sheet.rejected[row])) for row in rows
    ]


# Pairs with their texts -----------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """The start of an answer, and its picture where it is one."""

    text: str
    image_id: int | None = None
    alt: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class Shown:
    """A pair with the start of its texts; an answer that is gone is None, as is its task.

    ``is_asked``: a vote is still to come on its task.
    """

    ids: PairIds
    prompt: str
    chosen: Side | None
    rejected: Side | None
    task_id: int | None
    is_asked: bool


@dataclass(frozen=True)
class Row:
    """One pair that is not explained."""

    pair: Shown
    kind: str
    margin: float
    votes_for: int
    votes: int
    speak_for: list[Criterion]
    against: list[Criterion]

    @property
    def label(self) -> str:
        return {SILENT: "silent", CONTRARY: "sure of the other", UNSCORED: "not scored"}[self.kind]


@dataclass(frozen=True)
class Pairs:
    """One page of them. ``next`` is the place to go on from."""

    rows: list[Row]
    next: int | None
    is_first: bool

    @property
    def is_only(self) -> bool:
        return self.is_first and self.next is None


def page(found: Basis, listed: Unexplained, *, after: int | None, size: int = PAGE) -> Pairs:
    """Rows of ``listed`` from the place ``after`` on, with their texts."""
    start = min(after or 0, len(listed))
    end = start + size
    places = range(start, end)
    made = rows(found.project, found.sheet, found.weights, found.criteria, listed, places)
    return Pairs(made, next=end if end < len(listed) else None, is_first=start == 0)


def rows(
    project: Project,
    sheet: Sheet,
    weights: Any,
    criteria: Mapping[int, Criterion],
    listed: Unexplained,
    places: range,
) -> list[Row]:
    """Pairs at some places of a list that was made of this sheet; ends with the list.

    Criteria that are not in ``criteria`` are not named.
    """
    places = range(places.start, min(places.stop, len(listed)))
    at = [int(listed.rows[place]) for place in places]
    made = []
    shown = with_texts(project, ids_of(sheet, at))
    for place, row, pair in zip(places, at, shown, strict=True):
        for_, against = gaps.speakers(sheet, weights, row)
        made.append(
            Row(
                pair=pair,
                kind=KINDS[listed.kinds[place]],
                margin=float(listed.margins[place]),
                votes_for=int(sheet.votes_for[row]),
                votes=int(sheet.votes[row]),
                speak_for=[criteria[pk] for pk in for_ if pk in criteria],
                against=[criteria[pk] for pk in against if pk in criteria],
            )
        )
    return made


def with_texts(project: Project, pairs: Sequence[PairIds]) -> list[Shown]:
    """In the order given, in four statements however many they are."""
    prompts = Prompt.objects.filter(project=project).in_bulk([prompt for prompt, *_ in pairs])
    answers = Response.objects.filter(project=project).select_related("image")
    sides = answers.in_bulk([pk for _, *both in pairs for pk in both])
    tasks = tasks_of(project.pk, pairs)
    return [
        Shown(
            ids=ids,
            prompt=_line(prompts.get(ids[0])),
            chosen=_side(sides.get(ids[1])),
            rejected=_side(sides.get(ids[2])),
            task_id=tasks[ids].task_id if ids in tasks else None,
            is_asked=ids in tasks and tasks[ids].is_asked,
        )
        for ids in pairs
    ]


def _line(prompt: Prompt | None) -> str:
    return "" if prompt is None else summary_line(str(prompt.last_message), LINE)


def _side(response: Response | None) -> Side | None:
    if response is None:
        return None
    text = response.text
    if response.messages:
        text = "\n\n".join(str(turn.get("content", "")) for turn in response.messages)
    alt = response.image.alt if response.image_id and response.image else ""
    return Side(visible(text[:EXCERPT]), response.image_id, alt, is_cut=len(text) > EXCERPT)


@dataclass(frozen=True)
class TaskOf:
    """The task by which people are asked about a pair."""

    task_id: int
    is_asked: bool


# A pair has one task to be asked by: an ordinary one before a gold, one of the two answers alone
# before one of more. What a rubric's checklist asks is of each answer, not of the pair.
TASKS_OF: Final = """
    SELECT w.prompt_id, w.chosen, w.rejected, t.id, t.is_asked
    FROM unnest(%(prompts)s::bigint[], %(chosen)s::bigint[], %(rejected)s::bigint[])
         AS w (prompt_id, chosen, rejected)
    CROSS JOIN LATERAL (
        SELECT t.id, NOT t.is_gold AND (t.free > 0 OR EXISTS (
                   SELECT FROM annotator_assignment a
                   WHERE a.task_id = t.id AND a.state = 'leased')) AS is_asked
        FROM annotator_task t
        WHERE t.project_id = %(project)s AND t.prompt_id = w.prompt_id
          AND t.response_ids @> ARRAY[w.chosen, w.rejected] AND t.rubric_version_id IS NULL
        ORDER BY t.is_gold, t.is_settled, cardinality(t.response_ids), t.kind <> 'pairwise', t.id
        LIMIT 1
    ) t
"""


def tasks_of(project_id: int, pairs: Sequence[PairIds]) -> dict[PairIds, TaskOf]:
    """The task of each pair that has one."""
    values = {
        "project": project_id,
        "prompts": [prompt for prompt, _, _ in pairs],
        "chosen": [chosen for _, chosen, _ in pairs],
        "rejected": [rejected for _, _, rejected in pairs],
    }
    with connection.cursor() as cursor:
        cursor.execute(TASKS_OF, values)
        return {(row[0], row[1], row[2]): TaskOf(row[3], row[4]) for row in cursor.fetchall()}
