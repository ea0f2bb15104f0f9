"""How often a reward orders the pairs of the test split as people do: alone, and added to a model.

The pairs are drawn once, when a version was scored, and kept beside its run: a page then looks up
the scores of a few thousand responses and counts no votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from annotator.models import Project, RewardModel, RubricVersion, Split
from annotator.queries import preference_pairs
from annotator.queries import reward_scores as scores
from annotator.queries.pairs import Selection
from rubrics.intervals import Accuracy, estimate_accuracy
from rubrics.rewards import EVEN, Scaling, combine

MOST: Final = 5_000
FILE: Final = "test-pairs.npy"


def keep(project: Project, version: RubricVersion, *, folder: Path) -> int:
    """Write the decided test pairs of which both sides have a reward; how many there are."""
    sides = preference_pairs.chosen(project, Selection(splits=(Split.TEST,)), most=MOST)
    known = scores.rubric_scores(
        version.pk, sorted({pk for one in sides for pk in (one.chosen_id, one.rejected_id)})
    )
    rows = [
        (one.prompt_id, one.chosen_id, one.rejected_id)
        for one in sides
        if one.chosen_id in known and one.rejected_id in known
    ]
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{FILE}.tmp"
    with draft.open("wb") as file:
        np.save(file, np.array(rows, dtype=np.int64).reshape(-1, 3), allow_pickle=False)
    draft.replace(folder / FILE)
    return len(rows)


@dataclass(frozen=True)
class Beside:
    """Accuracies on ``n`` test pairs of which both sides have both scores."""

    n: int
    model: Accuracy | None
    rubric: Accuracy | None
    both: Accuracy | None
    scaling: Scaling | None


def beside(
    version: RubricVersion, model: RewardModel, *, folder: Path, weight: float
) -> Beside | None:
    """The rubric, the model, and both together. None where the pairs are not kept any more.

    The rubric is brought to the model's spread within prompts, over all responses each has scored.
    """
    try:
        pairs = np.load(folder / FILE, allow_pickle=False)
    except (OSError, ValueError):
        return None
    ids = sorted({int(pk) for pk in pairs[:, 1:].ravel()})
    of_model, of_rubric = scores.model_scores(model.pk, ids), scores.rubric_scores(version.pk, ids)
    models, rubric = _sides(pairs, of_model), _sides(pairs, of_rubric)
    known = ~np.isnan(models + rubric).any(axis=1)
    prompts, models, rubric = pairs[known, 0], models[known], rubric[known]
    scaling = scaling_between(version, model)
    both = None
    if scaling is not None:
        both = combine(models, rubric, weight=weight, scaling=scaling)
    return Beside(
        n=int(known.sum()),
        model=_accuracy(models, prompts),
        rubric=_accuracy(rubric, prompts),
        both=None if both is None else _accuracy(both, prompts),
        scaling=scaling,
    )


def scaling_between(version: RubricVersion, model: RewardModel) -> Scaling | None:
    """What brings rewards of a version to a model's spread; None where either has none."""
    found = [_known_summary(version), _known_summary(reward_model=model)]
    if any(one is None for one in found):
        return None
    rubric, other = (one or {} for one in found)
    if min(rubric["spread"], other["spread"]) < EVEN:
        return None
    return Scaling(rubric["mean"], rubric["spread"] / other["spread"])


def _known_summary(
    version: RubricVersion | None = None, *, reward_model: RewardModel | None = None
) -> dict[str, float] | None:
    run = scores.last_done(version, reward_model=reward_model)
    return run.result["summary"] if run is not None else None


def _sides(pairs: NDArray[np.int64], known: dict[int, float]) -> NDArray[np.float64]:
    """Scores of chosen and rejected (n, 2), NaN where there is none."""
    return np.array(
        [[known.get(int(pk), np.nan) for pk in row[1:]] for row in pairs], dtype=np.float64
    ).reshape(-1, 2)


def _accuracy(sides: NDArray[np.float64], prompts: NDArray[np.int64]) -> Accuracy | None:
    margins = sides[:, 0] - sides[:, 1]
    even = np.abs(margins) <= EVEN
    return estimate_accuracy((margins > EVEN).astype(float), prompts, seed=0, ties=int(even.sum()))
