"""What a page shows of a rubric that was measured: a sheet and its weights in, JSON-ready values out.

An estimate is {"value", "low", "high", "n", "ties"}, a gain {"value", "low", "high"}. Support,
coverage and precision of a criterion are of the pairs that were learned from; accuracy, what a
criterion adds to it, and everything beside it are of held-out pairs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics.intervals import Accuracy, estimate_accuracy, group_codes
from rubrics.l1 import NotConverged
from rubrics.margins import Gain, gain
from rubrics.refinement import Refinement, Settings, refine
from rubrics.sheet import BAND, SEED, Sheet, accuracy, contributions, redundancy

JUDGES: Final = ("judge", "judge.rubric")
BOOTSTRAPS: Final = 100
NO_PAIR: Final = "No pair of the test split has a majority."
NO_SCORE: Final = "No criterion has a score on a held-out pair: there is nothing to be right about."


@dataclass(frozen=True)
class Weighed:
    """A rubric's weights by criterion, signed for a yes; ``is_fitted`` where they differ in
    size. ``signs`` are those of a criterion that weighs nothing too."""

    weights: Mapping[int, float]
    signs: Mapping[int, int]
    is_fitted: bool


@dataclass
class Told:
    """Figures, and by name in words what there is none of."""

    figures: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def estimate(found: Accuracy | None) -> dict[str, Any] | None:
    if found is None:
        return None
    low, high = found.interval
    return {"value": found.accuracy, "low": low, "high": high, "n": found.n, "ties": found.ties}


def as_gain(found: Gain | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"value": found.value, "low": found.interval[0], "high": found.interval[1]}


def figures(sheet: Sheet, weighed: Weighed, *, bootstraps: int = BOOTSTRAPS) -> Told:
    """All of it but what the sheet does not know: calls, people, numbers of models.

    Weights are fitted again on the learned pairs alone, for what the page shows beside the
    rubric's own.
    """
    told = Told()
    held = sheet.held()
    refined = _refined(sheet, bootstraps, told)
    told.figures = {
        "n_learned": int((~sheet.is_held).sum()),
        "n_held": len(held.prompts),
        "prompts_held": len(np.unique(held.prompts)),
        "criteria": _criteria(sheet, weighed, refined),
        "held_out": _held_out(held, weighed, told),
        "position": {name: _position(held, name) for name in JUDGES},
        "path": None if refined is None else _path(held, refined),
    }
    return told


def _refined(sheet: Sheet, bootstraps: int, told: Told) -> Refinement | None:
    """Weights fitted on the learned pairs; None, with a reason, where there is nothing to fit."""
    learned = sheet.learned()
    settings = Settings(top=max(1, len(sheet.criteria)), bootstraps=bootstraps, seed=SEED)
    try:
        return refine(
            learned.differences,
            groups=learned.prompts,
            names=[str(pk) for pk in sheet.criteria],
            settings=settings,
        )
    except ValueError:
        told.missing["path"] = "Too few pairs were scored to fit weights."
    except NotConverged:
        told.missing["path"] = "The fit of the weights did not end."
    return None


def _criteria(
    sheet: Sheet, weighed: Weighed, refined: Refinement | None
) -> dict[str, dict[str, Any]]:
    learned = sheet.learned()
    differences = learned.differences
    added, alike = contributions(sheet, weighed.weights), redundancy(sheet)
    is_known = _known(sheet.held()).any()
    found = {}
    for at, pk in enumerate(map(int, sheet.criteria)):
        near = alike[pk]
        found[str(pk)] = {
            **_support(differences[:, at] * weighed.signs[pk], learned.prompts),
            "contribution": as_gain(added[pk]) if is_known else None,
            "fitted": None if refined is None else _fitted(refined, at),
            "redundancy": None if near is None else {"criterion": near[0], "r": near[1]},
        }
    return found


def _support(column: NDArray[np.float32], prompts: NDArray[np.int64]) -> dict[str, Any]:
    """column (n,): differences, positive with the vote where a yes counts what it should."""
    with_vote, decisive = column > BAND, np.abs(column) > BAND
    precision = estimate_accuracy(with_vote[decisive], prompts[decisive], seed=SEED)
    return {
        "support": int(decisive.sum()),
        "with_vote": int(with_vote.sum()),
        "against": int((decisive & ~with_vote).sum()),
        "coverage": estimate(estimate_accuracy(decisive, prompts, seed=SEED)),
        "precision": estimate(precision),
    }


def _fitted(refined: Refinement, at: int) -> dict[str, Any]:
    one = refined.figures[at]
    low, high = one.weight_interval or (None, None)
    return {"weight": one.weight, "low": low, "high": high, "frequency": one.frequency}


def _held_out(held: Sheet, weighed: Weighed, told: Told) -> dict[str, Any]:
    """By name; None, with a reason in ``told``, for what there is not."""
    weights = held.weights(weighed.weights)
    signs = held.weights({pk: float(weighed.signs[pk]) for pk in weighed.weights})
    signs[weights == 0] = 0.0
    found = {"rubric": estimate(accuracy(held, held.margins(weights))), "equal": None}
    if not len(weights):
        found["rubric"] = None
        told.missing["rubric"] = told.missing["equal"] = "There is no criterion to measure."
    elif found["rubric"] is None:
        told.missing["rubric"] = told.missing["equal"] = NO_PAIR
    elif not (known := _known(held)).any():
        found["rubric"] = None  # even on every pair is not wrong on every pair
        told.missing["rubric"] = told.missing["equal"] = NO_SCORE
    elif not weighed.is_fitted:
        told.missing["equal"] = "Its criteria weigh the same: this is the rubric itself."
    else:
        found["equal"] = estimate(accuracy(held, held.margins(signs)))
    if found["rubric"] is not None and not known.all():
        told.missing["silent"] = (
            f"On {int((~known).sum()):,} of {len(known):,} held-out pairs no criterion has a score: "
            "they count as wrong."
        )
    for name in ("parent", "reward-model", "length"):
        margins = held.others.get(name)
        found[name] = None if margins is None else estimate(accuracy(held, margins))
    return found | {name: _in_both_orders(held, name) for name in JUDGES}


def _known(held: Sheet) -> NDArray[np.bool_]:
    """Pairs (n,) of which a criterion says something of both sides."""
    unknown: Any = np.isnan(held.scores).any(axis=1)  # (n, k): of a side
    found: NDArray[np.bool_] = ~unknown.all(axis=1)
    return found


def _named(held: Sheet, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Probabilities (n, 2) that chosen is better where both orders were judged, and prompts."""
    given = held.orders.get(name)
    if given is None:
        return None
    asked = ~np.isnan(given).any(axis=1)
    return (given[asked].astype(np.float64), held.prompts[asked]) if asked.any() else None


