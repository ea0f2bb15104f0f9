"""What trying a rubric reads: a stored pair, what people said of it, what is known of its answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db import connection
from django.db.models import Count, Q

from annotator.models import (
    Criterion,
    CriterionVerdict,
    Judge,
    Project,
    Prompt,
    Rater,
    Response,
    RewardModel,
    RewardScore,
    RubricVersion,
    Run,
    Split,
)
from annotator.queries.runs import ACTIVE
from rubrics.judging import ASKING

MOST_JUDGES: Final = 100  # offered in a form
MOST_DIGITS: Final = 9  # of a reward model's number


@dataclass(frozen=True)
class Stored:
    """A prompt of a project and one or two of its responses, with their images."""

    prompt: Prompt
    responses: tuple[Response, ...]


def stored(project: Project, response_ids: Sequence[int]) -> Stored | None:
    """Responses to one prompt of the project, in the order given; None where they are not that."""
    rows = Response.objects.filter(project=project, pk__in=response_ids)
    found = {one.pk: one for one in rows.select_related("prompt", "image")}
    if len(found) < len(response_ids) or len({one.prompt_id for one in found.values()}) != 1:
        return None
    responses = tuple(found[pk] for pk in response_ids)
    return Stored(responses[0].prompt, responses)


ENDS: Final = """
    SELECT min(prompt_id), max(prompt_id) FROM annotator_preference WHERE project_id = %s
"""
# Along the index of a project's pairs: what is read is as long as the way to the next test prompt.
NEXT: Final = """
    SELECT v.a_id, v.b_id FROM annotator_preference v
    JOIN annotator_prompt q ON q.id = v.prompt_id AND q.split = %(test)s
    WHERE v.project_id = %(project)s AND v.prompt_id >= %(start)s
      AND NOT v.is_gold AND NOT v.is_overruled AND NOT v.is_held
    ORDER BY v.prompt_id, v.a_id, v.b_id LIMIT 1
"""


def random_pair(project: Project) -> tuple[int, int] | None:
    """Two responses that somebody compared, of the test split; None where there are none."""
    with connection.cursor() as cursor:
        cursor.execute(ENDS, [project.pk])
        low, high = cursor.fetchone()
        if low is None:
            return None
        values = {"project": project.pk, "test": Split.TEST}
        for start in (random.randint(low, high), low):
            cursor.execute(NEXT, values | {"start": start})
            if row := cursor.fetchone():
                return int(row[0]), int(row[1])
    return None


VOTES: Final = """
    SELECT count(*) FILTER (WHERE won = 1), count(*) FILTER (WHERE won = -1),
           count(*) FILTER (WHERE won = 0)
    FROM (
        SELECT CASE WHEN v.a_id = %(a)s THEN v.outcome ELSE -v.outcome END AS won
        FROM annotator_preference v
        JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> %(judge)s AND NOT r.is_excluded
        WHERE v.project_id = %(project)s AND v.prompt_id = %(prompt)s
          AND (v.a_id, v.b_id) IN ((%(a)s, %(b)s), (%(b)s, %(a)s))
          AND NOT v.is_gold AND NOT v.is_overruled
    ) votes
"""


def votes(project: Project, pair: Stored) -> dict[str, int] | None:
    """How many people prefer the first, the second, neither; None where nobody compared them."""
    a, b = pair.responses
    values = {"project": project.pk, "prompt": pair.prompt.pk, "a": a.pk, "b": b.pk}
    with connection.cursor() as cursor:
        cursor.execute(VOTES, values | {"judge": Rater.Kind.JUDGE})
        found = dict(zip(("a", "b", "ties"), map(int, cursor.fetchone()), strict=True))
    return found if any(found.values()) else None


@dataclass(frozen=True)
class Voices:
    """What people said of one response under one criterion."""

    yes: int
    no: int
    not_applicable: int

    @property
    def total(self) -> int:
        return self.yes + self.no + self.not_applicable


def people(
    criteria: Sequence[Criterion], responses: Sequence[Response]
) -> dict[tuple[int, int], Voices]:
    """(criterion, response) -> what people said, where any did."""
    rows = CriterionVerdict.objects.filter(  # whose verdicts reward_scores.people_say counts
        criterion__in=criteria,
        response__in=responses,
        rater__kind__in=(Rater.Kind.HUMAN, Rater.Kind.IMPORTED),
        rater__is_excluded=False,
    )
    counted = rows.values("criterion_id", "response_id").annotate(
        yes=Count("pk", filter=Q(value=1)),
        no=Count("pk", filter=Q(value=0)),
        neither=Count("pk", filter=Q(value=None)),
    )
    return {
        (row["criterion_id"], row["response_id"]): Voices(row["yes"], row["no"], row["neither"])
        for row in counted.order_by()
    }


@dataclass(frozen=True)
class Standing:
    """Where a response stands: a reward model scores ``below`` of its ``of`` responses lower."""

    name: str
    below: int
    of: int


def standing(project: Project, number: str, response: Response) -> Standing | None:
    """None where there is no such reward model, or it has not scored the response."""
    if not (number.isascii() and number.isdecimal() and len(number) <= MOST_DIGITS):
        return None
    model = RewardModel.objects.filter(project=project, number=int(number)).first()
    if model is None:
        return None
    rows = RewardScore.objects.filter(reward_model=model)
    own = rows.filter(response=response).values_list("mean", flat=True).first()
    if own is None:
        return None
    counted = rows.aggregate(of=Count("pk"), below=Count("pk", filter=Q(mean__lt=own)))
    return Standing(model.name, counted["below"], counted["of"])


def askable(project: Project) -> list[Judge]:
    """Judges whose endpoint and model can be asked, the newest versions first by name."""
    rows = Judge.objects.filter(
        project=project, kind__in=ASKING, archived_at=None, endpoint__archived_at=None
    )
    return list(rows.select_related("endpoint").order_by("name", "-version")[:MOST_JUDGES])


def find_run(version: RubricVersion, run_id: int) -> Run | None:
    """The run that tries this version."""
    rows = Run.objects.filter(project_id=version.rubric.project_id, kind=Run.Kind.TRY)
    return rows.filter(pk=run_id, config__version=version.pk).defer("log").first()


def under_way(project: Project) -> int:
    """How many tries of a project are not done yet."""
    return Run.objects.filter(project=project, kind=Run.Kind.TRY, state__in=ACTIVE).count()
