"""Newton's method for the convex losses of ranking models, and the spread of what it finds.

The losses change nothing when every item of one component moves by the same
amount; only ``ridge / 2 * sum(s**2)`` holds them in place, and it puts the mean of each component
at 0. So what is reported is the covariance of centered scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

Floats = NDArray[np.float64]

DENSE_LIMIT: Final = 2_000  # items up to which the whole covariance is computed, 32 MB
DIRECT_LIMIT: Final = 300  # items up to which a dense solve beats conjugate gradients
PROBES: Final = 8  # of the trace estimate beyond DENSE_LIMIT
LONGEST_STEP: Final = 5.0  # in units of log-odds; farther away a quadratic is no guide


class Loss(Protocol):
    """A convex function of scores (n,), without its ridge."""

    def value(self, scores: Floats) -> float: ...
    def gradient(self, scores: Floats) -> Floats: ...
    def curvature(self, scores: Floats) -> csr_array: ...


def minimize(
    loss: Loss, n: int, *, ridge: float, max_iter: int = 200, tol: float = 1e-8
) -> tuple[Floats, int, bool]:
    """Scores (n,) at the minimum of ``loss + ridge / 2 * |s|^2``, iterations, converged or not.

    Damped Newton steps with Armijo backtracking, until no score moves by more than ``tol``.
    """
    scores = np.zeros(n)

    def total(at: Floats) -> float:
        return loss.value(at) + ridge / 2 * float(at @ at)

    here = total(scores)
    for iteration in range(1, max_iter + 1):
        slope = loss.gradient(scores) + ridge * scores
        step = -solve(loss.curvature(scores), slope[:, None], ridge=ridge)[:, 0]
        longest = float(np.abs(step).max())
        if longest < tol:
            return scores + step, iteration, True
        size = min(1.0, LONGEST_STEP / longest)
        descent = float(slope @ step)
        # Near the minimum the gain drowns in the rounding of the loss itself.
        slack = 1e-13 * max(1.0, abs(here))
        while size > 1e-10:
            there = total(scores + size * step)
            if there <= here + 1e-4 * size * descent + slack:
                break
            size /= 2
        else:
            # No shorter step gains a thing: at the bottom as far as floating point can see.
            return scores, iteration, -descent < 1e-9 * max(1.0, abs(here))
        scores, here = scores + size * step, there
    return scores, max_iter, False


def solve(hessian: csr_array, right: Floats, *, ridge: float) -> Floats:
    """``(hessian + ridge I)^-1 right`` for right (n, k)."""
    n = hessian.shape[0]
    if n <= DIRECT_LIMIT:
        factor = cho_factor(hessian.toarray() + ridge * np.eye(n))
        return np.asarray(cho_solve(factor, right))
    diagonal = hessian.diagonal() + ridge
    return conjugate_gradients(lambda x: hessian @ x + ridge * x, right, diagonal=diagonal)


def conjugate_gradients(
    product: Callable[[Floats], Floats],
    right: Floats,
    *,
    diagonal: Floats,
    tol: float = 1e-9,
    max_iter: int = 1_000,
) -> Floats:
    """Solve a symmetric positive definite system for right (n, k), all columns at once.

    Preconditioned by the diagonal. Source: Golub and Van Loan, Matrix Computations, 11.5.
    """
    x = np.zeros_like(right)
    residual = right.copy()
    scaled = residual / diagonal[:, None]
    direction = scaled.copy()
    energy = (residual * scaled).sum(axis=0)  # (k,)
    goal = tol**2 * np.maximum(energy, np.finfo(float).tiny)
    for _ in range(max_iter):
        if np.all(energy <= goal):
            break
        moved = product(direction)
        along = (direction * moved).sum(axis=0)
        rate = np.divide(energy, along, out=np.zeros_like(energy), where=along > 0)
        x += rate * direction
        residual -= rate * moved
        scaled = residual / diagonal[:, None]
        before, energy = energy, (residual * scaled).sum(axis=0)
        turn = np.divide(energy, before, out=np.zeros_like(energy), where=before > 0)
        direction = scaled + turn * direction
    return x


def centered_covariance(
    hessian: csr_array, components: NDArray[np.intp], *, ridge: float, meat: Floats | None = None
) -> Floats:
    """Covariance (n, n) of scores centered in their component.

    ``(H + ridge I)^-1`` without the direction in which a component moves as a whole, or the
    sandwich ``H^-1 meat H^-1`` where ``meat`` (n, n), the covariance of the gradient, is given.
    """
    same = components[:, None] == components[None, :]
    sizes = np.bincount(components)[components]
    diagonal = hessian.diagonal()
    # The common shift is an eigenvector with eigenvalue `ridge`; raise it to a harmless size,
    # invert, and take it out again. Inverting first would subtract two huge numbers.
    lift = max(float(diagonal.mean()), ridge)
    matrix = hessian.toarray() + same * (lift / sizes) + ridge * np.eye(len(sizes))
    inverse = cho_solve(cho_factor(matrix), np.eye(len(sizes)))
    inverse -= same / (sizes * (lift + ridge))
    if meat is not None:
        inverse = inverse @ meat @ inverse
    return np.asarray((inverse + inverse.T) / 2)


def scaled_variances(
    hessian: csr_array,
    components: NDArray[np.intp],
    *,
    ridge: float,
    spread: csr_array | None = None,
) -> Floats:
    """Approximate variances (n,) of centered scores for many items, without an inverse.

    ``1 / H_ii``, which alone is too small, times one factor that makes their sum equal the trace
    of the true covariance (``meat_ii / H_ii^2`` for the sandwich). The trace comes from random probes (Hutchinson 1989, Communications in
    Statistics 18:1059), whose error falls with the number of items: under 1 percent from 2,000.
    spread (m, n): per-cluster gradients; with them the trace is of the sandwich.
    """
    n = len(components)
    probes = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, PROBES))
    solved = center(solve(hessian, center(probes, components), ridge=ridge), components)
    moved = solved if spread is None else np.asarray(spread @ solved)
    trace = float((probes * solved).sum() if spread is None else (moved**2).sum()) / PROBES
    plain = 1 / (hessian.diagonal() + ridge)
    if spread is not None:
        plain *= plain * np.asarray(spread.multiply(spread).sum(axis=0)).ravel()
    lonely = np.bincount(components)[components] == 1
    plain[lonely] = 0.0
    return np.asarray(plain * (trace / max(float(plain.sum()), np.finfo(float).tiny)))


def center(columns: Floats, components: NDArray[np.intp]) -> Floats:
    sizes = np.bincount(components)
    member = csr_array(
        (np.ones(len(components)), (components, np.arange(len(components)))),
        shape=(len(sizes), len(components)),
    )
    means = (member @ columns) / sizes[:, None]
    return np.asarray(columns - means[components])
