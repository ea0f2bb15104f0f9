"""Bradley-Terry scores and the reliability of every rater, learned together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, diags_array
from scipy.special import expit, log_expit, logit, ndtri

from models.comparisons import Codes, Floats, as_codes, as_shares
from models.newton import DENSE_LIMIT

GOLD_LOGIT: Final = 5.0  # a gold pair is the vote of a rater with reliability .993
START: Final = 0.9
ENOUGH: Final = 1e-9  # relative gain of the loss; what is left moves a score by under .002
SMALLEST: Final = 1e-12


@dataclass(frozen=True)
class Cells:
    """Votes summed per (rater, pair): ``i < j``, and how often each side got the vote."""

    rater: Codes
    i: Codes
    j: Codes
    for_i: Floats
    for_j: Floats


@dataclass(frozen=True)
class CrowdLoss:
    """Penalized negative log-likelihood over scores (n,) and logit reliabilities (raters,).

    A vote of rater r for i over j has chance ``(1 + tanh(t_r / 2) tanh((s_i - s_j) / 2)) / 2``,
    the same as ``eta P + (1 - eta) (1 - P)``. Raters from n_raters on are golds, held fixed.
    """

    cells: Cells
    n_items: int
    n_raters: int
    anchor: float
    prior: tuple[float, float]

    def chances(self, at: Floats) -> tuple[Floats, Floats, Floats]:
        """P(vote for i) of each cell, and its slopes by the gap and by the rater's logit."""
        scores, logits = at[: self.n_items], at[self.n_items :]
        trust = np.append(np.tanh(logits / 2), np.tanh(GOLD_LOGIT / 2))[self.cells.rater]
        pull = np.tanh((scores[self.cells.i] - scores[self.cells.j]) / 2)
        chance = (1 + trust * pull) / 2
        return chance, trust * (1 - pull**2) / 4, pull * (1 - trust**2) / 4

    def __call__(self, at: Floats) -> tuple[float, Floats]:
        """The loss and its gradient."""
        scores, logits = at[: self.n_items], at[self.n_items :]
        chance, by_gap, by_logit = self.chances(at)
        yes, no = np.maximum(chance, SMALLEST), np.maximum(1 - chance, SMALLEST)
        a, b = self.prior[0] - 1, self.prior[1] - 1
        loss = -float(self.cells.for_i @ np.log(yes) + self.cells.for_j @ np.log(no))
        loss -= self.anchor * float((log_expit(scores) + log_expit(-scores)).sum())
        loss -= float((a * log_expit(logits) + b * log_expit(-logits)).sum())
        slope = self.cells.for_j / no - self.cells.for_i / yes
        of_gap = slope * by_gap
        score = np.bincount(self.cells.i, weights=of_gap, minlength=self.n_items)
        score -= np.bincount(self.cells.j, weights=of_gap, minlength=self.n_items)
        score += self.anchor * (2 * expit(scores) - 1)
        trust = np.bincount(self.cells.rater, weights=slope * by_logit, minlength=self.n_raters)
        reliability = trust[: self.n_raters] + (a + b) * expit(logits) - a
        return loss, np.concatenate([score, reliability])

    def information(self, at: Floats) -> csr_array:
        """Expected information plus the curvature of both priors, (n + raters) square."""
        chance, by_gap, by_logit = self.chances(at)
        spread = np.maximum(chance * (1 - chance), SMALLEST)
        root = np.sqrt((self.cells.for_i + self.cells.for_j) / spread)
        person = self.cells.rater < self.n_raters
        row = np.arange(len(root))
        rows = np.concatenate([row, row, row[person]])
        at_rater = self.n_items + self.cells.rater[person]
        columns = np.concatenate([self.cells.i, self.cells.j, at_rater])
        slopes = [root * by_gap, -root * by_gap, (root * by_logit)[person]]
        jacobian = csr_array((np.concatenate(slopes), (rows, columns)), shape=(len(root), len(at)))
        mean = expit(at)
        strength = np.repeat([2 * self.anchor, sum(self.prior) - 2], [self.n_items, self.n_raters])
        return csr_array(jacobian.T @ jacobian + diags_array(strength * mean * (1 - mean)))


