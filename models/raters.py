"""Consensus of several raters per item, and how far each rater is to be trusted. Pure numpy.

Judgments are code arrays of one row per judgment: item, rater, label. For pairs, bring every
verdict into one canonical order of the two responses first: else the classes mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from models.comparisons import Codes, Floats, as_codes
from models.crowd import CrowdBradleyTerry
from models.gold import wilson_shares

__all__ = [
    "CrowdBradleyTerry",
    "DawidSkene",
    "MajorityVote",
    "split_accuracy",
]

UNKNOWN: Final = -1
LARGEST_TABLE: Final = 100_000_000  # cells of a posterior or of all confusions, 800 MB
TIE: Final = 1e-12


@dataclass(frozen=True)
class Votes:
    """Checked judgments as one sparse matrix: item x (rater, label), how often it was said."""

    cells: csr_array  # (n_items, n_raters * n_classes)
    n_items: int
    n_raters: int
    n_classes: int

    def by_item(self) -> Floats:
        """Votes of each class per item, (n_items, n_classes)."""
        which = np.tile(np.eye(self.n_classes), (self.n_raters, 1))
        return np.asarray(self.cells @ which)

    def by_rater(self) -> Floats:
        """How many judgments each rater made, (n_raters,)."""
        said = np.asarray(self.cells.sum(axis=0))
        return np.asarray(said.reshape(self.n_raters, self.n_classes).sum(axis=1), dtype=float)


def count_votes(
    items: ArrayLike,
    raters: ArrayLike,
    labels: ArrayLike,
    *,
    n_items: int | None = None,
    n_raters: int | None = None,
    n_classes: int | None = None,
) -> Votes:
    """Votes from code arrays (m,). Sizes not given are one more than the largest code.

    Raises ValueError on no rows, unequal shapes, negative or fractional codes, codes beyond
    the given sizes, or tables of more than LARGEST_TABLE cells.
    """
    columns = {"items": items, "raters": raters, "labels": labels}
    shapes = {name: np.shape(column) for name, column in columns.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"items, raters and labels differ in shape: {shapes}")
    if np.size(items) == 0:
        raise ValueError("there are no judgments")
    given = (n_items, n_raters, n_classes)
    item, rater, label = (
        as_codes(column, name, size)
        for (name, column), size in zip(columns.items(), given, strict=True)
    )
    sizes = [
        int(codes.max()) + 1 if size is None else size
        for codes, size in zip((item, rater, label), given, strict=True)
    ]
    if sizes[2] * max(sizes[0], sizes[1] * sizes[2]) > LARGEST_TABLE:
        raise ValueError(f"{sizes[0]} items, {sizes[1]} raters, {sizes[2]} classes are too many")
    said = rater * sizes[2] + label
    shape = (sizes[0], sizes[1] * sizes[2])
    cells = csr_array((np.ones(len(item)), (item, said)), shape=shape)  # doubles are summed
    return Votes(cells, *sizes)


def split_accuracy(posterior: Floats, truth: ArrayLike) -> float | None:
    """Share of items whose largest posterior is the truth; ties of k classes count 1/k.

    posterior (n, classes); truth (n,) class codes, UNKNOWN where there is none. None where no
    truth is known.
    """
    codes = np.asarray(truth)
    known = codes != UNKNOWN
    if not known.any():
        return None
    scores, codes = posterior[known], codes[known]
    top = scores >= scores.max(axis=1, keepdims=True) - TIE
    hit = top[np.arange(len(codes)), codes]
    return float(np.mean(hit / top.sum(axis=1)))


class MajorityVote:
    """The share of votes, every rater alike: the baseline of everything below.

    ``posterior_`` (items, classes) vote shares, uniform for an item without votes; ``labels_``
    (items,) the class with most votes, the lowest where tied; ``is_tied_`` (items,).
    """

    posterior_: Floats
    labels_: Codes
    is_tied_: NDArray[np.bool_]

    def fit(
        self,
        items: ArrayLike,
        raters: ArrayLike,
        labels: ArrayLike,
        *,
        n_items: int | None = None,
        n_classes: int | None = None,
    ) -> Self:
        """Count. Raises ValueError as count_votes does."""
        votes = count_votes(items, raters, labels, n_items=n_items, n_classes=n_classes)
        self.posterior_ = _shares(votes.by_item())
        self.labels_, self.is_tied_ = _decide(self.posterior_)
        return self


class DawidSkene:
    """A confusion matrix per rater and a posterior per item, by expectation-maximization.

    Raters are taken to err independently given the truth; where they share their errors it can
    do worse than voting: see models.shared_errors. It also needs about 5 labels per rater and
    class, and where most raters are adversaries it learns the labels swapped unless gold says
    otherwise.

    Learned: ``posterior_`` (items, classes), ``labels_`` and ``is_tied_`` (items,), ``prior_``
    (classes,), ``confusion_`` (raters, classes, classes) with [a, k, l] the chance that a says l
    where k is true, ``accuracy_`` (raters,) the posterior expectation of each rater's share of
    right labels with ``accuracy_low_``, ``accuracy_high_`` (95 percent, Wilson on
    the number of judgments less what doubt about the truth takes away; still a little optimistic
    with few raters per item, since the posterior knows the rater's own votes),
    ``n_judgments_`` (raters,), ``log_likelihoods_`` one per iteration, ``n_iter_``,
    ``converged_``.

    Source: Dawid and Skene 1979, Applied Statistics 28:20.
    """

    posterior_: Floats
    labels_: Codes
    is_tied_: NDArray[np.bool_]
    prior_: Floats
    confusion_: Floats
    accuracy_: Floats
    accuracy_low_: Floats
    accuracy_high_: Floats
    n_judgments_: Floats
    log_likelihoods_: list[float]
    n_iter_: int
    converged_: bool

    def __init__(self, smoothing: float = 0.01, max_iter: int = 100, tol: float = 1e-5) -> None:
        """smoothing is added to every cell of a confusion count; tol is of the log-likelihood."""
        self.smoothing = smoothing
        self.max_iter = max_iter
        self.tol = tol

    def fit(
        self,
        items: ArrayLike,
        raters: ArrayLike,
        labels: ArrayLike,
        gold: ArrayLike | None = None,
        *,
        n_items: int | None = None,
        n_raters: int | None = None,
        n_classes: int | None = None,
    ) -> Self:
        """Learn from code arrays (m,); gold (items,) holds true classes, UNKNOWN elsewhere.

        Raises ValueError as count_votes does, on a gold of another shape or beyond the classes,
        and where smoothing is not positive or max_iter is below 1.
        """
        if not self.smoothing > 0 or self.max_iter < 1:
            raise ValueError("smoothing must be more than 0 and max_iter at least 1")
        sizes = {"n_items": n_items, "n_raters": n_raters, "n_classes": n_classes}
        if gold is not None and n_items is None:
            sizes["n_items"] = np.size(gold)
        votes = count_votes(items, raters, labels, **sizes)
        known, truth = _gold(gold, votes)
        tally = votes.by_item()
        judged = tally.sum(axis=1) > 0
        posterior = _shares(tally)
        posterior[known] = truth
        back = votes.cells.T.tocsr()  # (raters * classes, items): one row per thing said
        self.log_likelihoods_ = []
        self.converged_ = False
        for _ in range(self.max_iter):
            self.prior_, self.confusion_ = self._maximize(posterior, judged | known, back, votes)
            posterior, likelihood = self._expect(votes, known, truth)
            before = self.log_likelihoods_[-1] if self.log_likelihoods_ else -np.inf
            self.log_likelihoods_.append(likelihood)
            if abs(likelihood - before) < self.tol:
                self.converged_ = True
                break
        self.n_iter_ = len(self.log_likelihoods_)
        self.posterior_ = posterior
        self.labels_, self.is_tied_ = _decide(posterior)
        self._judge_raters(back, votes)
        return self

    def _maximize(
        self, posterior: Floats, counted: NDArray[np.bool_], back: csr_array, votes: Votes
    ) -> tuple[Floats, Floats]:
        """Prior (classes,) and confusion (raters, classes, classes) that fit a posterior."""
        prior = posterior[counted].mean(axis=0)
        said = (back @ posterior).reshape(votes.n_raters, votes.n_classes, votes.n_classes)
        counts = said.transpose(0, 2, 1) + self.smoothing  # said is [rater, label, truth]
        return prior, counts / counts.sum(axis=2, keepdims=True)

    def _expect(
        self, votes: Votes, known: NDArray[np.bool_], truth: Floats
    ) -> tuple[Floats, float]:
        """Posterior (items, classes) and the log-likelihood of the votes."""
        width = votes.n_classes
        logs = np.log(self.confusion_).transpose(0, 2, 1).reshape(-1, width)
        scores = votes.cells @ logs  # (items, classes)
        scores += np.log(np.maximum(self.prior_, np.finfo(float).tiny))
        top = scores.max(axis=1, keepdims=True)
        at_gold = (scores[known] * truth).sum()
        np.exp(np.subtract(scores, top, out=scores), out=scores)
        total = scores.sum(axis=1, keepdims=True)
        likelihood = (top + np.log(total))[~known].sum() + at_gold
        posterior = np.divide(scores, total, out=scores)
        posterior[known] = truth
        return posterior, float(likelihood)

    def _judge_raters(self, back: csr_array, votes: Votes) -> None:
        """Accuracy of each rater; doubt about the truth makes their judgments count for less."""

        def own(table: Floats) -> Floats:
            """Sum over a rater's judgments of table[item, label]."""
            cells = (back @ table).reshape(votes.n_raters, votes.n_classes, votes.n_classes)
            return np.asarray(np.einsum("akk->a", cells))

        n = self.n_judgments_ = votes.by_rater()
        posterior = self.posterior_
        share = np.divide(own(posterior), n, out=np.full_like(n, np.nan), where=n > 0)
        share = np.minimum(share, 1.0)
        sampling, doubt = n * share * (1 - share), own(posterior * (1 - posterior))
        kept = np.divide(sampling, sampling + doubt, out=np.ones_like(n), where=sampling > 0)
        effective = np.where(n > 0, n * kept, 0.0)
        shares = wilson_shares(np.where(n > 0, share * effective, 0.0), effective)
        self.accuracy_, self.accuracy_low_, self.accuracy_high_ = share, shares.low, shares.high


def _shares(tally: Floats) -> Floats:
    total = tally.sum(axis=1, keepdims=True)
    uniform = np.full_like(tally, 1 / tally.shape[1])
    return np.asarray(np.divide(tally, total, out=uniform, where=total > 0))


def _decide(posterior: Floats) -> tuple[Codes, NDArray[np.bool_]]:
    top = posterior >= posterior.max(axis=1, keepdims=True) - TIE
    return posterior.argmax(axis=1).astype(np.int64), top.sum(axis=1) > 1


def _gold(gold: ArrayLike | None, votes: Votes) -> tuple[NDArray[np.bool_], Floats]:
    """Which items are known, (items,), and their truth as rows of 0 and 1, (known, classes)."""
    if gold is None:
        return np.zeros(votes.n_items, dtype=bool), np.empty((0, votes.n_classes))
    codes = np.asarray(gold)
    if codes.shape != (votes.n_items,):
        raise ValueError(f"gold {codes.shape} must be ({votes.n_items},)")
    known = codes != UNKNOWN
    truth = as_codes(codes[known], "gold", votes.n_classes)
    return known, np.eye(votes.n_classes)[truth]