def _in_both_orders(held: Sheet, name: str) -> dict[str, Any] | None:
    """The mean of both orders' accuracies: half a pair is right where they differ."""
    found = _named(held, name)
    if found is None:
        return None
    given, prompts = found
    even = int((given == 0.5).any(axis=1).sum())
    right = (given > 0.5).mean(axis=1)
    return estimate(estimate_accuracy(right, prompts, seed=SEED, ties=even))


def _position(held: Sheet, name: str) -> dict[str, Any] | None:
    """Accuracy with the chosen answer shown first, shown second, and the first less the second."""
    found = _named(held, name)
    if found is None:
        return None
    given, prompts = found
    right = (given > 0.5).astype(np.float64)
    forward, reverse = (
        estimate(estimate_accuracy(right[:, at], prompts, seed=SEED)) for at in (0, 1)
    )
    gap = gain(right[:, 0] - right[:, 1], group_codes(prompts), seed=SEED)
    return {"forward": forward, "reverse": reverse, "gap": as_gain(gap)}


def _path(held: Sheet, refined: Refinement) -> dict[str, Any]:
    """Accuracies are held-out ones: of weights that were fitted on the learned pairs."""
    is_known = _known(held).any()
    return {
        "criteria": [int(pk) for pk in held.criteria],
        "points": [
            {
                "c": point.c,
                "weights": point.weights.tolist(),
                "accuracy": estimate(accuracy(held, held.margins(point.weights)))
                if is_known
                else None,
            }
            for point in refined.path
        ],
        "at": refined.at,
    }