class CrowdBradleyTerry:
    """Scores of items and the reliability of raters from their pairwise votes (CrowdBT).

    A rater votes with the truth with chance eta; .5 is noise, less is an adversary whose votes
    are turned round. ``anchor`` is the virtual node of the paper; ``prior`` the Beta prior of
    eta, whose mean above .5 decides between a world and its mirror image. Reliabilities and the
    spread of the scores are nearly exchangeable in a few thousand votes (a world of better raters
    and closer items looks alike): the order of the items is far surer than their distances.

    Learned: ``scores_`` (items,) with ``score_low_``, ``score_high_``; ``reliability_`` (raters,)
    with ``reliability_low_``, ``reliability_high_`` (from the curvature on the logit scale);
    ``weights_`` (raters,) the log-odds of the reliability; ``n_votes_`` (raters,); ``loss_``,
    ``n_iter_``, ``converged_``; ``interval_method_`` says whether the intervals are joint or, for
    more than DENSE_LIMIT items and raters, take all else as known, which is too narrow.

    Source: Chen, Bennett, Collins-Thompson and Horvitz 2013, WSDM, doi 10.1145/2433396.2433420.
    """

    scores_: Floats
    score_low_: Floats
    score_high_: Floats
    reliability_: Floats
    reliability_low_: Floats
    reliability_high_: Floats
    weights_: Floats
    n_votes_: Floats
    loss_: float
    n_iter_: int
    converged_: bool
    interval_method_: str

    def __init__(
        self,
        anchor: float = 1.0,
        prior: tuple[float, float] = (3.0, 1.1),
        max_iter: int = 500,
        level: float = 0.95,
    ) -> None:
        self.anchor = anchor
        self.prior = prior
        self.max_iter = max_iter
        self.level = level

    def fit(
        self,
        raters: ArrayLike,
        a: ArrayLike,
        b: ArrayLike,
        outcome: ArrayLike,
        *,
        gold: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
        n_items: int | None = None,
        n_raters: int | None = None,
    ) -> Self:
        """Learn from votes (m,): outcome +1 for a, -1 for b, 0 for a tie, half a vote each.

        gold: pairs of known outcome as (a, b, outcome) of their own. Each counts as one vote of
        a rater who is right, so it takes some dozens to outweigh a crowd of adversaries.
        Raises ValueError on no votes, unequal shapes, codes out of range, an item against itself,
        other outcomes, an anchor that is not positive, or a prior (a, b) without a > b > 1.
        """
        if not self.anchor > 0 or not self.prior[0] > self.prior[1] > 1:
            raise ValueError("anchor must be positive, the prior (a, b) have a > b > 1")
        people = as_codes(raters, "raters", n_raters)
        if people.size == 0:
            raise ValueError("there are no votes")
        if n_raters is None:
            n_raters = int(people.max()) + 1
        first, second = as_codes(a, "a", n_items), as_codes(b, "b", n_items)
        columns = [people, first, second, np.asarray(outcome)]
        if gold is not None:
            known = [as_codes(gold[0], "a", n_items), as_codes(gold[1], "b", n_items)]
            known.append(np.asarray(gold[2]))
            extra = [np.full(known[0].shape, n_raters), *known]
            columns = [np.concatenate(both) for both in zip(columns, extra, strict=True)]
        if n_items is None:
            n_items = int(max(columns[1].max(), columns[2].max())) + 1
        cells = sum_votes(*columns, n_items=n_items, n_raters=n_raters + 1)
        loss = CrowdLoss(cells, n_items, n_raters, self.anchor, self.prior)
        self._minimize(loss)
        self._put_intervals(loss)
        votes = cells.for_i + cells.for_j
        self.n_votes_ = np.bincount(cells.rater, weights=votes, minlength=n_raters)[
            :n_raters
        ].astype(float)
        return self

    def predict_proba(self, a: ArrayLike, b: ArrayLike) -> Floats:
        """Chance (m,) that a is the better one, by the learned scores."""
        n = len(self.scores_)
        first, second = as_codes(a, "a", n), as_codes(b, "b", n)
        return np.asarray(expit(self.scores_[first] - self.scores_[second]))

    def _minimize(self, loss: CrowdLoss) -> None:
        from scipy.optimize import minimize  # slow to import, and every page would

        n = loss.n_items
        start = np.concatenate([np.zeros(n), np.full(loss.n_raters, logit(START))])
        options = {"maxiter": self.max_iter, "maxcor": 20, "ftol": ENOUGH, "gtol": 1e-6}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        # The mirror image has the same likelihood; only priors and golds tell which it is.
        best = found
        if loss(-found.x)[0] < found.fun:
            best = minimize(loss, -found.x, jac=True, method="L-BFGS-B", options=options)
        self.loss_, self.n_iter_ = float(best.fun), int(best.nit)
        self.converged_ = bool(best.success)
        self._at = np.asarray(best.x)

    def _put_intervals(self, loss: CrowdLoss) -> None:
        information = loss.information(self._at)
        if information.shape[0] <= DENSE_LIMIT:
            variances = np.linalg.inv(information.toarray()).diagonal()
            self.interval_method_ = "joint curvature"
        else:
            variances = 1 / information.diagonal()
            self.interval_method_ = "diagonal curvature"
        half = float(ndtri(0.5 + self.level / 2)) * np.sqrt(np.maximum(variances, 0))
        n = loss.n_items
        low, high = self._at - half, self._at + half
        self.scores_, self.score_low_, self.score_high_ = self._at[:n], low[:n], high[:n]
        self.weights_ = self._at[n:]
        self.reliability_ = expit(self.weights_)
        self.reliability_low_, self.reliability_high_ = expit(low[n:]), expit(high[n:])


def sum_votes(
    raters: NDArray[np.int64],
    a: ArrayLike,
    b: ArrayLike,
    outcome: ArrayLike,
    *,
    n_items: int,
    n_raters: int,
) -> Cells:
    """Votes summed per (rater, unordered pair). Raises ValueError; see CrowdBradleyTerry.fit."""
    rater = as_codes(raters, "raters", n_raters)
    first, second = as_codes(a, "a", n_items), as_codes(b, "b", n_items)
    if not rater.shape == first.shape == second.shape:
        raise ValueError(f"shapes differ: {rater.shape}, {first.shape}, {second.shape}")
    if (first == second).any():
        raise ValueError("an item cannot be compared with itself")
    share = as_shares(outcome, first.size)
    low, high = np.minimum(first, second), np.maximum(first, second)
    code, row = np.unique((rater * n_items + low) * n_items + high, return_inverse=True)
    total = np.bincount(row).astype(np.float64)
    for_low = np.bincount(row, weights=np.where(first < second, share, 1 - share)).astype(float)
    pair = code % (n_items * n_items)
    return Cells(
        code // (n_items * n_items), pair // n_items, pair % n_items, for_low, total - for_low
    )
