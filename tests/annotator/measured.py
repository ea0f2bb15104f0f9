"""A version of a rubric with a measurement, as pages and services find one."""

from __future__ import annotations

from typing import Any

import numpy as np

from annotator.models import (
    Criterion,
    CriterionEvidence,
    Project,
    Rubric,
    RubricMeasurement,
    RubricVersion,
)
from rubrics.sheet import Sheet
from tests import factories

TEXTS = ("It names a source.", "It is short.", "It apologizes.", "It has a list.")


def version_of(project: Project, *, texts: tuple[str, ...] = TEXTS, **fields: Any) -> RubricVersion:
    """A draft of a rubric of its own."""
    rubric = Rubric.objects.create(project=project, name=f"Rubric {project.rubrics.count() + 1}")
    version = RubricVersion.objects.create(rubric=rubric, number=1, **fields)
    for position, text in enumerate(texts):
        Criterion.objects.create(
            version=version, position=position, text=text, polarity=-1 if "apolog" in text else 1
        )
    return version


def sheet_of(version: RubricVersion, *, pairs: int = 12, held: int = 6) -> Sheet:
    """Pairs with tasks and votes; the first criterion is always right, the others by place."""
    project = version.rubric.project
    criteria = list(version.criteria.order_by("position"))
    rater = factories.rater(project)
    rows = []
    for at in range(pairs):
        prompt = factories.prompt(project, split="test" if at < held else "train")
        task = factories.pairwise_task(project, of=prompt, texts=(f"good {at}", f"bad {at}"))
        factories.judgment(rater, task, rationale=f"because of {at}")
        rows.append((task.prompt_id, *task.response_ids))
    prompts, chosen, rejected = (np.array(column) for column in zip(*rows, strict=True))
    scores = np.full((pairs, 2, len(criteria)), 0.5, dtype=np.float32)
    for place, one in enumerate(criteria):
        right = np.arange(pairs) % (place + 1) == 0
        scores[:, 0, place] = np.where(right, 0.9, 0.1) if one.polarity > 0 else 0.1
        scores[:, 1, place] = np.where(right, 0.1, 0.9) if one.polarity > 0 else 0.9
    return Sheet(
        criteria=np.array([one.pk for one in criteria]),
        prompts=prompts,
        chosen=chosen,
        rejected=rejected,
        votes_for=np.ones(pairs, dtype=np.int64),
        votes=np.ones(pairs, dtype=np.int64),
        is_held=np.arange(pairs) < held,
        scores=scores,
    )


def estimate(value: float, n: int = 6) -> dict[str, Any]:
    return {
        "value": value,
        "low": max(0, value - 0.1),
        "high": min(1, value + 0.1),
        "n": n,
        "ties": 0,
    }


def figures_of(version: RubricVersion) -> dict[str, Any]:
    """What a measurement says, in the form that pages read."""
    ids = list(version.criteria.order_by("position").values_list("pk", flat=True))
    weights = [round(1.5 - 0.7 * at, 2) for at in range(len(ids))]
    return {
        "n_learned": 6,
        "n_held": 6,
        "criteria": {
            str(pk): {
                "support": 1234 + at,
                "with_vote": 1000,
                "against": 234 + at,
                "coverage": estimate(0.4),
                "precision": estimate(0.8),
                "contribution": {"value": 0.012, "low": -0.01, "high": 0.03},
                "fitted": {
                    "weight": weights[at], "low": weights[at] - 0.3, "high": weights[at] + 0.3,
                    "frequency": 0.9,
                },
                "redundancy": {"criterion": ids[0], "r": 0.91} if at == 1 else None,
            }
            for at, pk in enumerate(ids)
        },
        "held_out": {
            "rubric": estimate(0.75),
            "equal": estimate(0.7),
            "parent": None,
            "judge": estimate(0.66),
            "judge.rubric": estimate(0.72),
            "reward-model": None,
            "length": estimate(0.5),
            "human_ceiling": estimate(0.8),
        },
        "position": {
            "judge": {"gap": {"value": 0.3, "low": 0.2, "high": 0.4}},
            "judge.rubric": {"gap": {"value": 0.1, "low": 0.0, "high": 0.2}},
        },
        "path": {
            "criteria": ids,
            "points": [
                {"c": 0.01, "weights": [0.0] * len(ids), "accuracy": None},
                {"c": 0.1, "weights": [w / 2 for w in weights], "accuracy": None},
                {"c": 1.0, "weights": weights, "accuracy": None},
            ],
            "at": 1,
        },
        "missing": {"reward-model": "No reward model is trained."},
    }  # fmt: skip


def measure(version: RubricVersion, **sizes: int) -> RubricMeasurement:
    """A measurement with a sheet that pages count on."""
    sheet = sheet_of(version, **sizes)
    return RubricMeasurement.objects.create(
        version=version, sheet=sheet.to_bytes(), figures=figures_of(version)
    )


def note(criterion: Criterion, sheet: Sheet, at: int, **fields: Any) -> CriterionEvidence:
    """Evidence of a criterion on a pair of the sheet."""
    return CriterionEvidence.objects.create(
        criterion=criterion,
        prompt_id=int(sheet.prompts[at]),
        chosen_id=int(sheet.chosen[at]),
        rejected_id=int(sheet.rejected[at]),
        **{"supports": True, **fields},
    )
