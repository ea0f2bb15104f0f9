"""The regularization path of criteria: fits, folds, draws.

Weights over a grid of C on all pairs, the same without each fold, and on draws of whole groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rubrics.intervals import Accuracy, Interval, estimate_accuracy
from rubrics.l1 import FLAT, Floats, NotConverged, Rows
from rubrics.margins import is_right, is_tie, log_losses, mean_with_error

Codes = NDArray[np.int64]
Check = Callable[[], object]  # asked between two fits; what it raises ends them
LEVEL_Z: Final = 1.96


def nobody() -> None:
    """Nobody asks to stop."""


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


def fit_path(
    known: Rows, pairs: Floats, cs: Sequence[float], *, check: Check = nobody
) -> tuple[Floats, ...]:
    """Weights (criteria,) of all pairs for each C, in order, until the solver does not end.

    Raises NotConverged where not even the first does.
    """
    spread = known.spreads(pairs)
    fits: list[Floats] = []
    near = np.zeros(known.rows.shape[1])
    for c in cs:
        check()
        try:
            near = known.fit(c=c, weights=pairs, spread=spread, near=near)
        except NotConverged:
            if not fits:
                raise
            break
        fits.append(near)
    return tuple(fits)


def cross_fit(
    known: Rows,
    pairs: Floats,
    codes: Codes,
    cs: Sequence[float],
    settings: Settings,
    *,
    near: Sequence[Floats],
    check: Check = nobody,
) -> tuple[Codes, Floats]:
    """The fold of each pair (pairs,), and weights without it (folds, C, criteria).

    near: the weights of all pairs for each C.
    """
    fold = folds_of(codes, settings.folds, settings.seed)
    folds = int(fold.max()) + 1
    found = np.zeros((folds, len(cs), known.rows.shape[1]))
    reached = len(cs)  # the path ends where a solver does
    for at in range(folds):
        counts = np.where(fold != at, pairs, 0.0)
        if not counts.any():
            continue  # every weighted pair is in this fold: it is left with no weights
        spread = known.spreads(counts)
        for place, c in enumerate(cs[:reached]):
            check()
            try:
                fit = known.fit(c=c, weights=counts, spread=spread, near=near[place])
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
    known: Rows,
    pairs: Floats,
    codes: Codes,
    cs: Sequence[float],
    settings: Settings,
    *,
    check: Check = nobody,
) -> tuple[tuple[PathPoint, ...], Codes, Floats]:
    """One point per C, in order, until the solver does not end; and what ``cross_fit`` gives."""
    fits = fit_path(known, pairs, cs, check=check)
    fold, by_fold = cross_fit(
        known, pairs, codes, cs[: len(fits)], settings, near=fits, check=check
    )
    points = []
    for place, (c, fit) in enumerate(zip(cs, fits[: by_fold.shape[1]], strict=False)):
        margins = np.einsum("ij,ij->i", known.rows, by_fold[fold, place])
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
    return tuple(points), fold, by_fold


def choose(path: Sequence[PathPoint], rule: str) -> int:
    """Place of the C to take; see Settings.rule."""
    best = min(range(len(path)), key=lambda at: (path[at].log_loss, path[at].c))
    if rule == "best":
        return best
    limit = path[best].log_loss + path[best].log_loss_error
    return min(
        (at for at in range(len(path)) if path[at].log_loss <= limit), key=lambda at: path[at].c
    )


def bootstrap(
    known: Rows,
    pairs: Floats,
    codes: Codes,
    point: PathPoint,
    settings: Settings,
    *,
    check: Check = nobody,
) -> Floats:
    """Kept weights (bootstraps, criteria) of draws of whole groups with replacement."""
    rng = np.random.default_rng(settings.seed)
    m = int(codes.max()) + 1
    found = []
    for _ in range(settings.bootstraps):
        check()
        counts = pairs * np.bincount(rng.integers(m, size=m), minlength=m)[codes]
        if not counts.any():
            continue  # only groups without weight
        spread = known.spreads(counts)
        try:
            fit = known.fit(c=point.c, weights=counts, spread=spread, near=point.weights)
        except NotConverged:
            continue  # Refinement.bootstraps says how many there are
        found.append(kept_weights(fit, spread, settings))
    return np.array(found).reshape(-1, known.rows.shape[1])


def correlation_around_zero(rows: Floats) -> Floats:
    """Of score differences around 0, (criteria, criteria): with both turns their mean is 0."""
    largest = np.abs(rows).max(axis=0)
    unit = rows / np.where(largest > FLAT, largest, np.inf)
    product = unit.T @ unit
    size = np.sqrt(np.diag(product))
    scale = np.where(size > 0, size, np.inf)
    found: Floats = np.clip(product / scale / scale[:, None], -1.0, 1.0)
    return found
