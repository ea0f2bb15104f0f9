"""The regularization path of criteria: fits, folds, draws.

Weights over a grid of C on all pairs, the same without each fold, and on draws of whole groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rubrics.intervals import Accuracy, Interval, estimate_accuracy
from rubrics.l1 import FLAT, Floats, NotConverged, fit_weights, spreads
from rubrics.margins import is_right, is_tie, log_losses, mean_with_error

Codes = NDArray[np.int64]
LEVEL_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Settings:
    """How to refine.

    ``cs``: the grid of C, empty for ``n_cs`` values over three decades from where the first
    weight appears. ``rule``: "best" takes the C of the lowest held-out log loss,
    "one-standard-error" the smallest C within one standard error of it. ``top``: so many
    criteria at most, by |weight| times spread. ``negative``: "drop" takes those with a negative
    weight out, "keep" leaves them, inverted. ``band``: a difference of no more than this is no
    verdict (for coverage and precision). ``is_scaled``: see rubrics.l1.fit_weights.
    """

    cs: tuple[float, ...] = ()
    n_cs: int = 12
    rule: Literal["best", "one-standard-error"] = "best"
    top: int = 20
    negative: Literal["keep", "drop"] = "keep"
    folds: int = 5
    bootstraps: int = 100
    band: float = 0.0
    is_scaled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(c) and c > 0 for c in self.cs):
            raise ValueError(f"cs {self.cs} must be finite and above 0")
        for name, least in (("n_cs", 1), ("top", 1), ("folds", 2), ("bootstraps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")


@dataclass(frozen=True, slots=True)
class PathPoint:
    """One C: the weights on all pairs given (criteria,), and how well its folds did held out.

    ``nonzero`` counts the weights on all pairs, before ``top`` and ``negative``; log loss (of a
    coin: .693) and accuracy are of what they leave, over pairs that were not fitted.
    """

    c: float
    weights: Floats
    nonzero: int
    log_loss: float
    log_loss_error: float
    log_loss_interval: Interval
    accuracy: Accuracy

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "c": self.c,
            "weights": self.weights.tolist(),
            "nonzero": self.nonzero,
            "log_loss": self.log_loss,
            "log_loss_interval": list(self.log_loss_interval),
            **self.accuracy.as_dict(),
        }


def accuracy_of(margins: Floats, codes: Codes, seed: int) -> Accuracy:
    """How often margins (pairs,) are right; a tie is wrong, and counted."""
    found = estimate_accuracy(is_right(margins), codes, seed=seed, ties=int(is_tie(margins).sum()))
    assert found is not None  # there is at least one pair
    return found


def strongest(strength: Floats) -> list[int]:
    """Places by falling absolute value, equals by place."""
    return [int(at) for at in np.argsort(-np.abs(strength), kind="stable")]


def kept_weights(weights: Floats, spread: Floats, settings: Settings) -> Floats:
    """Weights with everything but the ``top`` strongest at 0."""
    allowed = weights > 0 if settings.negative == "drop" else weights != 0
    kept = np.where(allowed, weights, 0.0)
    kept[strongest(kept * spread)[settings.top :]] = 0.0
    return kept


def cross_fit(
    rows: Floats, pairs: Floats, codes: Codes, cs: Sequence[float], settings: Settings
) -> tuple[Codes, Floats]:
    """The fold of each pair (pairs,), and weights without it (folds, C, criteria)."""
    fold = folds_of(codes, settings.folds, settings.seed)
    folds = int(fold.max()) + 1
    found = np.zeros((folds, len(cs), rows.shape[1]))
    reached = len(cs)  # the path ends where a solver does
    for at in range(folds):
        fitted = (fold != at) & (pairs > 0)
        if not fitted.any():
            continue  # every weighted pair is in this fold: it is left with no weights
        inside, counts = rows[fitted], pairs[fitted]
        spread = spreads(inside, counts)
        for place, c in enumerate(cs[:reached]):
            try:
                fit = fit_weights(
                    inside,
                    c=c,
                    weights=counts,
                    is_scaled=settings.is_scaled,
                    total=len(rows),
                    seed=settings.seed,
                )
            except NotConverged:
                reached = place
                break
            found[at, place] = kept_weights(fit, spread, settings)
    if not reached:
        raise NotConverged(f"no fold could be fitted at C = {cs[0]}")
    return fold, found[:, :reached]


def folds_of(codes: Codes, folds: int, seed: int) -> Codes:
    """The fold of each pair (pairs,), whole groups; as many as there are groups at most."""
    from sklearn.model_selection import GroupKFold

    split = GroupKFold(min(folds, int(codes.max()) + 1), shuffle=True, random_state=seed)
    fold = np.zeros(len(codes), dtype=np.int64)
    for at, (_, out) in enumerate(split.split(codes, groups=codes)):
        fold[out] = at
    return fold


def regularization_path(
    rows: Floats,
    pairs: Floats,
    codes: Codes,
    cs: Sequence[float],
    fold: Codes,
    by_fold: Floats,
    settings: Settings,
) -> tuple[PathPoint, ...]:
    """One point per C, in order, until the solver does not end.

    fold (pairs,) and by_fold (folds, C, criteria) as of ``cross_fit``. Raises NotConverged where
    not even the first does.
    """
    points: list[PathPoint] = []
    for place, c in enumerate(cs):
        try:
            fit = fit_weights(
                rows, c=c, weights=pairs, is_scaled=settings.is_scaled, seed=settings.seed
            )
        except NotConverged:
            if not points:
                raise
            break
        margins = np.einsum("ij,ij->i", rows, by_fold[fold, place])
        loss, error = mean_with_error(log_losses(margins), pairs, codes)
        points.append(
            PathPoint(
                c=float(c),
                weights=fit,
                nonzero=int(np.count_nonzero(fit)),
                log_loss=loss,
                log_loss_error=error,
                log_loss_interval=(loss - LEVEL_Z * error, loss + LEVEL_Z * error),
                accuracy=accuracy_of(margins, codes, settings.seed),
            )
        )
    return tuple(points)


def choose(path: Sequence[PathPoint], rule: str) -> int:
    """Place of the C to take; see Settings.rule."""
    best = min(range(len(path)), key=lambda at: (path[at].log_loss, path[at].c))
    if rule == "best":
        return best
    limit = path[best].log_loss + path[best].log_loss_error
    return min(
        (at for at in range(len(path)) if path[at].log_loss <= limit), key=lambda at: path[at].c
    )


def bootstrap(rows: Floats, pairs: Floats, codes: Codes, c: float, settings: Settings) -> Floats:
    """Kept weights (bootstraps, criteria) of draws of whole groups with replacement."""
    rng = np.random.default_rng(settings.seed)
    m = int(codes.max()) + 1
    found = []
    for _ in range(settings.bootstraps):
        counts = pairs * np.bincount(rng.integers(m, size=m), minlength=m)[codes]
        drawn = counts > 0
        if not drawn.any():
            continue  # only groups without weight
        inside, weights = rows[drawn], counts[drawn]
        try:
            fit = fit_weights(
                inside,
                c=c,
                weights=weights,
                is_scaled=settings.is_scaled,
                total=len(rows),
                seed=settings.seed,
            )
        except NotConverged:
            continue  # Refinement.bootstraps says how many there are
        found.append(kept_weights(fit, spreads(inside, weights), settings))
    return np.array(found).reshape(-1, rows.shape[1])


def correlation_around_zero(rows: Floats) -> Floats:
    """Of score differences around 0, (criteria, criteria): with both turns their mean is 0."""
    largest = np.abs(rows).max(axis=0)
    unit = rows / np.where(largest > FLAT, largest, np.inf)
    product = unit.T @ unit
    size = np.sqrt(np.diag(product))
    scale = np.where(size > 0, size, np.inf)
    found: Floats = np.clip(product / scale / scale[:, None], -1.0, 1.0)
    return found
