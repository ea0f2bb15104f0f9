"""Do raters share their errors? Dawid-Skene takes them to be independent, and fails where not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc

from models.comparisons import Codes, Floats
from models.raters import DawidSkene, Votes, count_votes

RATERS_AT_MOST: Final = 300  # those with most judgments: pairs grow with the square
FEWEST_SHARED: Final = 10  # items that two raters must share to be looked at
ERROR_RATE: Final = 0.01  # chance to name any pair at all where raters are independent
LEAST_EXCESS: Final = 0.1  # correlation below which it is not worth a warning
NAMED_PAIRS: Final = 10


@dataclass(frozen=True)
class AlikePair:
    """Two raters who agree more often than two independent ones of their quality would."""

    first: int
    second: int
    shared: int
    agreement: float
    expected: float
    excess: float  # (agreement - expected) / sqrt(expected (1 - expected)): a correlation
    p_value: float


@dataclass(frozen=True)
class SharedErrors:
    """Whether raters share errors. ``excess`` is None where no pair could be looked at.

    ``excess`` is the mean correlation over pairs beyond independence; ``n_alike`` of ``n_pairs``
    pairs are beyond chance (Bonferroni) and beyond LEAST_EXCESS; ``worst`` names some of them.
    """

    is_warning: bool
    message: str
    excess: float | None
    n_alike: int
    n_pairs: int
    n_raters: int
    worst: tuple[AlikePair, ...]


def shared_errors(
    items: ArrayLike,
    raters: ArrayLike,
    labels: ArrayLike,
    fitted: DawidSkene,
    *,
    named: int = NAMED_PAIRS,
) -> SharedErrors:
    """Compare the agreement of every two raters with what a fitted DawidSkene predicts.

    Given the truth, independent raters u and v agree with chance
    ``sum_k prior_k sum_l confusion_u[k, l] confusion_v[k, l]``. Their agreements on shared items
    are then a binomial count; its exact upper tail is the p-value. Raters that share errors
    (models of one family, people copying) agree more than that: their common votes are not as
    many pieces of evidence as Dawid-Skene counts them, and it may do worse than voting.

    It cannot see an error that *all* raters share alike, which looks like the truth (only golds
    can), nor anything with fewer than four raters, where the fit absorbs it.
    Same arrays as DawidSkene.fit; ``named`` pairs at most are in ``worst``. Raises ValueError as count_votes does.
    Source: residual association of latent class models, Qu, Tan and Kutner 1996, Biometrics
    52:797.
    """
    n_raters, n_classes, _ = fitted.confusion_.shape
    votes = count_votes(items, raters, labels, n_raters=n_raters, n_classes=n_classes)
    busiest = np.sort(np.argsort(-votes.by_rater(), kind="stable")[:RATERS_AT_MOST]).astype(int)
    shared, agreed = _agreements(votes, busiest)
    confusion = fitted.confusion_[busiest]
    expected = np.einsum("k,akl,bkl->ab", fitted.prior_, confusion, confusion, optimize=True)
    first, second = np.triu_indices(len(busiest), 1)
    together = shared[first, second]
    seen = together >= FEWEST_SHARED
    first, second, together = first[seen], second[seen], together[seen]
    agreement = agreed[first, second] / np.maximum(together, 1)
    chance = np.clip(expected[first, second], 1e-9, 1 - 1e-9)
    excess = (agreement - chance) / np.sqrt(chance * (1 - chance))
    hits = np.rint(agreed[first, second])
    # P(at least this many of n) of a binomial is a regularized incomplete beta.
    p_value = np.where(hits > 0, betainc(np.maximum(hits, 1), together - hits + 1, chance), 1.0)
    alike = (p_value < ERROR_RATE / max(len(first), 1)) & (excess >= LEAST_EXCESS)
    order = np.flatnonzero(alike)
    order = order[np.argsort(-excess[order], kind="stable")][:named]
    worst = tuple(
        AlikePair(
            int(busiest[first[at]]),
            int(busiest[second[at]]),
            int(together[at]),
            float(agreement[at]),
            float(chance[at]),
            float(excess[at]),
            float(p_value[at]),
        )
        for at in order
    )
    mean = float(np.average(excess, weights=together)) if len(first) else None
    count = int(alike.sum())
    message = _sentence(count, len(first), mean)
    return SharedErrors(count > 0, message, mean, count, len(first), len(busiest), worst)


def _agreements(votes: Votes, busiest: Codes) -> tuple[Floats, Floats]:
    """Items that two raters share, and on how many they said the same, (raters, raters) each.

    Someone who said several things about one item counts once, with equal shares.
    """
    n, width = votes.n_classes, len(busiest)
    columns = (busiest[:, None] * n + np.arange(n)).ravel()
    cells = votes.cells[:, columns].tocsc()
    per_rater = [cells[:, np.arange(label, width * n, n)] for label in range(n)]
    total = sum(per_rater[1:], per_rater[0]).tocsr()
    said = total.copy()
    said.data = np.ones_like(said.data)
    shared = np.asarray((said.T @ said).todense(), dtype=np.float64)
    inverse = total.copy()
    inverse.data = 1 / inverse.data
    agreed = np.zeros((width, width))
    for one in per_rater:
        share = one.tocsr().multiply(inverse).tocsr()
        agreed += np.asarray((share.T @ share).todense())
    return shared, agreed


def _sentence(n_alike: int, n_pairs: int, excess: float | None) -> str:
    if excess is None:
        return f"No two raters share {FEWEST_SHARED} items: whether they share errors is not known."
    if n_alike == 0:
        return f"No sign that raters share errors, in {n_pairs:,} pairs of raters."
    return (
        f"Raters share errors: {n_alike:,} of {n_pairs:,} pairs of raters agree more often than "
        "independent raters of their quality would. Dawid-Skene counts their common mistakes as "
        "evidence and can do worse than voting: compare both on golds before trusting it."
    )
