"""How far people and the verifier of a criterion say the same, and people among themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from annotator.models import RubricVersion
from models.agreement import Agreement, Ratings, measure
from rubrics.intervals import Accuracy, estimate_accuracy
from rubrics.sheet import Sheet

MOST: Final = 200_000  # people's verdicts that are looked at, the newest first
YES: Final = 0.5  # of a verifier's score
DOES_NOT_APPLY: Final = 2.0  # a third answer, where people are compared with each other
FEWEST_FOR_ALPHA: Final = 10  # responses that two people or more checked
SEED: Final = 0
REPLICATES: Final = 500


@dataclass(frozen=True)
class Checks:
    """What people said of one criterion.

    ``checks`` yes or no answers of people on ``responses`` responses, ``does_not_apply`` more
    answers that it does not. ``confirmed`` of ``compared`` checks say what the verifier says;
    ``confirms`` is that share, its interval by prompt; None where nothing was compared.
    ``people`` is the share of pairs of people on one response who say the same and ``alpha``
    Krippendorff's, each with its interval over responses; None where there is nothing to count,
    alpha also below FEWEST_FOR_ALPHA responses with two people.
    """

    checks: int = 0
    responses: int = 0
    raters: int = 0
    does_not_apply: int = 0
    confirmed: int = 0
    confirms: Accuracy | None = None
    people: Agreement | None = None
    alpha: Agreement | None = None

    @property
    def compared(self) -> int:
        return self.confirms.n if self.confirms else 0


# Of people who count: persons and raters of imports who were not left out.
PEOPLE: Final = """
    SELECT v.criterion_id, v.response_id, r.prompt_id, v.rater_id, v.value
    FROM annotator_criterionverdict v
    JOIN annotator_rater w ON w.id = v.rater_id AND w.kind <> 'judge' AND NOT w.is_excluded
    JOIN annotator_response r ON r.id = v.response_id
    WHERE v.criterion_id = ANY(%(criteria)s)
    ORDER BY v.id DESC LIMIT %(most)s
"""
# One per criterion and response that people checked: of a program or reward model, which have no
# rater, else of the version's own verifier, else of the judge that said it last.
MACHINES: Final = """
    SELECT DISTINCT ON (v.criterion_id, v.response_id)
           v.criterion_id, v.response_id, coalesce(v.probability, v.value)
    FROM annotator_criterionverdict v
    LEFT JOIN annotator_rater w ON w.id = v.rater_id
    WHERE v.criterion_id = ANY(%(criteria)s) AND v.response_id = ANY(%(responses)s)
      AND (v.rater_id IS NULL OR w.kind = 'judge') AND coalesce(v.probability, v.value) IS NOT NULL
    ORDER BY v.criterion_id, v.response_id, v.rater_id IS NOT NULL,
             v.rater_id IS DISTINCT FROM %(verifier)s, v.id DESC
"""


def checks(version: RubricVersion, sheet: Sheet | None = None) -> dict[int, Checks]:
    """Per criterion that anybody checked. What ``sheet`` measured comes before stored verdicts."""
    criteria = list(version.criteria.values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(PEOPLE, {"criteria": criteria, "most": MOST})
        rows = cursor.fetchall()
        if not rows:
            return {}
        given = np.array(
            [(*row[:4], np.nan if row[4] is None else row[4]) for row in rows], dtype=np.float64
        )
        scores = _stored(cursor, version, criteria, np.unique(given[:, 1]).astype(int).tolist())
    if sheet is not None:
        scores |= _measured(sheet, wanted=set(given[:, 1].astype(int).tolist()))
    return {int(pk): _checks(given[given[:, 0] == pk], scores) for pk in np.unique(given[:, 0])}


def _stored(
    cursor: Any, version: RubricVersion, criteria: list[int], responses: list[int]
) -> dict[tuple[int, int], float]:
    verifier = version.verifier.rater_id if version.verifier else None
    cursor.execute(MACHINES, {"criteria": criteria, "responses": responses, "verifier": verifier})
    return {(row[0], row[1]): float(row[2]) for row in cursor.fetchall()}


def _measured(sheet: Sheet, *, wanted: set[int]) -> dict[tuple[int, int], float]:
    """Scores of a sheet by criterion and response; what was not asked is not in there."""
    found: dict[tuple[int, int], float] = {}
    for side, ids in enumerate((sheet.chosen, sheet.rejected)):
        for row in np.flatnonzero(np.isin(ids, list(wanted))):
            scores = sheet.scores[row, side]
            for at in np.flatnonzero(~np.isnan(scores)):
                found[int(sheet.criteria[at]), int(ids[row])] = float(scores[at])
    return found


def _checks(given: NDArray[np.float64], scores: dict[tuple[int, int], float]) -> Checks:
    """Of one criterion; rows (criterion, response, prompt, rater, value), NaN: does not apply."""
    said = given[~np.isnan(given[:, 4])]
    score = np.array(
        [scores.get((int(row[0]), int(row[1])), np.nan) for row in said], dtype=np.float64
    )
    known = ~np.isnan(score)
    agrees = (score[known] >= YES) == (said[known, 4] == 1)
    people, alpha = _among(given)
    return Checks(
        checks=len(said),
        responses=len(np.unique(given[:, 1])),
        raters=len(np.unique(given[:, 3])),
        does_not_apply=len(given) - len(said),
        confirmed=int(agrees.sum()),
        confirms=estimate_accuracy(agrees.astype(float), said[known, 2], seed=SEED),
        people=people,
        alpha=alpha,
    )


def _among(given: NDArray[np.float64]) -> tuple[Agreement | None, Agreement | None]:
    values = np.where(np.isnan(given[:, 4]), DOES_NOT_APPLY, given[:, 4])
    ratings = Ratings.of(given[:, 1], given[:, 3], values)
    share = measure(ratings, statistic="percent", replicates=REPLICATES, seed=SEED)
    if share.value is None:
        return None, None
    alpha = None
    if share.n_units_paired >= FEWEST_FOR_ALPHA:
        alpha = measure(ratings, statistic="alpha", replicates=REPLICATES, seed=SEED)
    return share, alpha if alpha is not None and alpha.value is not None else None


@dataclass(frozen=True)
class Made:
    """Tasks of a version: how many there are, the judgments asked for and given."""

    tasks: int = 0
    wanted: int = 0
    judged: int = 0
    done: int = 0  # tasks with all their judgments
    responses: int = 0
    open: int = 0  # places that nobody holds

    @property
    def percent(self) -> int:
        return int(100 * self.judged / self.wanted) if self.wanted else 0


MADE: Final = """
    SELECT count(*), coalesce(sum(CASE WHEN is_gold THEN judged ELSE overlap END), 0),
           coalesce(sum(judged), 0), count(*) FILTER (WHERE judged >= overlap),
           coalesce(sum(cardinality(response_ids)), 0), coalesce(sum(greatest(free, 0)), 0)
    FROM annotator_task WHERE project_id = %s AND rubric_version_id = %s
"""


def made(version: RubricVersion) -> Made:
    """How far people are with the tasks of a version."""
    with connection.cursor() as cursor:
        cursor.execute(MADE, [version.rubric.project_id, version.pk])
        return Made(*map(int, cursor.fetchone()))
