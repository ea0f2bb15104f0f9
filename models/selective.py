"""Which verdicts of a judge can be taken without a person, so that few of them are wrong.

A threshold on the judge's own confidence is chosen from cases whose truth is known. The judge may
be badly calibrated: its confidence is used for its order alone.

What is promised
    With probability at least ``1 - risk`` over the draw of the known cases, the share of wrong
    verdicts among all the judge would give at or above the threshold is at most ``limit``.
    It holds for any judge, on three conditions: the known cases and the others are drawn alike,
    the cases are independent (``one_per_group``), and the grid of thresholds was fixed without
    looking at what was right (``grid``).

Why it holds
    At a fixed threshold the number wrong among the n accepted is Binomial(n, true share), so
    "the share is over the limit" is refuted at level ``risk`` by an exact test. The thresholds are
    tried in an order fixed beforehand, surest first, and the first that is not refuted ends it:
    the first false acceptance needs a test at level ``risk`` to err, so all together err no
    oftener. Nothing is assumed about the error falling with confidence.

Sources: Angelopoulos et al. 2021, Learn then Test, arXiv 2110.01052 (fixed-sequence testing);
Clopper and Pearson 1934, Biometrika 26:404; Geifman and El-Yaniv 2017, arXiv 1705.08500 (selective
prediction); Jin and Candes 2023, JMLR 24:244 (conformal selection).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv

from models.intervals import Interval

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STEPS: Final = 40  # thresholds tried
# The first threshold tried should accept so many times the fewest cases that could prove anything:
# fewer, and one wrong case among the surest ends the search; more, and only judges that are good
# on half of everything pass. At 2 the coverage on planted judges is best from 500 cases on.
START: Final = 2.0
CURVE_POINTS: Final = 60
LEAST_IN_CURVE: Final = 20  # accepted cases; a share of fewer is no point of a curve


@dataclass(frozen=True)
class Step:
    """One threshold with what it accepts of the known cases; ``bound`` is the upper bound tested."""

    threshold: float
    accepted: int
    wrong: int
    cases: int
    bound: float

    @property
    def share(self) -> float:
        """Of the accepted, wrong."""
        return self.wrong / self.accepted if self.accepted else 0.0

    @property
    def coverage(self) -> float:
        return self.accepted / self.cases if self.cases else 0.0

    @property
    def interval(self) -> Interval:
        """95 %, of the share at this one threshold."""
        return clopper_pearson(self.wrong, self.accepted)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "threshold": self.threshold,
            "accepted": self.accepted,
            "wrong": self.wrong,
            "cases": self.cases,
            "share": self.share,
            "coverage": self.coverage,
            "interval": list(self.interval),
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Choice:
    """The threshold found, or None; ``tried`` are the thresholds up to the first that failed."""

    rule: Step | None
    tried: tuple[Step, ...]


@dataclass(frozen=True)
class Point:
    """Of a curve: the share accepted, the share of them that is wrong, its pointwise 95 % band."""

    coverage: float
    share: float
    low: float
    high: float
    threshold: float


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a share, ``hits`` of ``n`` independent cases; (0, 1) of none."""
    if not 0 <= hits <= n:
        raise ValueError(f"hits={hits} is outside 0..n={n}")
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    return low, upper_bound(hits, n, tail)


def upper_bound(hits: int, n: int, risk: float) -> float:
    """What the true share exceeds with probability ``risk`` at most; 1 of no case."""
    return float(betaincinv(hits + 1, n - hits, 1 - risk)) if hits < n else 1.0


def least_cases(limit: float, risk: float) -> int:
    """Accepted cases below which not even a spotless record proves the limit: 59 at 5 % and 5 %."""
    _check(limit, risk)
    return math.ceil(math.log(risk) / math.log1p(-limit))


def grid(confidences: ArrayLike, *, cases: int, limit: float, risk: float) -> Floats:
    """Thresholds to try, falling, fixed by (n,) confidences of cases whose truth is unknown.

    The first is where ``cases`` known ones can be expected to bring enough accepted for a test.
    Where the confidences are those of the known cases themselves, the promise holds but for the
    one case that each threshold is taken from. Empty where there are too few cases.
    """
    pool, least = _confidences(confidences), least_cases(limit, risk)
    if not len(pool) or cases < least:  # not even all of them could prove anything
        return np.empty(0)
    # Of few cases the middle between the fewest and all.
    first = min(START * least, math.sqrt(least * cases)) / cases
    shares = np.geomspace(first, 1.0, STEPS) if first < 1 else np.ones(1)
    found = np.quantile(pool, 1 - shares, method="higher")
    return np.unique(found)[::-1]


def fixed_sequence(
    confidence: ArrayLike, wrong: ArrayLike, *, thresholds: ArrayLike, limit: float, risk: float
) -> Choice:
    """The last threshold, in the order given, up to which every one keeps the limit.

    confidence, wrong (m,) of independent known cases. The promise is the module's.
    """
    _check(limit, risk)
    scores, errors = _cases(confidence, wrong)
    tried: list[Step] = []
    rule = None
    for threshold in np.asarray(thresholds, dtype=float).tolist():
        step = _step(scores, errors, threshold, risk)
        tried.append(step)
        # The exact test: as few wrong as this would be as rare as ``risk`` at the limit.
        if not step.accepted or bdtr(step.wrong, step.accepted, limit) > risk:
            break
        rule = step
    return Choice(rule, tuple(tried))


