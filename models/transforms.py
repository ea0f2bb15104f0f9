"""Reward scores on other scales: centered, bounded, combined over properties or over an ensemble.

A raw score has neither zero nor unit, and its offset differs from prompt to prompt. What is compared
with other models is **standardized** on a fixed reference set; what is added to other rewards, or
maximized, is a function of the difference to reference responses **to the same prompt**: **PAR**
(arXiv 2502.18770) and **LSC** (arXiv 2402.00742), METHODS 3.11. References have to be scored by the
same weights. Members of an ensemble come as a mean, their worst case, or the mean less their variance
(arXiv 2310.02743, METHODS 3.7), each member standardized first: the lowest of uncentered members
would only name the most negative one.

Within one prompt no transform of one model's scores changes an order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

TRANSFORMS: Final = {
    "raw": "As the model says it: to compare answers to one prompt.",
    "standardized": "In standard deviations from the mean of the model's reference set.",
    "par": "The mean chance of being better than reference answers to the same prompt, 0 to 1.",
    "log-sigmoid": "The log of the chance of being better than a good reference answer to the same "
    "prompt, at most 0: sums over properties ask that all be good.",
}
ON_PROMPT: Final = frozenset({"par", "log-sigmoid"})  # need references to the same prompt
MOST_REFERENCES: Final = 10  # of one prompt; PAR says that one suffices
QUANTILE: Final = 0.85  # of the references to a prompt: how good is good, for LSC
PENALTY: Final = 0.5  # of the variance, for best-of-n; .1 for policy optimization
# How one score is made of those of an ensemble's members.
COMBINATIONS: Final = {
    "mean": "The mean of the members.",
    "worst": "What the least convinced member says.",
    "penalized": "The mean less a penalty times the variance of the members.",
}
# Objectives whose difference of scores is the log-odds of being the better one.
LOG_ODDS: Final = frozenset(
    {"bradley-terry", "margin-bt", "scaled-bt", "robust-bt", "plackett-luce", "helpsteer2"}
)


@dataclass(frozen=True)
class Reference:
    """The scale of one model: mean and standard deviation of its scores of ``n`` responses."""

    center: float
    scale: float
    n: int

    @classmethod
    def of(cls, scores: ArrayLike) -> Reference:
        """Of the scores (n,) of a reference set; those that are not finite are left out.

        Raises ValueError where there is none. Where all are equal the scale is 1.
        """
        known = np.asarray(scores, dtype=np.float64)
        known = known[np.isfinite(known)]
        if not known.size:
            raise ValueError("a reference set needs a score")
        spread = float(known.std())
        level = float(np.abs(known).max())
        return cls(float(known.mean()), spread if spread > 1e-12 * level else 1.0, known.size)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reference:
        """Raises KeyError, ValueError for what is no scale."""
        found = cls(float(values["center"]), float(values["scale"]), int(values["n"]))
        if not (math.isfinite(found.center) and math.isfinite(found.scale) and found.scale > 0):
            raise ValueError("a scale is a number above 0, its center a number")
        return found

    def as_json(self) -> dict[str, float | int]:
        return {"center": self.center, "scale": self.scale, "n": self.n}


def standardized(rewards: ArrayLike, reference: Reference) -> Array:
    """Rewards of any shape in standard deviations from the mean of the reference set."""
    found: Array = (np.asarray(rewards, dtype=np.float64) - reference.center) / reference.scale
    return found


def chance(differences: ArrayLike) -> Array:
    """The logistic of differences of log-odds scores: P(the first is better)."""
    found: Array = np.exp(_log_chance(np.asarray(differences, dtype=np.float64)))
    return found


def par(rewards: ArrayLike, references: ArrayLike, *, steepness: float = 1.0) -> Array:
    """``mean_j sigmoid(k (r - r_ref_j))`` (n,), in (0, 1), of rewards (n,).

    ``references`` (n, m) are scores of m responses to each reward's own prompt, NaN where there
    are fewer; NaN comes out where a prompt has none. Source: PAR, arXiv 2502.18770.
    """
    given, of_prompt = _beside(rewards, references)
    won = chance(steepness * (given[:, None] - of_prompt))
    return _mean(won, ~np.isnan(of_prompt))


def log_sigmoid(
    rewards: ArrayLike, references: ArrayLike, *, quantile: float | None = QUANTILE
) -> Array:
    """``log sigmoid(r - r_ref)`` (n,), at most 0, of rewards (n,); the sum over properties is the
    log-probability that all are good.

    ``references`` (n, m) as for ``par``. ``r_ref`` is their quantile by the normal approximation,
    mean + z s; their mean where ``quantile`` is None. One reference is itself. Unbounded below.
    Source: LSC, arXiv 2402.00742; the quantile is that of PAR's released code.
    """
    given, of_prompt = _beside(rewards, references)
    if quantile is not None and not 0 < quantile < 1:
        raise ValueError(f"a quantile is between 0 and 1, not {quantile}")
    known = ~np.isnan(of_prompt)
    middle = _mean(of_prompt, known)
    z = 0.0 if quantile is None else NormalDist().inv_cdf(quantile)
    spread = np.sqrt(_mean((of_prompt - middle[:, None]) ** 2, known))
    return _log_chance(given - (middle + z * spread))


# Ensembles ----------------------------------------------------------------------------------------


def standardized_members(members: ArrayLike, references: ArrayLike) -> Array:
    """Scores (k, n) by k members, each on the scale of its own scores (k, m) of one reference set.

    Raises ValueError where the numbers of members differ.
    """
    scores = np.atleast_2d(np.asarray(members, dtype=np.float64))
    known = np.atleast_2d(np.asarray(references, dtype=np.float64))
    if len(scores) != len(known):
        raise ValueError(f"{len(scores)} members and references of {len(known)}")
    rows = [standardized(row, Reference.of(own)) for row, own in zip(scores, known, strict=True)]
    return np.stack(rows)


def ensemble_mean(members: ArrayLike) -> Array:
    """The mean (n,) of standardized scores (k, n)."""
    found: Array = np.asarray(members, dtype=np.float64).mean(axis=0)
    return found


def ensemble_worst(members: ArrayLike) -> Array:
    """What the least convinced member says (n,), of standardized scores (k, n). WCO."""
    found: Array = np.asarray(members, dtype=np.float64).min(axis=0)
    return found


def ensemble_penalized(members: ArrayLike, *, penalty: float = PENALTY) -> Array:
    """``mean - penalty variance`` (n,) of standardized scores (k, n), the variance with ddof 0 as
    in best-of-n. UWO; the penalty has the unit of one over a reward."""
    scores = np.asarray(members, dtype=np.float64)
    found: Array = scores.mean(axis=0) - penalty * scores.var(axis=0)
    return found


def ensemble_variance(members: ArrayLike) -> Array:
    """How much the members disagree (n,), of standardized scores (k, n): ddof 0, 0 for one."""
    found: Array = np.asarray(members, dtype=np.float64).var(axis=0)
    return found


def combine(members: ArrayLike, how: str, *, penalty: float = PENALTY) -> Array:
    """One score (n,) of standardized scores (k, n), in one of the COMBINATIONS.

    ``penalty`` matters to "penalized" alone. Raises ValueError for a way that there is not.
    """
    if how == "mean":
        return ensemble_mean(members)
    if how == "worst":
        return ensemble_worst(members)
    if how == "penalized":
        return ensemble_penalized(members, penalty=penalty)
    raise ValueError(f"there is no combination {how!r}; known: {', '.join(COMBINATIONS)}")


# Parts --------------------------------------------------------------------------------------------


def _beside(rewards: ArrayLike, references: ArrayLike) -> tuple[Array, Array]:
    """Rewards (n,) and references (n, m). Raises ValueError."""
    given = np.asarray(rewards, dtype=np.float64)
    of_prompt = np.asarray(references, dtype=np.float64)
    if given.ndim != 1 or of_prompt.ndim != 2 or len(of_prompt) != len(given):
        raise ValueError(f"rewards {given.shape} need references (n, m), not {of_prompt.shape}")
    return given, of_prompt


def _log_chance(differences: Array) -> Array:
    """The log of the logistic; NaN where there is no difference."""
    with np.errstate(invalid="ignore"):
        found: Array = -np.logaddexp(0.0, -differences)
    return found


def _mean(values: Array, known: NDArray[np.bool_]) -> Array:
    """Means of the rows over what is known; NaN where nothing is."""
    n = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    found: Array = np.divide(total, n, out=np.full(len(values), np.nan), where=n > 0)
    return found
