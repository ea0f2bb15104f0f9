"""The columns of reward models and of raters' ratings that variants of DPO read, one class each."""

from __future__ import annotations

from math import exp
from typing import Any, Final

import numpy as np
import psycopg

from annotator.exporters.files import Row
from annotator.exporters.model_scores import Scores, held_out_slope
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.reward_columns import ModelFacts
from annotator.exporters.verdicts import Decided
from annotator.models import Project
from annotator.queries.pair_texts import Batch
from annotator.queries.training_rows import attributes_of, ratings_of
from models.margins import FEWEST, Madpo, Slope

PLACES: Final = 6
OTHER: Final = {"chosen": "rejected", "rejected": "chosen"}


def sides(what: str, kind: str = "float") -> dict[str, str]:
    return {f"chosen_{what}": kind, f"rejected_{what}": kind}


def turned(cells: Row, columns: dict[str, str]) -> Row:
    """What chosen had is rejected's."""
    named = ((name, *name.split("_", 1)) for name in columns)
    return {name: cells[f"{OTHER[side]}_{what}"] for name, side, what in named}


class Reward01:
    """The rewards of the row, which stand beside these, on a scale from 0 to 1."""

    key = "reward01"
    columns: Final = sides("reward01")

    def __init__(self, options: ExportOptions, model: ModelFacts) -> None:
        self._how, self._model = options.reward01, model
        scale = model.scaling
        self._low, self._high = ((end - scale.center) / scale.scale for end in model.range)

    def of(self, cells: Row) -> Row:
        return {f"{side}_reward01": self._bounded(cells[f"{side}_reward"]) for side in OTHER}

    def _bounded(self, reward: float | None) -> float | None:
        if reward is None:
            return None
        if self._how == "logistic":
            return round(1 / (1 + exp(-max(min(reward, 500.0), -500.0))), PLACES)
        size = self._high - self._low
        return round(min(max((reward - self._low) / size, 0.0), 1.0), PLACES) if size > 0 else 0.5

    def constants(self) -> dict[str, Any]:
        if self._how == "logistic":
            return {"method": "logistic of the standardized reward"}
        low, high = self._model.range
        return {"method": "min-max", "lowest": low, "highest": high}


class MadpoWeight:
    """models.margins.Madpo of the signed margin, for both directions of every pair at once."""

    key = "madpo-weight"
    columns: Final = {"madpo_weight": "float"}

    def __init__(self, project: Project, options: ExportOptions, model: ModelFacts) -> None:
        self._project, self._options, self._model = project, options, model
        self._madpo = Madpo(
            options.madpo_largest,
            options.madpo_least,
            options.madpo_steepness,
            options.madpo_threshold,
        )
        self._slope: Slope | None = None

    def learn(self, connection: psycopg.Connection, *, before: MadpoWeight | None = None) -> None:
        """``before``: one of the same snapshot that has learned."""
        if before is not None:
            self._slope = before._slope
        elif self._options.madpo_margin == "calibrated":
            self._slope = held_out_slope(
                self._project, self._options, self._model, connection=connection
            )

    def look_up(self, batch: Batch, scores: Scores) -> dict[tuple[int, int], tuple[float, float]]:
        """Weights of the pairs whose answers are scored: where a is chosen, where b is."""
        of = scores.of[self._model.id]
        known = [p for p in batch.pairs if p.a_id in of and p.b_id in of]
        slope = self._slope.slope if self._slope else 1.0
        margins = slope * np.array([of[p.a_id][0] - of[p.b_id][0] for p in known])
        both = (self._madpo.weight(side).round(PLACES).tolist() for side in (margins, -margins))
        return {
            (p.a_id, p.b_id): two for p, two in zip(known, zip(*both, strict=True), strict=True)
        }

    def both(
        self, looked: dict[tuple[int, int], tuple[float, float]], one: Decided
    ) -> tuple[float | None, float | None]:
        """The weight of the row and of the row in the other direction."""
        two = looked.get((one.pair.a_id, one.pair.b_id))
        if two is None:
            return None, None
        return two if one.chosen.id == one.pair.a_id else two[::-1]

    def constants(self) -> dict[str, Any]:
        one = self._madpo
        found: dict[str, Any] = {
            "formula": "sigmoid(c g) / sigmoid(g) where g > -tau, else 1",
            "c_max": one.largest,
            "c_min": one.least,
            "lambda": one.steepness,
            "tau": one.threshold,
            "model": self._model.name,
            "calibrated": self._slope is not None,
        }
        if self._slope is not None:
            return found | {"margins": self._slope.as_dict() | {"learned_on": "validation, test"}}
        if self._options.madpo_margin == "raw":
            return found | {"why": "as asked: margins are the model's own"}
        return found | {
            "why": f"fewer than {FEWEST} scored pairs of the validation and test splits, or no"
            " temperature is best: margins are the model's own"
        }


class Variance:
    """RewardScore.variance of both answers."""

    key = "variance"
    columns: Final = sides("variance")

    def __init__(self, model: ModelFacts) -> None:
        self._model = model

    def of(self, scores: Scores, one: Decided) -> Row:
        of, nothing = scores.of[self._model.id], (None, None)
        return {
            "chosen_variance": of.get(one.chosen.id, nothing)[1],
            "rejected_variance": of.get(one.rejected.id, nothing)[1],
        }

    def constants(self) -> dict[str, Any]:
        return {"model": self._model.name}


class Strength:
    """Mean and spread of the standardized margins of several models. Source:
    Wang et al. 2024, Secrets of RLHF Part II, arXiv 2401.06080."""

    key = "strength"
    columns: Final = {"strength": "float", "strength_sd": "float"}

    def __init__(self, models: list[ModelFacts]) -> None:
        self._models = models

    def of(self, margins: list[float | None]) -> Row:
        known = [one for one in margins if one is not None]
        if len(known) < len(margins):
            return {"strength": None, "strength_sd": None}
        mean = sum(known) / len(known)
        spread = (sum((one - mean) ** 2 for one in known) / len(known)) ** 0.5
        return {"strength": round(mean, PLACES), "strength_sd": round(spread, PLACES)}

    def flipped(self, cells: Row) -> Row:
        mean = cells["strength"]
        return {"strength": None if mean is None else -mean, "strength_sd": cells["strength_sd"]}

    def constants(self) -> dict[str, Any]:
        return {"models": [one.name for one in self._models]}


class Ratings:
    """Mean ratings by people, an object of every attribute, null where nobody said."""

    key = "ratings"
    columns: Final = sides("ratings", "json")

    def __init__(self, project: Project, connection: psycopg.Connection) -> None:
        self._project = project
        self.attributes = attributes_of(project, connection=connection)

    def look_up(self, batch: Batch, connection: psycopg.Connection) -> dict[int, dict[str, float]]:
        prompts = {pair.prompt_id for pair in batch.pairs}
        return ratings_of(self._project, prompts, self.attributes, connection=connection)

    def of(self, looked: dict[int, dict[str, float]], one: Decided) -> Row:
        return {
            "chosen_ratings": self._of(looked, one.chosen.id),
            "rejected_ratings": self._of(looked, one.rejected.id),
        }

    def _of(self, looked: dict[int, dict[str, float]], pk: int) -> dict[str, float | None] | None:
        said = looked.get(pk)
        if not said:
            return None
        found = ((name, said.get(name)) for name in self.attributes)
        return {name: None if mean is None else round(mean, PLACES) for name, mean in found}

    def constants(self) -> dict[str, Any]:
        return {"attributes": self.attributes}