def naive(confidence: ArrayLike, wrong: ArrayLike, *, limit: float, risk: float) -> Step | None:
    """What is often done: the lowest threshold whose known cases keep the limit. No promise."""
    scores, errors = _cases(confidence, wrong)
    if not len(scores):
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ties are taken together
    shares = np.cumsum(errors[order])[ends] / (ends + 1)
    kept = np.flatnonzero(shares <= limit)
    return _step(scores, errors, float(scores[order][ends[kept[-1]]]), risk) if len(kept) else None


def conformal_selection(
    confidence: ArrayLike, wrong: ArrayLike, others: ArrayLike, *, limit: float
) -> Flags:
    """Which of the (n,) others can be taken so that on average at most ``limit`` is wrong.

    Benjamini and Hochberg on conformal p-values: controls the expectation of the share, for these
    others together, and promises nothing of one draw. Source: Jin and Candes 2023, algorithm 1.
    """
    scores, errors = _cases(confidence, wrong)
    fresh = _confidences(others)
    if not len(fresh):
        return np.zeros(0, dtype=bool)
    bad = np.sort(scores[errors])
    above = len(bad) - np.searchsorted(bad, fresh, side="left")
    p = (1 + above) / (len(scores) + 1)
    order = np.sort(p)
    passing = np.flatnonzero(order <= limit * np.arange(1, len(p) + 1) / len(p))
    if not len(passing):
        return np.zeros(len(fresh), dtype=bool)
    selected: Flags = p <= order[passing[-1]]
    return selected


def one_per_group(groups: ArrayLike, keys: ArrayLike) -> NDArray[np.intp]:
    """Places of one case of each group, drawn by the hash of its key and nothing else.

    groups, keys (m,) whole numbers, such as prompt and task. Cases of one prompt err together:
    counted as independent they promise more than they know. A case so drawn stands for a random
    case of a random group.
    """
    group, key = np.asarray(groups), np.asarray(keys).astype(np.uint64)
    drawn = _scrambled(key)
    order = np.lexsort((key, drawn, group))
    first = np.append(True, np.diff(group[order]) != 0) if len(group) else np.zeros(0, dtype=bool)
    return np.sort(order[first])


def curve(confidence: ArrayLike, wrong: ArrayLike, *, cases: int) -> list[Point]:
    """Error against coverage, surest cases first, at thresholds spread evenly.

    ``cases`` are those the coverage is a share of: more than m where the judge has no verdict.
    """
    scores, errors = _cases(confidence, wrong)
    if len(scores) < LEAST_IN_CURVE:
        return []
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ends = ends[ends + 1 >= LEAST_IN_CURVE]
    if len(ends) > CURVE_POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, CURVE_POINTS).astype(int))]
    total = np.cumsum(errors[order])
    found = []
    for end in ends.tolist():
        n, hits = end + 1, int(total[end])
        low, high = clopper_pearson(hits, n)
        found.append(Point(n / cases, hits / n, low, high, float(scores[order][end])))
    return found


def chance_right(confidence: ArrayLike, wrong: ArrayLike) -> list[tuple[float, float]]:
    """Knots (confidence from which on, share right) of the judge's confidence put right.

    The rising steps that fit the known cases best. Source: Zadrozny and Elkan 2002, KDD.
    """
    from scipy.optimize import isotonic_regression  # slow to import, and everybody imports this

    scores, errors = _cases(confidence, wrong)
    if not len(scores):
        return []
    at, place, n = np.unique(scores, return_inverse=True, return_counts=True)
    right = np.bincount(place, weights=~errors) / n
    fitted = isotonic_regression(right, weights=n, increasing=True).x
    kept = np.append(True, np.diff(fitted) > 0)
    return list(zip(at[kept].tolist(), np.clip(fitted[kept], 0, 1).tolist(), strict=True))


def _scrambled(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: neighbours end up anywhere. Source: Steele et al. 2014."""
    with np.errstate(over="ignore"):
        mixed = keys + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _step(scores: Floats, errors: Flags, threshold: float, risk: float) -> Step:
    accepted = scores >= threshold
    n, wrong = int(accepted.sum()), int(errors[accepted].sum())
    return Step(threshold, n, wrong, len(scores), upper_bound(wrong, n, risk))


def _confidences(values: ArrayLike) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"confidences must be finite and (m,), not {scores.shape}")
    return scores


def _cases(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Flags]:
    scores, errors = _confidences(confidence), np.asarray(wrong, dtype=bool)
    if scores.shape != errors.shape:
        raise ValueError(f"confidence {scores.shape} and wrong {errors.shape} differ")
    return scores, errors


def _check(limit: float, risk: float) -> None:
    if not (0 < limit < 1 and 0 < risk < 1):
        raise ValueError(f"limit={limit} and risk={risk} must be between 0 and 1")
