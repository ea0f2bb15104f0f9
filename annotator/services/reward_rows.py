"""Scores and verdicts as rows: a chunk in one transaction, the same rows where it is done again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from django.db import connection, transaction
from numpy.typing import NDArray

from annotator.errors import Conflict, NotFound
from annotator.models import RewardScore, RubricVersion
from annotator.queries.reward_scores import BASIS
from annotator.services import ensembles, runs
from annotator.services.ensembles import Scored, Way

VERDICTS: Final = """
    INSERT INTO annotator_criterionverdict AS v
        (criterion_id, response_id, rater_id, value, probability, call_key, at)
    SELECT x.criterion, x.response, x.rater, x.value, x.probability, decode(x.key, 'hex'),
           clock_timestamp()
    FROM unnest(%(criteria)s::bigint[], %(responses)s::bigint[], %(raters)s::bigint[],
                %(values)s::smallint[], %(probabilities)s::float8[], %(keys)s::text[])
        AS x (criterion, response, rater, value, probability, key)
    ORDER BY x.criterion, x.response
    ON CONFLICT (criterion_id, response_id, rater_id) DO UPDATE
    SET value = excluded.value, probability = excluded.probability, call_key = excluded.call_key,
        at = excluded.at
"""
SCORES: Final = """
    INSERT INTO annotator_rewardscore (project_id, response_id, {source}_id, mean, variance, at)
    SELECT %(project)s, x.response, %(of)s, x.mean, x.variance, clock_timestamp()
    FROM unnest(%(responses)s::bigint[], %(means)s::float8[], %(variances)s::float8[])
        AS x (response, mean, variance)
    ORDER BY x.response
    ON CONFLICT ({source}_id, response_id) WHERE {source}_id IS NOT NULL DO UPDATE
    SET mean = excluded.mean, variance = excluded.variance, at = excluded.at
"""
SWEPT_AT_ONCE: Final = 20_000


class Said(NamedTuple):
    """One verdict. ``yes`` and ``neither`` are probabilities; ``rater`` None for a program."""

    criterion: int
    response: int
    rater: int | None
    yes: float
    neither: float
    key: bytes | None = None

    @property
    def value(self) -> int | None:
        """1 yes, 0 no, None does not apply: whichever is the likeliest."""
        no = 1 - self.yes - self.neither
        if self.neither >= max(self.yes, no):
            return None
        return int(self.yes >= no)


def write_rubric(
    work: runs.Work,
    version: RubricVersion,
    basis: dict[str, Any],
    said: Sequence[Said],
    responses: Sequence[int],
    rewards: NDArray[np.float64],
) -> None:
    """Verdicts and the rewards (n,) of responses (n,). Raises LostRun, NotFound, Conflict."""
    with transaction.atomic():
        work.heartbeat()
        _require_basis(version, basis)
        with connection.cursor() as cursor:
            if said:
                cursor.execute(VERDICTS, _columns(said))
            scored = Scored(rewards, None)
            _write_scores(cursor, "rubric_version", version.pk, work, responses, scored)


def write_model(
    work: runs.Work, model_id: int, responses: Sequence[int], scored: Scored, *, way: Way
) -> None:
    """What a reward model says of responses (n,). Raises LostRun, NotFound, Conflict."""
    with transaction.atomic(), connection.cursor() as cursor:
        work.heartbeat()
        ensembles.hold(model_id, way)
        _write_scores(cursor, "reward_model", model_id, work, responses, scored)


def settle_basis(version: RubricVersion, basis: dict[str, Any]) -> bool:
    """Make this the way in which the version's rewards are counted; whether it was another.

    Rewards of the other way are deleted: two kinds of number never stand in one column. A crash
    in between leaves the version without a way, and what is left is deleted by the next run.
    """
    with transaction.atomic():
        fresh = RubricVersion.objects.select_for_update(no_key=True).filter(pk=version.pk).first()
        if fresh is None:
            raise NotFound("This version is not there any more.")
        if fresh.figures.get(BASIS) == basis:
            return False
        _set_basis(version.pk, {})
    while _sweep(version.pk):
        pass
    with transaction.atomic():
        RubricVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        while _sweep(version.pk):  # what another run wrote before it noticed
            pass
        _set_basis(version.pk, basis)
    return True


def _sweep(version_id: int) -> int:
    rows = RewardScore.objects.filter(rubric_version=version_id).values("pk")[:SWEPT_AT_ONCE]
    return RewardScore.objects.filter(pk__in=rows).delete()[0]


def _set_basis(version_id: int, basis: dict[str, Any]) -> None:
    """One key of the figures, whoever writes the others meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotator_rubricversion SET figures = figures || %s::jsonb WHERE id = %s",
            [orjson.dumps({BASIS: basis}).decode(), version_id],
        )


def _require_basis(version: RubricVersion, basis: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (figures -> %s)::text FROM annotator_rubricversion WHERE id = %s FOR SHARE",
            [BASIS, version.pk],
        )
        found = cursor.fetchone()
    if found is None:
        raise NotFound("This version is not there any more.")
    if orjson.loads(found[0] or "null") != basis:
        raise Conflict(
            "Another run scores this version in another way.",
            advice="Wait for it to end, then start this one again.",
        )


def _write_scores(
    cursor: Any,
    source: str,
    pk: int,
    work: runs.Work,
    responses: Sequence[int],
    scored: Scored,
) -> None:
    n = len(responses)
    values = {
        "project": work.run.project_id, "of": pk, "responses": list(responses),
        "means": scored.scores.tolist(),
        "variances": [None] * n if scored.variance is None else scored.variance.tolist(),
    }  # fmt: skip
    cursor.execute(SCORES.format(source=source), values)


def _columns(said: Sequence[Said]) -> dict[str, list[Any]]:
    return {
        "criteria": [one.criterion for one in said],
        "responses": [one.response for one in said],
        "raters": [one.rater for one in said],
        "values": [one.value for one in said],
        "probabilities": [one.yes for one in said],
        "keys": [one.key.hex() if one.key else None for one in said],
    }
