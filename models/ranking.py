"""Scores from comparisons: Bradley-Terry, Plackett-Luce, win rates. Pure numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import expit, logit, ndtri

from models.comparisons import (
    Edges,
    Floats,
    Ranking,
    aggregate,
    as_shares,
    as_weights,
    describe,
)
from models.fitting import fit_ranking
from models.newton import DENSE_LIMIT
from models.plackett import plackett_luce

__all__ = [
    "DENSE_LIMIT",
    "RIDGE",
    "Ranking",
    "WinRates",
    "bradley_terry",
    "plackett_luce",
    "win_rates",
]

RIDGE: Final = 0.01  # a normal prior with standard deviation 10 log-odds: weak, but finite


@dataclass(frozen=True)
class PairLoss:
    """Negative log-likelihood of Bradley-Terry on aggregated edges."""

    edges: Edges
    n: int

    def value(self, scores: Floats) -> float:
        gap = scores[self.edges.i] - scores[self.edges.j]
        beat, lost = np.logaddexp(0, -gap), np.logaddexp(0, gap)  # -log P(i wins), P(j wins)
        return float(self.edges.won_i @ beat + self.edges.won_j @ lost)

    def gradient(self, scores: Floats) -> Floats:
        won = self.edges.won_i
        surplus = (won + self.edges.won_j) * self._chance(scores) - won
        here = np.bincount(self.edges.i, weights=surplus, minlength=self.n)
        there = np.bincount(self.edges.j, weights=surplus, minlength=self.n)
        return (here - there).astype(np.float64)

    def curvature(self, scores: Floats) -> csr_array:
        chance = self._chance(scores)
        pull = (self.edges.won_i + self.edges.won_j) * chance * (1 - chance)
        i, j, ends = self.edges.i, self.edges.j, np.arange(self.n)
        own = np.bincount(i, weights=pull, minlength=self.n)
        own += np.bincount(j, weights=pull, minlength=self.n)
        rows, columns = np.concatenate([i, j, ends]), np.concatenate([j, i, ends])
        cells = np.concatenate([-pull, -pull, own])
        return csr_array((cells, (rows, columns)), shape=(self.n, self.n))

    def _chance(self, scores: Floats) -> Floats:
        return np.asarray(expit(scores[self.edges.i] - scores[self.edges.j]))


def bradley_terry(
    a: ArrayLike,
    b: ArrayLike,
    outcome: ArrayLike,
    *,
    n_items: int,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    ridge: float = RIDGE,
    level: float = 0.95,
) -> Ranking:
    """Scores s (n_items,) with ``P(a beats b) = 1 / (1 + exp(s_b - s_a))``.

    a, b (m,) item codes; outcome (m,) +1 where a won, -1 where b won, 0 for a tie, which counts
    as half a win each; weights (m,), default 1. The prior ``-ridge / 2 * s^2`` keeps every score
    finite. Intervals are from the curvature at the maximum; with ``clusters`` (m,), such as the
    rater or the ranking a row came from, from the cluster sandwich, since rows of one cluster are
    not independent. For more than DENSE_LIMIT items they are approximate (scaled_variances).

    Raises ValueError on no comparisons, unequal shapes, codes outside 0..n_items-1, an item
    against itself, other outcomes, bad weights, or a ridge or level out of range.
    Source: Bradley and Terry 1952, Biometrika 39:324; sandwich: Liang and Zeger 1986,
    Biometrika 73:13.
    """
    edges = aggregate(a, b, outcome, n_items=n_items, weights=weights)
    beat, lost = edges.won_i > 0, edges.won_j > 0
    total = edges.won_i + edges.won_j
    games = _per_item(edges, total, total, n_items)
    graph = describe(
        np.concatenate([edges.i[beat], edges.j[lost]]),
        np.concatenate([edges.j[beat], edges.i[lost]]),
        n_items=n_items,
        games=games,
    )

    def gradients(scores: Floats) -> csr_array:
        weight = as_weights(weights, len(edges.row))
        share = as_shares(outcome, len(edges.row))
        return _cluster_gradients(edges, scores, share, weight, clusters)

    return fit_ranking(
        PairLoss(edges, n_items),
        graph,
        wins=_per_item(edges, edges.won_i, edges.won_j, n_items),
        games=games,
        ridge=ridge,
        level=level,
        gradients=None if clusters is None else gradients,
    )


@dataclass(frozen=True)
class WinRates:
    """Expected share of wins of each item against all others of its component. Arrays (n,).

    ``share`` is nan for an item that was never compared. ``wins``, ``ties`` and ``losses`` are
    plain counts of comparisons; ``ranking`` is the fit behind the shares.
    """

    share: Floats
    low: Floats
    high: Floats
    wins: NDArray[np.int64]
    ties: NDArray[np.int64]
    losses: NDArray[np.int64]
    ranking: Ranking


def win_rates(
    a: ArrayLike,
    b: ArrayLike,
    outcome: ArrayLike,
    *,
    n_items: int,
    clusters: ArrayLike | None = None,
    ridge: float = RIDGE,
    level: float = 0.95,
) -> WinRates:
    """Win shares against the field, as if every item met every other equally often.

    The share of i is the mean of ``1 / (1 + exp(s_j - s_i))`` over the other items j of its
    component: unlike the raw share it does not depend on whom i happened to meet. The interval is
    by the delta method on the logit scale, from the full covariance of the scores.
    Arguments and errors as in bradley_terry; also ValueError for more than DENSE_LIMIT items.
    """
    if n_items > DENSE_LIMIT:
        raise ValueError(f"win rates are for at most {DENSE_LIMIT:,} items, not {n_items:,}")
    ranking = bradley_terry(
        a, b, outcome, n_items=n_items, clusters=clusters, ridge=ridge, level=level
    )
    covariance = ranking.covariance
    assert covariance is not None  # up to DENSE_LIMIT items there is one
    scores, components = ranking.scores, ranking.components
    field = components[:, None] == components[None, :]
    np.fill_diagonal(field, False)
    rivals = np.maximum(field.sum(axis=1), 1)
    chance = expit(scores[:, None] - scores[None, :])  # (n, n)
    share = (chance * field).sum(axis=1) / rivals
    slope = -chance * (1 - chance) * field / rivals[:, None]  # d share_i / d s_j
    slope[np.diag_indices(n_items)] = -slope.sum(axis=1)
    variance = np.einsum("ij,ij->i", slope @ covariance, slope)
    known = ranking.games > 0
    error = np.sqrt(np.maximum(variance, 0))[known] / (share * (1 - share))[known]
    half = float(ndtri(0.5 + level / 2)) * error
    low, high = np.full(n_items, np.nan), np.full(n_items, np.nan)
    low[known], high[known] = expit(logit(share[known]) - half), expit(logit(share[known]) + half)
    share[~known] = np.nan
    first, second, result = np.asarray(a), np.asarray(b), np.asarray(outcome)

    def count(of: int) -> NDArray[np.int64]:
        """Rows in which an item came out of the comparison with this outcome."""
        there = np.concatenate([first[result == of], second[result == -of]]).astype(np.int64)
        return np.bincount(there, minlength=n_items).astype(np.int64)

    return WinRates(share, low, high, count(1), count(0), count(-1), ranking)


def _per_item(edges: Edges, of_i: Floats, of_j: Floats, n: int) -> Floats:
    here = np.bincount(edges.i, weights=of_i, minlength=n)
    return (here + np.bincount(edges.j, weights=of_j, minlength=n)).astype(np.float64)


def _cluster_gradients(
    edges: Edges, scores: Floats, share: Floats, weight: Floats, clusters: ArrayLike | None
) -> csr_array:
    """Gradient of the log-likelihood summed over the rows of each cluster, (clusters, n)."""
    labels = np.asarray(clusters)
    if labels.shape != share.shape:
        raise ValueError(f"clusters {labels.shape} must be {share.shape}")
    names, cluster = np.unique(labels, return_inverse=True)
    straight = edges.sign > 0
    a = np.where(straight, edges.i[edges.row], edges.j[edges.row])
    b = np.where(straight, edges.j[edges.row], edges.i[edges.row])
    surplus = weight * (share - expit(scores[a] - scores[b]))
    # One cluster fewer is free: the scores were fitted to all of them.
    surplus *= np.sqrt(len(names) / max(len(names) - 1, 1))
    cells = np.concatenate([surplus, -surplus])
    where = (np.concatenate([cluster, cluster]), np.concatenate([a, b]))
    return csr_array((cells, where), shape=(len(names), len(scores)))
