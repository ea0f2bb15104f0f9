"""Signed weights out of score differences: l1 logistic regression that knows no sides.

A row is one pair: what each criterion scores the preferred answer, minus what it scores the
other. The model is ``P(preferred) = sigmoid(row @ weights)`` without an intercept, on data that
hold every pair in both turns, ``(d, 1)`` and ``(-d, 0)``; both have the same loss, so that one
turn of each is fitted, counting twice. ``C`` is scikit-learn's on the data with both turns.
Source: AutoRubric-T2I, arXiv 2605.17602; liblinear's l1 solver, Yuan, Ho and Lin 2012, JMLR 13.

Most fits of a path, of folds and of draws are near one that is known, and most of their weights
are 0. ``Rows.fit`` gives the solver only the columns that a fit nearby lets expect, then looks at
the slope of all others and fits again with those that want a weight: the answer is the same
(Tibshirani and others 2012, JRSS B 74, screen the same way).
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

# (tolerance, steps): a fit that ends at all takes some ten; where rounding keeps it from ending
# so closely, less is enough. Weights are then within some 1e-6, or 1e-5, of the exact ones.
EFFORTS: Final = ((1e-6, 100), (1e-5, 500))
TOLERANCE: Final = 1e-5
FLAT: Final = 1e-12  # a column whose differences are all smaller says nothing
FAINT: Final = 1e-6  # of the heaviest pair: a lighter one is left out
LARGEST: Final = 1e12  # what is larger is no score
LIKELY: Final = 0.8  # slope, by the penalty, from which a column nearby may get a weight
DECADES: Final = 3.0  # that a regularization path spans from its first nonzero weight


class NotConverged(RuntimeError):
    """The solver ran out of steps; no half answer is given."""


def oriented(differences: ArrayLike, first_wins: ArrayLike | None = None) -> Floats:
    """Score differences as (pairs, criteria), each row turned to preferred minus other.

    differences (pairs, criteria): first minus second answer, NaN where a criterion does not
    apply to either; first_wins (pairs,) booleans, all True where None. NaN becomes 0: no
    verdict. Raises ValueError for infinite values or such beyond 1e12, wrong shapes, or no pair
    or criterion.
    """
    given = np.array(differences, dtype=np.float64)
    if given.ndim != 2 or 0 in given.shape:
        raise ValueError(f"differences {given.shape} must be (pairs, criteria), neither 0")
    beyond = (np.abs(given) > LARGEST).any(axis=0)
    if beyond.any():
        columns = np.flatnonzero(beyond)[:5].tolist()
        raise ValueError(f"differences in columns {columns} are infinite or beyond {LARGEST:g}")
    np.nan_to_num(given, copy=False, nan=0.0)
    if first_wins is None:
        return given
    wins = np.asarray(first_wins)
    if wins.shape != (len(given),) or not np.isin(wins, (0, 1)).all():
        raise ValueError(f"first_wins {wins.shape} must be ({len(given)},) of True and False")
    given[wins == 0] *= -1
    return given


def checked_weights(weights: ArrayLike | None, n: int) -> Floats:
    """Weights of pairs (n,) by the heaviest, all 1 where None; 0 below a millionth of it.

    Raises ValueError unless they are finite, not negative, and some above 0.
    """
    given = np.ones(n) if weights is None else np.array(weights, dtype=np.float64)
    if given.shape != (n,) or not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(f"weights {given.shape} must be ({n},), finite and not negative")
    if not given.any():
        raise ValueError("no pair has a weight above 0")
    found: Floats = given / given.max()
    found[found < FAINT] = 0.0
    return found


def spreads(rows: Floats, weights: Floats) -> Floats:
    """Root mean square of each column around 0, (criteria,); 0 for a column that says nothing.

    Around 0, not the mean: subtracting a mean would let the two turns of a pair differ. Over all
    pairs, decisive or not: then every criterion that says nothing true is equally likely to get
    a weight, the rare ones as well.
    """
    return Rows(rows).spreads(weights)


class Rows:
    """The same score differences (pairs, criteria), fitted many times: under other penalties, with
    other weights of pairs. ``rows`` as of ``oriented``; a weight of 0 leaves a pair out."""

    def __init__(self, rows: Floats, *, is_scaled: bool = True, seed: int = 0) -> None:
        self.rows = rows
        self._is_scaled, self._seed = is_scaled, seed
        largest = np.abs(rows).max(axis=0)
        self._is_flat = largest <= FLAT
        self._safe = np.where(self._is_flat, 1.0, largest)
        self._squares = rows / self._safe  # of the largest: squares do not overflow
        np.square(self._squares, out=self._squares)

    def spreads(self, weights: Floats) -> Floats:
        """See ``spreads``. Weights of pairs as they count, not all 0."""
        found: Floats = self._safe * np.sqrt(weights @ self._squares / weights.sum())
        found[self._is_flat | (found <= FLAT)] = 0.0
        return found

    def fit(
        self,
        *,
        c: float,
        weights: Floats,
        spread: Floats | None = None,
        total: float | None = None,
        near: Floats | None = None,
    ) -> Floats:
        """``fit_weights``, given what is known: ``weights`` as of ``checked_weights``, their
        ``spread``, and ``near``, weights of criteria that cannot be far from the answer."""
        spread = self.spreads(weights) if spread is None else spread
        found = np.zeros(self.rows.shape[1])
        speaking = spread > 0
        if not speaking.any():
            return found
        scale = np.where(speaking, spread if self._is_scaled else 1.0, np.inf)
        n = float(len(self.rows))
        counts = weights * ((n if total is None else total) / weights.sum())
        tried = speaking
        if near is not None:
            slopes = self._slopes(near, counts, 2 * c, scale)
            tried = speaking & ((near != 0) | (slopes > LIKELY))
        while True:
            if tried.any():
                found = self._restricted(np.flatnonzero(tried), counts, 2 * c, scale)
            if (tried == speaking).all():
                return found
            slopes = self._slopes(found, counts, 2 * c, scale)
            wanting = speaking & ~tried & (slopes > 1 + TOLERANCE)
            if not wanting.any():
                return found
            tried = tried | wanting

    def _restricted(
        self, columns: NDArray[np.int64], counts: Floats, c: float, scale: Floats
    ) -> Floats:
        used = np.flatnonzero(counts)
        some = self.rows[np.ix_(used, columns)] / scale[columns]
        found = np.zeros(self.rows.shape[1])
        found[columns] = _liblinear(some, counts[used], c, self._seed) / scale[columns]
        return found

    def _slopes(self, weights: Floats, counts: Floats, c: float, scale: Floats) -> Floats:
        """How steeply the loss falls along each column, by the penalty: above 1 a weight of 0
        does not stay."""
        at = np.flatnonzero(weights)
        surprise = expit(-(self.rows[:, at] @ weights[at])) * counts
        found: Floats = np.abs(c * (surprise @ self.rows) / scale)
        return found


def fit_weights(
    rows: Floats,
    *,
    c: float,
    weights: Floats | None = None,
    is_scaled: bool = True,
    total: float | None = None,
    seed: int = 0,
) -> Floats:
    """Weights (criteria,) per unit of score; 0 for a column that says nothing.

    rows (pairs, criteria) as of ``oriented``. ``is_scaled``: the penalty counts each weight times
    the spread of its column. Weights of pairs are brought to the sum ``total`` (default: the
    number of pairs), so that one C means the same for a part of the data as for the whole.
    Raises NotConverged.
    """
    pairs = checked_weights(weights, len(rows))
    return Rows(rows, is_scaled=is_scaled, seed=seed).fit(c=c, weights=pairs, total=total)


def first_c(rows: Floats, weights: Floats | None = None, *, is_scaled: bool = True) -> float:
    """The C up to which every weight is 0; 1 where no column says anything."""
    pairs = checked_weights(weights, len(rows))
    spread = spreads(rows, pairs)
    if not (spread > 0).any():
        return 1.0
    scale = np.where(spread > 0, spread, np.inf) if is_scaled else np.ones(len(spread))
    slope = np.abs((pairs / pairs.sum() * len(rows)) @ (rows / scale)).max()
    return float(1 / slope) if slope > FLAT else 1.0


def c_grid(
    rows: Floats, n: int, weights: Floats | None = None, *, is_scaled: bool = True
) -> tuple[float, ...]:
    """``n`` values of C, from where the first weight appears, evenly in log over 3 decades."""
    start = 1.05 * first_c(rows, weights, is_scaled=is_scaled)
    return tuple(float(c) for c in start * np.logspace(0, DECADES, n))


def _liblinear(columns: Floats, counts: Floats, c: float, seed: int) -> Floats:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # a second of imports

    if len(columns) == 1:  # scikit-learn wants two classes
        columns, counts = np.repeat(columns, 2, axis=0), np.repeat(counts / 2, 2)
    turn = np.where(np.arange(len(columns)) % 2, -1.0, 1.0)
    for tolerance, steps in EFFORTS:
        model = LogisticRegression(
            C=c,
            l1_ratio=1.0,
            solver="liblinear",
            fit_intercept=False,
            tol=tolerance,
            max_iter=steps,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(columns * turn[:, None], turn, sample_weight=counts)
            except ConvergenceWarning:
                continue
        return np.asarray(model.coef_[0], dtype=np.float64)
    raise NotConverged(f"liblinear took more than {steps} steps at C = {c / 2}")
