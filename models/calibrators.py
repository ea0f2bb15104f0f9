"""Mending a confidence: named maps from what a judge says to how often it is right.

Each is a function ``fit(confidence, correct) -> (confidence -> confidence)``. ``cross_fitted``
gives every case the map that was learned without its fold, so that what is then measured is
honest. What is slow to import is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from models.calibration import FLOOR
from rubrics.registry import Method, pick

Floats = NDArray[np.float64]
Map = Callable[[Floats], Floats]

CALIBRATORS: Final[dict[str, Method]] = {
    "temperature": Method(
        path="models.calibrators:temperature",
        label="Temperature",
        summary="one number that makes every confidence bolder or shyer",
    ),
    "platt": Method(
        path="models.calibrators:platt",
        label="Platt",
        summary="a logistic curve over the log-odds: slope and offset",
    ),
    "isotonic": Method(
        path="models.calibrators:isotonic",
        label="Isotonic",
        summary="any rising curve; needs several hundred cases",
    ),
}

FOLDS: Final = 5
FEWEST: Final = 50  # cases, below which nothing is learned
COLDEST, HOTTEST = 0.02, 50.0


def temperature(confidence: ArrayLike, correct: ArrayLike) -> Map:
    """``sigmoid(logit(c) / T)``, T by least log loss.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, 1706.04599.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and every page would

    odds, right = _odds(confidence), np.asarray(correct, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        score = odds / np.exp(log_temperature)
        return float((np.logaddexp(0, score) - right * score).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    scale = float(np.exp(-found.x))
    return lambda given: np.asarray(expit(scale * _odds(given)))


def platt(confidence: ArrayLike, correct: ArrayLike) -> Map:
    """``sigmoid(a logit(c) + b)`` with Platt's smoothed targets.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines.
    """
    from sklearn.linear_model import LogisticRegression

    odds, right = _odds(confidence), np.asarray(correct, dtype=np.float64)
    hits = float(right.sum())
    high, low = (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2)
    target = right * high + (1 - right) * low
    weights = np.concatenate([target, 1 - target])
    labels = np.repeat([1, 0], len(odds))
    model = LogisticRegression(C=1e6)
    model.fit(np.tile(odds, 2)[:, None], labels, sample_weight=weights)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return lambda given: np.asarray(expit(slope * _odds(given) + offset))


def isotonic(confidence: ArrayLike, correct: ArrayLike) -> Map:
    """The rising step curve nearest to the outcomes, straight between steps.

    Source: Zadrozny and Elkan 2002, Transforming Classifier Scores into Probability Estimates.
    """
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64))
    return lambda given: np.asarray(model.predict(given), dtype=np.float64)


def cross_fitted(
    key: str,
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Floats | None:
    """Every case's confidence by the map that the other folds gave, (n,).

    Cases of one group are always in one fold. None where there is too little to learn from: fewer
    than FEWEST cases or ``folds`` groups, or a fold without whose cases all are right or all wrong.
    Raises UnknownMethod for a key that CALIBRATORS lacks, ValueError on unequal shapes.
    """
    fit = pick(CALIBRATORS, key)
    says = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    names, cluster = np.unique(np.asarray(groups), return_inverse=True)
    if not says.shape == right.shape == cluster.shape:
        raise ValueError(f"shapes differ: {says.shape}, {right.shape}, {cluster.shape}")
    if len(says) < FEWEST or len(names) < folds:
        return None
    fold = np.random.default_rng(seed).permutation(len(names))[cluster] % folds
    found = np.empty(len(says))
    for one in range(folds):
        held = fold == one
        if right[~held].min() == right[~held].max():
            return None
        found[held] = fit(says[~held], right[~held])(says[held])
    return found


def _odds(confidence: ArrayLike) -> Floats:
    held = np.clip(np.asarray(confidence, dtype=np.float64), FLOOR, 1 - FLOOR)
    return np.asarray(logit(held), dtype=np.float64)
