"""From a convex loss to a Ranking: the minimum, the spread around it, what it rests on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from models.comparisons import Floats, Graph, Ranking
from models.newton import (
    DENSE_LIMIT,
    Loss,
    center,
    centered_covariance,
    minimize,
    scaled_variances,
)

Gradients = Callable[[Floats], csr_array]  # scores (n,) -> gradient of every cluster (m, n)


def fit_ranking(
    loss: Loss,
    graph: Graph,
    *,
    wins: Floats,
    games: Floats,
    ridge: float,
    level: float,
    gradients: Gradients | None = None,
) -> Ranking:
    """Minimize a loss over the items of a graph. Raises ValueError on a bad ridge or level."""
    if not (np.isfinite(ridge) and ridge > 0):
        raise ValueError(f"ridge is {ridge}, expected more than 0")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected between 0 and 1")
    n = len(games)
    scores, n_iter, converged = minimize(loss, n, ridge=ridge)
    # The ridge alone holds the mean of a component at 0, which a tiny ridge does loosely.
    scores = center(scores[:, None], graph.components)[:, 0]
    hessian = loss.curvature(scores)
    per_cluster = None if gradients is None else gradients(scores)
    covariance = None
    if n <= DENSE_LIMIT:
        meat = None if per_cluster is None else (per_cluster.T @ per_cluster).toarray()
        covariance = centered_covariance(hessian, graph.components, ridge=ridge, meat=meat)
        variances = covariance.diagonal().copy()
    else:
        variances = scaled_variances(hessian, graph.components, ridge=ridge, spread=per_cluster)
    if per_cluster is not None:
        # Nothing is left to vary for an item that always won: its curvature is the honest one.
        held = np.array([*graph.unbeaten, *graph.winless], dtype=int)
        least = 1 / (hessian.diagonal()[held] + ridge)
        variances[held] = np.maximum(variances[held], least)
        if covariance is not None:
            covariance[held, held] = variances[held]
    variances[games <= 0] = 1 / ridge
    errors = np.sqrt(np.maximum(variances, 0.0))
    half = float(ndtri(0.5 + level / 2)) * errors
    base = "curvature" if per_cluster is None else "sandwich over clusters"
    return Ranking(
        scores=scores,
        standard_errors=errors,
        low=scores - half,
        high=scores + half,
        wins=wins,
        games=games,
        components=graph.components,
        n_components=graph.n_components,
        is_connected=graph.n_components == 1,
        unbeaten=graph.unbeaten,
        winless=graph.winless,
        message=graph.message,
        level=level,
        interval_method=base if covariance is not None else f"{base}, diagonal approximation",
        n_iter=n_iter,
        converged=converged,
        covariance=covariance,
    )
