"""What can be said of one criterion among others: coverage, precision, contribution, stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubrics.intervals import Accuracy, Interval, estimate_accuracy
from rubrics.l1 import Floats
from rubrics.margins import Gain, gain, is_right


@dataclass(frozen=True, slots=True)
class Folded:
    """Pairs with weights that never saw them.

    rows (pairs, criteria); codes (pairs,) groups from 0; fold (pairs,); weights
    (folds, criteria), those of a fold fitted on all other folds.
    """

    rows: Floats
    codes: NDArray[np.int64]
    fold: NDArray[np.int64]
    weights: Floats


@dataclass(frozen=True, slots=True)
class CriterionFigures:
    """One criterion.

    ``weight`` per unit of score, ``weight_interval`` and ``frequency`` (share of draws in which
    it is chosen) from the bootstrap over groups, None where none was drawn. ``strength`` is
    weight times ``spread``, in log-odds of a usual difference.
    ``decisive`` of ``n`` pairs have a verdict; ``precision``: how often that verdict is right,
    its direction taken from the other folds (of its weight there, else of its verdicts); None
    where it never has one. ``contribution``: accuracy on pairs not fitted, minus the same with
    this weight at 0 and all others as they are; None where no fold gave it a weight.
    ``redundancy``: the correlation with the criterion most like it, ``nearest``; None where
    there is none.
    """

    name: str
    weight: float
    weight_interval: Interval | None
    frequency: float | None
    spread: float
    decisive: int
    n: int
    precision: Accuracy | None
    contribution: Gain | None
    redundancy: float | None
    nearest: str | None

    @property
    def coverage(self) -> float:
        return self.decisive / self.n

    @property
    def strength(self) -> float:
        return self.weight * self.spread

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "name": self.name,
            "weight": self.weight,
            "weight_interval": list(self.weight_interval) if self.weight_interval else None,
            "frequency": self.frequency,
            "spread": self.spread,
            "strength": self.strength,
            "coverage": self.coverage,
            "decisive": self.decisive,
            "n": self.n,
            "precision": self.precision.as_dict() if self.precision else None,
            "contribution": self.contribution.as_dict() if self.contribution else None,
            "redundancy": self.redundancy,
            "nearest": self.nearest,
        }


def criterion_figures(
    folded: Folded,
    *,
    names: Sequence[str],
    weights: Floats,
    spread: Floats,
    drawn: Floats,
    correlation: Floats,
    band: float,
    seed: int,
) -> tuple[CriterionFigures, ...]:
    """One per criterion. drawn: bootstrap weights (draws, criteria); correlation (c, c)."""
    margins = np.einsum("ij,ij->i", folded.rows, folded.weights[folded.fold])
    right = is_right(margins)
    found = []
    for at, name in enumerate(names):
        redundancy, nearest = _nearest(correlation, at, names)
        interval, frequency = _stability(drawn[:, at])
        found.append(
            CriterionFigures(
                name=name,
                weight=float(weights[at]),
                weight_interval=interval,
                frequency=frequency,
                spread=float(spread[at]),
                decisive=int((np.abs(folded.rows[:, at]) > band).sum()),
                n=len(folded.rows),
                precision=_precision(folded, at, band, seed),
                contribution=_contribution(folded, at, margins, right, seed),
                redundancy=redundancy,
                nearest=nearest,
            )
        )
    return tuple(found)


def _stability(drawn: Floats) -> tuple[Interval | None, float | None]:
    if not len(drawn):
        return None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return (float(low), float(high)), float((drawn != 0).mean())


def _nearest(correlation: Floats, at: int, names: Sequence[str]) -> tuple[float | None, str | None]:
    others = np.abs(correlation[at])  # a new array
    others[at] = -1.0
    place = int(others.argmax())
    if others[place] <= 0:
        return None, None
    return float(correlation[at, place]), names[place]


def _precision(folded: Folded, at: int, band: float, seed: int) -> Accuracy | None:
    column = folded.rows[:, at]
    decisive = np.abs(column) > band
    if not decisive.any():
        return None
    votes = np.where(decisive, np.sign(column), 0.0)
    by_fold = np.bincount(folded.fold, weights=votes, minlength=len(folded.weights))
    elsewhere = np.sign(votes.sum() - by_fold)
    direction = np.where(folded.weights[:, at] != 0, np.sign(folded.weights[:, at]), elsewhere)
    hits = votes * direction[folded.fold] > 0
    return estimate_accuracy(hits[decisive], folded.codes[decisive], seed=seed)


def _contribution(
    folded: Folded, at: int, margins: Floats, right: Floats, seed: int
) -> Gain | None:
    weights = folded.weights[:, at]
    if not weights.any():
        return None
    without = margins - folded.rows[:, at] * weights[folded.fold]
    return gain(right - is_right(without), folded.codes, seed=seed)
