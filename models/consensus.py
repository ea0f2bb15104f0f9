"""What the votes on each item add up to: the methods of ``models.aggregators``. Pure numpy, scipy.

Every method takes ``Votes`` and returns ``Pooled``: a posterior per item and how often each rater
said what it says. An item is one question with a few classes: a pair of responses with the
classes a, tie, b in canonical order, or one response on one attribute with its possible values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from models.comparisons import Codes, Floats, as_codes
from models.crowd import CrowdBradleyTerry
from models.gold import wilson_shares
from models.intervals import Accuracy, estimate_accuracy
from models.raters import TIE as EVEN
from models.raters import UNKNOWN, DawidSkene, MajorityVote

A, TIE, B = 0, 1, 2  # classes of a pair
PAIR_CLASSES: Final = 3
CROWD_STEPS: Final = 200  # of the optimizer: what is left after them moves no verdict
SMALL: Final = 1e-3  # what the tie of a rater no better than chance still weighs


@dataclass(frozen=True, eq=False)
class Votes:
    """n verdicts: ``items``, ``raters``, ``labels`` (n,) codes, one row per (item, rater).

    ``sides`` (2, n_items) are the codes of the responses a and b of each pair; without them the
    items are no pairs. ``gold`` (n_items,) holds known classes, UNKNOWN elsewhere: the posterior
    there is certain, and methods learn from it. Votes of ``excluded`` (n_raters,) count nowhere,
    but their reliability is told all the same. ``groups`` (n_items,) says which items are judged
    at once, as the pairs of one ranking are: intervals count a group once. Raises ValueError on
    codes out of range.
    """

    items: Codes
    raters: Codes
    labels: Codes
    n_items: int
    n_raters: int
    n_classes: int = PAIR_CLASSES
    sides: Codes | None = None
    gold: Codes | None = None
    excluded: NDArray[np.bool_] | None = None
    groups: Codes | None = None

    def __post_init__(self) -> None:
        sizes = {"items": self.n_items, "raters": self.n_raters, "labels": self.n_classes}
        shapes = {np.shape(getattr(self, name)) for name in sizes}
        if len(shapes) > 1:
            raise ValueError(f"items, raters and labels must be equal and (n,), not {shapes}")
        for name, size in sizes.items():
            object.__setattr__(self, name, as_codes(getattr(self, name), name, size))
        if self.sides is not None and np.shape(self.sides) != (2, self.n_items):
            raise ValueError(f"sides must be (2, {self.n_items}), not {np.shape(self.sides)}")
        if self.groups is not None and np.shape(self.groups) != (self.n_items,):
            raise ValueError(f"groups must be ({self.n_items},), not {np.shape(self.groups)}")

    def counted(self) -> tuple[Codes, Codes, Codes]:
        """Items, raters and labels of the votes that count."""
        if self.excluded is None or not self.excluded.any():
            return self.items, self.raters, self.labels
        kept = ~self.excluded[self.raters]
        return self.items[kept], self.raters[kept], self.labels[kept]


@dataclass(frozen=True, eq=False)
class Pooled:
    """A consensus: ``posterior`` (n_items, n_classes), uniform where nobody counted voted.

    ``reliability`` (n_raters,) with ``low``, ``high`` is the expected share of a rater's votes
    that say what is true, nan with (0, 1) for one who never voted. ``fitted`` is the model behind
    it, None for a majority.
    """

    posterior: Floats
    reliability: Floats
    low: Floats
    high: Floats
    fitted: DawidSkene | CrowdBradleyTerry | None = None

    @property
    def labels(self) -> Codes:
        """The likeliest class of each item, (n_items,); the lowest where several are."""
        return np.asarray(self.posterior.argmax(axis=1), dtype=np.int64)


def majority(votes: Votes) -> Pooled:
    """One rater, one vote: the posterior is the share of votes."""
    items, raters, labels = votes.counted()
    posterior = np.full((votes.n_items, votes.n_classes), 1 / votes.n_classes)
    if items.size:
        fit = MajorityVote().fit(
            items, raters, labels, n_items=votes.n_items, n_classes=votes.n_classes
        )
        posterior = fit.posterior_
    return _pooled(votes, posterior)


def dawid_skene(votes: Votes) -> Pooled:
    """Votes weighted by how each rater confuses the classes; see models.raters.DawidSkene."""
    items, raters, labels = votes.counted()
    if not items.size:
        return majority(votes)
    fit = DawidSkene().fit(
        items,
        raters,
        labels,
        votes.gold,
        n_items=votes.n_items,
        n_raters=votes.n_raters,
        n_classes=votes.n_classes,
    )
    posterior = fit.posterior_
    judged = np.bincount(items, minlength=votes.n_items) > 0
    posterior[~judged] = 1 / votes.n_classes  # the prior alone is not a verdict on anything
    return _pooled(votes, posterior, fit)


def crowd_bt(votes: Votes) -> Pooled:
    """One scale of responses and one reliability per rater; see models.crowd.

    ``posterior`` is the chance that one response lies above the other on the scale, by the normal
    approximation with the curvature of both scores; of it, the share of ties among the votes,
    weighted by reliability, goes to a tie. Evidence of other pairs of the same responses counts:
    a over b and b over c speak for a over c. ``reliability`` is that of the scale, with its
    interval. Raises ValueError where the items are not pairs.
    """
    if votes.sides is None or votes.n_classes != PAIR_CLASSES:
        raise ValueError("CrowdBT compares responses: the items must be pairs")
    items, raters, labels = votes.counted()
    if not items.size:
        return majority(votes)
    a, b = (as_codes(side, "sides") for side in votes.sides)
    n_responses = int(max(a.max(), b.max())) + 1
    gold = None
    if votes.gold is not None and (votes.gold != UNKNOWN).any():
        known = votes.gold != UNKNOWN
        gold = (a[known], b[known], 1 - votes.gold[known])
    fit = CrowdBradleyTerry(max_iter=CROWD_STEPS).fit(
        raters,
        a[items],
        b[items],
        1 - labels,
        gold=gold,
        n_items=n_responses,
        n_raters=votes.n_raters,
    )
    posterior = _above(fit, a, b)
    weight = np.maximum(2 * fit.reliability_ - 1, SMALL)[raters]
    said = np.bincount(items, weights=weight, minlength=votes.n_items)
    tied = np.bincount(items, weights=weight * (labels == TIE), minlength=votes.n_items)
    ties = np.divide(tied, said, out=np.full_like(said, 1 / PAIR_CLASSES), where=said > 0)
    full = np.column_stack([posterior * (1 - ties), ties, (1 - posterior) * (1 - ties)])
    full[said == 0] = 1 / PAIR_CLASSES
    nobody = fit.n_votes_ == 0
    return Pooled(
        _clamped(votes, full),
        np.where(nobody, np.nan, fit.reliability_),
        np.where(nobody, 0.0, fit.reliability_low_),
        np.where(nobody, 1.0, fit.reliability_high_),
        fit,
    )


def reliability(votes: Votes, posterior: Floats) -> tuple[Floats, Floats, Floats]:
    """Expected share of each rater's votes that are right, low and high, (n_raters,) each.

    posterior (n_items, n_classes). Wilson on the number of votes, less what doubt about the truth
    takes away (as models.raters.DawidSkene). Items nobody counted voted on say nothing.
    """
    told = np.ptp(posterior, axis=1) > 0
    seen = told[votes.items]
    raters = votes.raters[seen]
    chance = posterior[votes.items[seen], votes.labels[seen]]
    n = np.bincount(raters, minlength=votes.n_raters).astype(float)
    hits = np.bincount(raters, weights=chance, minlength=votes.n_raters)
    doubt = np.bincount(raters, weights=chance * (1 - chance), minlength=votes.n_raters)
    share = np.divide(hits, n, out=np.full_like(n, np.nan), where=n > 0)
    share = np.minimum(share, 1.0)
    sampling = n * share * (1 - share)
    kept = np.divide(sampling, sampling + doubt, out=np.ones_like(n), where=sampling > 0)
    effective = np.where(n > 0, n * kept * _apart(votes, seen, n), 0.0)
    shares = wilson_shares(np.where(n > 0, share * effective, 0.0), effective)
    return share, shares.low, shares.high


def _apart(votes: Votes, seen: NDArray[np.bool_], n: Floats) -> Floats:
    """Groups per vote of each rater, (n_raters,): 1 where no two votes come from one group."""
    if votes.groups is None:
        return np.ones(len(n))
    pairs = np.stack([votes.raters[seen], votes.groups[votes.items[seen]]])
    groups = np.bincount(np.unique(pairs, axis=1)[0], minlength=len(n))
    return np.divide(groups, n, out=np.ones(len(n)), where=n > 0)


def accuracy(
    posterior: Floats, truth: ArrayLike, groups: ArrayLike | None = None
) -> Accuracy | None:
    """How often the likeliest class is the known one; k equally likely ones count 1 / k.

    posterior (n, classes); truth (n,) classes, UNKNOWN where there is none; groups (n,) such as
    the task of each pair, the unit of the interval. None where nothing is known.
    """
    codes = np.asarray(truth)
    known = codes != UNKNOWN
    if not known.any():
        return None
    scores, codes = posterior[known], codes[known]
    top = scores >= scores.max(axis=1, keepdims=True) - EVEN
    credit = top[np.arange(len(codes)), codes] / top.sum(axis=1)
    return estimate_accuracy(credit, None if groups is None else np.asarray(groups)[known], seed=0)


def _pooled(votes: Votes, posterior: Floats, fitted: DawidSkene | None = None) -> Pooled:
    posterior = _clamped(votes, posterior)
    return Pooled(posterior, *reliability(votes, posterior), fitted)


def _clamped(votes: Votes, posterior: Floats) -> Floats:
    if votes.gold is not None:
        known = votes.gold != UNKNOWN
        posterior = posterior.copy()
        posterior[known] = np.eye(votes.n_classes)[votes.gold[known]]
    return posterior


def _above(fit: CrowdBradleyTerry, a: Codes, b: Codes) -> Floats:
    """Chance that a lies above b; errors of the two scores are taken to be independent."""
    z = float(ndtri(0.5 + fit.level / 2))
    error = (fit.score_high_ - fit.score_low_) / (2 * z)
    spread = np.sqrt(error[a] ** 2 + error[b] ** 2)
    return np.asarray(ndtr((fit.scores_[a] - fit.scores_[b]) / spread))
