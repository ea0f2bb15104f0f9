"""What the order in which two answers are shown does to a judge. Pure numpy and scipy.

Rows are answers of a judge: ``first`` and ``second`` (m,) item codes in the order shown, and
``outcome`` (m,) +1 where the one shown first won, -1 where the second did, 0 for a tie. Two
scales of bias are told apart:

- ``slot_bias`` in log-odds: how much being shown first adds to the log-odds of winning. It takes
  nothing for granted about how far apart answers are.
- ``slot_bias_gaussian`` in standard deviations of how far apart two answers are: the scale on
  which a bias is planted into Gaussian utilities. It needs them to be Gaussian.

A logistic judge whose noise has scale s has b / s log-odds for a bias of b.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import expit, ndtr, ndtri

from models.comparisons import Codes, Floats, as_codes, as_shares
from models.intervals import Accuracy, Interval, estimate_accuracy, group_codes
from models.newton import minimize, solve

HALF: Final = 0.5  # added to both counts of a ratio: finite, and less biased (Haldane 1956)
RIDGE: Final = 0.01  # a normal prior with standard deviation 10 log-odds on every parameter
WIDEST_CORRELATION: Final = 1 - 1e-6
RELATIVE_STEP: Final = 1e-3  # of the numerical derivative


def agree_only(forward: ArrayLike, backward: ArrayLike) -> NDArray[np.int8]:
    """What two orders both say (m,): +1 item i, -1 item j, 0 where they differ.

    forward, backward (m,): +1 where the one shown first won, -1 where it lost, 0 for a tie, of i
    shown first and of j shown first.
    """
    ahead, behind = np.sign(np.asarray(forward)), -np.sign(np.asarray(backward))
    _same_shape(ahead, behind)
    return np.where(ahead == behind, ahead, 0).astype(np.int8)


def soft_average(forward: ArrayLike, backward: ArrayLike) -> Floats:
    """P(i is better) (m,) from P(first wins) with i shown first and with j shown first.

    ``(p_forward + 1 - p_backward) / 2``: what a slot adds to one order it takes from the other.
    """
    ahead = np.asarray(forward, dtype=np.float64)
    behind = np.asarray(backward, dtype=np.float64)
    _same_shape(ahead, behind)
    return np.asarray((ahead + 1 - behind) / 2)


def first_slot_share(
    outcome: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0
) -> Accuracy | None:
    """Share of decided answers that name the one shown first; ties are counted beside.

    clusters (m,): what was judged, such as the pair, whose two orders are not independent.
    """
    rows = np.asarray(outcome)
    won = as_shares(rows, len(rows))
    decided = won != HALF
    groups = None if clusters is None else np.asarray(clusters)[decided]
    return estimate_accuracy(won[decided], groups, seed=seed, ties=int((~decided).sum()))


@dataclass(frozen=True)
class BothOrders:
    """Unordered pairs ``low < high`` (p,) that were shown in both orders.

    n_forward, n_backward (p,): answers with ``low`` shown first, and with ``high`` shown first;
    won_forward, won_backward (p,): how many of them ``low`` won, a tie half. ``left_out`` pairs
    were shown in one order only.
    """

    low: Codes
    high: Codes
    n_forward: Floats
    n_backward: Floats
    won_forward: Floats
    won_backward: Floats
    left_out: int

    @property
    def shares(self) -> tuple[Floats, Floats]:
        """How often ``low`` won in either order, (p,) each."""
        return self.won_forward / self.n_forward, self.won_backward / self.n_backward


def both_orders(first: ArrayLike, second: ArrayLike, outcome: ArrayLike) -> BothOrders:
    """Rows summed by pair. Raises ValueError on unequal shapes, bad codes or outcomes."""
    a, b = as_codes(first, "first"), as_codes(second, "second")
    _same_shape(a, b)
    if (a == b).any():
        raise ValueError("an item cannot be compared with itself")
    share = as_shares(outcome, len(a))
    width = int(max(a.max(), b.max())) + 1 if a.size else 1
    low, high, is_forward = np.minimum(a, b), np.maximum(a, b), a < b
    code, row = np.unique(low * width + high, return_inverse=True)
    won = np.where(is_forward, share, 1 - share)

    def total(values: Floats, rows: NDArray[np.bool_]) -> Floats:
        return np.bincount(row, weights=values * rows, minlength=len(code)).astype(np.float64)

    ones = np.ones(len(a))
    shown, turned = total(ones, is_forward), total(ones, ~is_forward)
    both = (shown > 0) & (turned > 0)
    return BothOrders(
        low=(code // width)[both],
        high=(code % width)[both],
        n_forward=shown[both],
        n_backward=turned[both],
        won_forward=total(won, is_forward)[both],
        won_backward=total(won, ~is_forward)[both],
        left_out=int((~both).sum()),
    )


def consistency(first: ArrayLike, second: ArrayLike, outcome: ArrayLike) -> Accuracy | None:
    """Share of pairs shown in both orders that both orders decide alike, with its interval.

    Several answers in one order count by their majority; two ties are alike.
    """
    forward, backward = both_orders(first, second, outcome).shares
    alike = np.sign(forward - HALF) == np.sign(backward - HALF)
    return estimate_accuracy(alike, seed=0)


@dataclass(frozen=True)
class SlotBias:
    """What being shown first adds, its standard error and interval at ``level``.

    ``n`` answers or pairs were used, of which ``informative`` say something about it. ``unit`` and
    ``method`` say what ``b`` is measured in and how.
    """

    b: float
    standard_error: float
    interval: Interval
    n: int
    informative: int
    unit: str
    method: str
    level: float = 0.95
    noise: float | None = None  # of slot_bias_gaussian: the judge's, in the same unit


def slot_bias(
    first: ArrayLike,
    second: ArrayLike,
    outcome: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> SlotBias | None:
    """b of ``logit P(first wins) = s_first - s_second + b``, from pairs shown in both orders.

    Every pair keeps a difference of its own, which two answers cannot estimate: fitted together,
    b comes out twice as large (Neyman and Scott 1948). So it is conditioned out. Of a pair asked
    once per order only disagreements count, and ``exp(2 b)`` is the odds that both of its answers
    name the first slot rather than the second; with repeats it is the odds ratio of Mantel and
    Haenszel over pairs, consistent for many small pairs as for few large ones. The interval is
    from the spread over pairs, or over ``clusters`` (m,) of answers whose pairs are not
    independent, such as the prompt. None where no pair was shown in both orders.

    Sources: Mantel and Haenszel 1959, JNCI 22:719; Breslow 1981, Biometrika 68:73.
    """
    pairs = both_orders(first, second, outcome)
    if not len(pairs.low):
        return None
    weight = 2 / (pairs.n_forward + pairs.n_backward)
    for_first = weight * pairs.won_forward * (pairs.n_backward - pairs.won_backward)
    for_second = weight * pairs.won_backward * (pairs.n_forward - pairs.won_forward)
    ahead, behind = for_first.sum() + HALF, for_second.sum() + HALF
    pull = (for_first / ahead - for_second / behind)[None]
    spread = float(_spread(pull, _clusters_of(pairs, first, second, clusters))[0, 0])
    error = float(np.sqrt(spread + HALF / ahead**2 + HALF / behind**2)) / 2
    return _bias(
        float(np.log(ahead / behind)) / 2,
        error,
        n=len(pairs.low),
        informative=int(np.count_nonzero(for_first + for_second)),
        unit="log-odds",
        method="Mantel-Haenszel over pairs shown in both orders",
        level=level,
    )


def slot_bias_of_items(
    first: ArrayLike,
    second: ArrayLike,
    outcome: ArrayLike,
    *,
    n_items: int,
    ridge: float = RIDGE,
    level: float = 0.95,
) -> SlotBias:
    """b of the same regression with one score per item, for items that are judged many times.

    Items are generators, say, whose answers meet again and again, in whichever order; with few
    answers per item b is too large (see slot_bias). The interval is from the curvature.
    Raises ValueError on no rows, unequal shapes, codes outside 0..n_items-1 or other outcomes.
    """
    a, b = as_codes(first, "first", n_items), as_codes(second, "second", n_items)
    _same_shape(a, b)
    if not a.size:
        raise ValueError("there are no answers")
    share = as_shares(outcome, len(a))
    code, row = np.unique(a * n_items + b, return_inverse=True)
    won = np.bincount(row, weights=share).astype(np.float64)
    count = np.bincount(row).astype(np.float64)
    loss = _SlotLoss(code // n_items, code % n_items, won, count, n_items)
    fitted, _, converged = minimize(loss, n_items + 1, ridge=ridge)
    if not converged:
        raise ValueError("the regression did not converge")
    unit = np.zeros((n_items + 1, 1))
    unit[-1] = 1
    variance = float(solve(loss.curvature(fitted), unit, ridge=ridge)[-1, 0])
    return _bias(
        float(fitted[-1]),
        float(np.sqrt(variance)),
        n=len(a),
        informative=len(a),
        unit="log-odds",
        method="Bradley-Terry with a first-slot covariate",
        level=level,
    )


@dataclass(frozen=True)
class _SlotLoss:
    """Negative log-likelihood of scores (n,) and the bias behind them; rows per ordered pair."""

    first: Codes
    second: Codes
    won: Floats
    count: Floats
    n: int

    def _gap(self, at: Floats) -> Floats:
        return np.asarray(at[self.first] - at[self.second] + at[-1])

    def value(self, at: Floats) -> float:
        gap = self._gap(at)
        lost = self.count - self.won
        return float(self.won @ np.logaddexp(0, -gap) + lost @ np.logaddexp(0, gap))

    def gradient(self, at: Floats) -> Floats:
        surplus = self.count * expit(self._gap(at)) - self.won
        here = np.bincount(self.first, surplus, self.n) - np.bincount(self.second, surplus, self.n)
        return np.append(here, surplus.sum()).astype(np.float64)

    def curvature(self, at: Floats) -> csr_array:
        chance = expit(self._gap(at))
        rows = np.arange(len(self.first))
        ones = np.ones(len(rows))
        design = csr_array(
            (
                np.concatenate([ones, -ones, ones]),
                (
                    np.concatenate([rows, rows, rows]),
                    np.concatenate([self.first, self.second, np.full(len(rows), self.n)]),
                ),
            ),
            shape=(len(rows), self.n + 1),
        )
        pull = self.count * chance * (1 - chance)
        return csr_array(design.T @ design.multiply(pull[:, None]))


def _clusters_of(
    pairs: BothOrders, first: ArrayLike, second: ArrayLike, clusters: ArrayLike | None
) -> Codes:
    """The cluster of each pair (p,), that of one of its answers; each its own where none is given."""
    if clusters is None:
        return np.arange(len(pairs.low))
    a, b, names = as_codes(first, "first"), as_codes(second, "second"), np.asarray(clusters)
    _same_shape(a, names)
    width = int(max(a.max(), b.max())) + 1
    code, row = np.unique(np.minimum(a, b) * width + np.maximum(a, b), return_index=True)
    return group_codes(names[row[np.searchsorted(code, pairs.low * width + pairs.high)]])


def _spread(values: Floats, clusters: Codes) -> Floats:
    """Sums of squares and products (k, k) of values (k, p) summed within clusters."""
    sums = np.stack([np.bincount(clusters, weights=row) for row in values])
    return np.asarray(sums @ sums.T)


def slot_bias_gaussian(
    first: ArrayLike,
    second: ArrayLike,
    outcome: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> SlotBias | None:
    """b of ``first wins where d + b + e > 0`` in standard deviations of d, both Gaussian.

    Two shares fix two unknowns. With h = b / sd(d + e), the first slot wins with probability
    Phi(h); two orders with correlation r = var(d) / var(d + e) agree with probability
    ``2 Phi(h) Phi(-h) + 1/pi * integral_0^r exp(-h^2 / (1 - t)) / sqrt(1 - t^2) dt``
    (Plackett 1954, Biometrika 41:351). Then b = h / sqrt(r), and ``noise`` = sqrt(1 / r - 1).
    Interval by the delta method over pairs, or ``clusters`` as in slot_bias. None where no pair was shown in both orders or the
    orders agree no more often than by chance, which leaves d unknown.
    """
    pairs = both_orders(first, second, outcome)
    if not len(pairs.low):
        return None
    forward, backward = pairs.shares
    # Per pair: both orders name the first slot, or both the second; else they name one item.
    told = np.stack([forward * (1 - backward), (1 - forward) * backward])  # (2, p)
    n = told.shape[1]
    # Half a pair more of each kind: with none that names the second slot twice all is unbounded.
    means = (told.sum(axis=1) + HALF) / (n + 3 * HALF)
    found = _gaussian(means)
    if found is None:
        return None
    slope = _slope(means)
    if slope is None:
        return None
    off = (told - told.mean(axis=1, keepdims=True)) / n
    spread = _spread(off, _clusters_of(pairs, first, second, clusters)) + np.eye(2) * HALF / n**2
    bias = _bias(
        found[0],
        float(np.sqrt(slope @ spread @ slope)),
        n=n,
        informative=n,
        unit="standard deviations of the difference in utility",
        method="two shares of a bivariate Gaussian",
        level=level,
    )
    return replace(bias, noise=found[1])


def _slope(named: Floats) -> Floats | None:
    """How b moves with either share (2,), by central differences."""
    slopes = []
    for step in np.diag(named * RELATIVE_STEP):
        above, below = _gaussian(named + step), _gaussian(named - step)
        if above is None or below is None:
            return None
        slopes.append((above[0] - below[0]) / (2 * step.sum()))
    return np.array(slopes)


def _gaussian(named: Floats) -> tuple[float, float] | None:
    """(b, noise) in standard deviations of d; None where no correlation above 0 fits.

    named (2,): shares of pairs of which both orders name the first slot, and the second.
    """
    from scipy.optimize import brentq  # slow to import, and every page would

    alike = 1 - float(named.sum())
    h = float(ndtri(named[0] + alike / 2))

    def excess(r: float) -> float:
        return _alike(h, r) - alike

    if excess(0.0) >= 0:
        return None
    if excess(WIDEST_CORRELATION) <= 0:
        return h, 0.0  # no noise at all
    r = float(brentq(excess, 0.0, WIDEST_CORRELATION, xtol=1e-12))
    return h / float(np.sqrt(r)), float(np.sqrt(1 / r - 1))


def _alike(h: float, r: float) -> float:
    """Probability that both orders name the same item. With t = sin x the integrand is smooth."""
    from scipy.integrate import quad  # slow to import, and every page would

    area, _ = quad(lambda x: float(np.exp(-h * h / (1 - np.sin(x)))), 0.0, float(np.arcsin(r)))
    return float(2 * ndtr(h) * ndtr(-h)) + float(area) / float(np.pi)


def _bias(
    b: float, error: float, *, n: int, informative: int, unit: str, method: str, level: float
) -> SlotBias:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected between 0 and 1")
    half = float(ndtri(0.5 + level / 2)) * error
    return SlotBias(b, error, (b - half, b + half), n, informative, unit, method, level)


def _same_shape(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"shapes {one.shape} and {other.shape} must be equal and (m,)")
