"""Ensembles: how their members become one score, the same for all that is stored of a model.

A RewardScore's ``mean`` is the score made in the model's way, the mean of its members if nobody chose
another; ``variance`` is that of the members, each in its own standard deviations. The way stands
with the model. Whoever chooses another one deletes the scores of the former, so two kinds of number
never stand in one column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from django.db import connection, transaction
from numpy.typing import NDArray

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import RewardModel, RewardScore
from annotator.services import training
from models import gateway, transforms
from models.transforms import COMBINATIONS, PENALTY

Floats = NDArray[np.float64]

WAY: Final = "combined"  # key of RewardModel.metrics
LARGEST_PENALTY: Final = 100.0


@dataclass(frozen=True)
class Way:
    """How one score is made of members' (models.transforms.combine)."""

    combine: str = "mean"
    penalty: float = PENALTY

    @classmethod
    def checked(cls, combine: str = "mean", penalty: float | None = None) -> Way:
        """Raises Invalid. A penalty that matters to nothing is the default one."""
        if combine not in COMBINATIONS:
            raise Invalid(f"Combine members by {', '.join(COMBINATIONS)}, not {combine[:40]!r}.")
        if penalty is None or combine != "penalized":
            return cls(combine)
        if not (math.isfinite(penalty) and 0 <= penalty <= LARGEST_PENALTY):
            raise Invalid(f"A penalty is between 0 and {LARGEST_PENALTY:g}.")
        return cls(combine, penalty)

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Way:
        return cls(values["combine"], values["penalty"]) if values else cls()

    def of(self, members: Floats) -> Floats:
        """Scores (n,) of those of members (k, n)."""
        return transforms.combine(members, self.combine, penalty=self.penalty)

    def as_json(self) -> dict[str, Any]:
        return {"combine": self.combine, "penalty": self.penalty}

    def __str__(self) -> str:
        return {
            "mean": "the mean of its members",
            "worst": "its least convinced member",
            "penalized": f"the mean of its members less {self.penalty:g} times their variance",
        }[self.combine]


class Scored(NamedTuple):
    """Scores (n,), NaN where there is none; ``variance`` None for a single model."""

    scores: Floats
    variance: Floats | None

    def where(self, rows: NDArray[np.bool_]) -> Scored:
        """Those of the rows (n,) chosen."""
        return Scored(self.scores[rows], None if self.variance is None else self.variance[rows])


def unit_of(model: RewardModel) -> float:
    """What a difference of 1 in score is in the unit of the loss, such as log-odds."""
    return float((model.metrics.get("ensemble") or {}).get("unit", 1.0))


def way_of(model: RewardModel) -> Way:
    """In what way its stored scores are made, as far as ``model`` was read."""
    return Way.from_json(model.metrics.get(WAY))


def require_fit(model: RewardModel, way: Way) -> None:
    """Raises Invalid where there are no members to combine."""
    if way.combine != "mean" and model.members == 1:
        raise Invalid(
            f"{model} is one model: there are no members to combine by {way.combine}.",
            advice="Train with several members, or leave the combination at mean.",
        )


def ask_members(model: RewardModel, asked: Sequence[Any], *, check: Callable[[], None]) -> Floats:
    """What each of k members says of (prompt, answer), (k, n), NaN where one says nothing; by the
    child process that holds the model. Raises ModelsError."""
    k = model.members
    if not asked:
        return np.zeros((k, 0))
    request = {
        "method": "reward-members" if k > 1 else "reward-model",
        "folder": str(training.artifact_folder(model)),
        "embeddings": str(training.embeddings_folder()),
        "asked": list(asked),
    }
    told = gateway.score_in_child(request, check=check)["scores"]
    return np.array([np.nan if one is None else one for one in told]).reshape(k, len(asked))


def ask(model: RewardModel, asked: Sequence[Any], *, way: Way, check: Callable[[], None]) -> Scored:
    """Scores of (prompt, answer), made of members' in one way. Raises ModelsError."""
    table = ask_members(model, asked, check=check)
    if len(table) == 1:
        return Scored(table[0], None)
    return Scored(way.of(table), transforms.ensemble_variance(table))


def settle(model: RewardModel, way: Way) -> bool:
    """Make this the way of the model's stored scores; whether it was another.

    What was stored in the other way is deleted with it.
    """
    with transaction.atomic():
        fresh = RewardModel.objects.select_for_update(no_key=True).filter(pk=model.pk).first()
        if fresh is None:
            raise NotFound("This reward model is not there any more.")
        if way_of(fresh) == way:
            return False
        RewardScore.objects.filter(reward_model=fresh).delete()
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE annotator_rewardmodel SET metrics = metrics || %s::jsonb WHERE id = %s",
                [orjson.dumps({WAY: way.as_json()}).decode(), fresh.pk],
            )
    return True


def hold(model_id: int, way: Way) -> None:
    """In a transaction: nobody changes the way until it ends. Raises NotFound, Conflict."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (metrics -> %s)::text FROM annotator_rewardmodel WHERE id = %s FOR SHARE",
            [WAY, model_id],
        )
        found = cursor.fetchone()
    if found is None:
        raise NotFound("This reward model is not there any more.")
    if Way.from_json(orjson.loads(found[0] or "null")) != way:
        raise Conflict("Its scores are made in another way since.", advice="Start the run again.")
