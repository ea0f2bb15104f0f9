"""Score differences in, signed weights out: which criteria explain what people prefer.

    refined, tested = refine_and_test(differences, groups=prompts, baselines={"longer": lengths})
    print(refined.as_dict(), tested.as_dict())

``differences`` (pairs, criteria) are preferred minus other (or first minus second, with
``first_wins``), NaN where a criterion does not apply. Needs numpy and scikit-learn, nothing
else of this project but its intervals. No accuracy is ever counted on pairs that were fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rubrics.criterion_figures import CriterionFigures, Folded, criterion_figures
from rubrics.intervals import Accuracy, Interval, estimate_accuracy, group_codes
from rubrics.l1 import (
    FLAT,
    Floats,
    c_grid,
    checked_weights,
    fit_weights,
    oriented,
    spreads,
)
from rubrics.margins import Gain, gain, is_right, is_tie, log_losses, mean_with_error

Codes = NDArray[np.int64]
MIN_GROUPS: Final = 2
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


@dataclass(frozen=True, slots=True)
class Refinement:
    """Signed weights and what they rest on.

    ``weights`` (criteria,) per unit of score, 0 for what was not chosen; ``chosen`` their
    places, the strongest first; ``figures`` one per criterion, in the order given. ``correlation``
    (criteria, criteria) of score differences around 0. ``at`` is the chosen point of ``path``,
    whose cross-validated accuracy is a little flattered, being the best of several: the one to
    report is of ``held_out``. ``groups`` (g,) are those that were fitted.
    """

    names: tuple[str, ...]
    weights: Floats
    chosen: tuple[int, ...]
    at: int
    path: tuple[PathPoint, ...]
    figures: tuple[CriterionFigures, ...]
    correlation: Floats
    groups: NDArray[Any]
    n: int
    bootstraps: int

    @property
    def c(self) -> float:
        return self.path[self.at].c

    def margins(self, differences: ArrayLike) -> Floats:
        """Log-odds (pairs,) that the first of each pair is preferred; NaN counts nothing."""
        rows = oriented(differences)
        if rows.shape[1] != len(self.weights):
            raise ValueError(f"{rows.shape[1]} criteria, but weights for {len(self.weights)}")
        found: Floats = rows @ self.weights
        return found

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values, the chosen criteria first."""
        order = [*self.chosen, *(at for at in range(len(self.names)) if at not in self.chosen)]
        return {
            "c": self.c,
            "n": self.n,
            "groups": len(self.groups),
            "bootstraps": self.bootstraps,
            "names": list(self.names),
            "chosen": [self.names[at] for at in self.chosen],
            "path": [point.as_dict() for point in self.path],
            "criteria": [self.figures[at].as_dict() for at in order],
        }


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Accuracy on pairs of groups that were not fitted, beside baselines on the same pairs.

    A score that is equal on both sides is wrong, and counted in ``ties``. ``gains``: how much
    the weights are above each baseline, paired.
    """

    accuracy: Accuracy
    baselines: dict[str, Accuracy]
    gains: dict[str, Gain]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            **self.accuracy.as_dict(),
            "baselines": {name: one.as_dict() for name, one in self.baselines.items()},
            "gains": {name: one.as_dict() for name, one in self.gains.items()},
        }


def refine(
    differences: ArrayLike,
    *,
    groups: ArrayLike,
    names: Sequence[str] | None = None,
    first_wins: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    settings: Settings | None = None,
) -> Refinement:
    """Choose criteria and weigh them.

    differences (pairs, criteria), see the module; groups (pairs,) of which none stands in two
    folds, such as prompts; weights (pairs,) count in the fit and its loss, never in an accuracy.
    Exchanging the sides of a pair (with its label) changes nothing. Raises ValueError for
    infinite values, wrong shapes or fewer than two groups, rubrics.l1.NotConverged.
    """
    settings = settings or Settings()
    rows = oriented(differences, first_wins)
    n, j = rows.shape
    labels, pairs = _labels(groups, n), checked_weights(weights, n)
    titles = tuple(names) if names is not None else tuple(f"criterion {at}" for at in range(j))
    if len(titles) != j:
        raise ValueError(f"{len(titles)} names for {j} criteria")
    codes = group_codes(labels)
    if codes.max() + 1 < MIN_GROUPS:
        raise ValueError(f"all pairs are of one group; at least {MIN_GROUPS} are needed")
    cs = settings.cs or c_grid(rows, settings.n_cs, pairs, is_scaled=settings.is_scaled)
    fold, by_fold = _cross_fit(rows, pairs, codes, cs, settings)
    path = _path(rows, pairs, codes, cs, fold, by_fold, settings)
    at = _choose(path, settings.rule)
    spread = spreads(rows, pairs)
    kept = _kept(path[at].weights, spread, settings)
    drawn = _bootstrap(rows, pairs, codes, cs[at], settings)
    correlation = _correlation(rows)
    return Refinement(
        names=titles,
        weights=kept,
        chosen=tuple(int(one) for one in _strongest(kept * spread) if kept[one] != 0),
        at=at,
        path=path,
        figures=criterion_figures(
            Folded(rows, codes, fold, by_fold[:, at]),
            names=titles,
            weights=kept,
            spread=spread,
            drawn=drawn,
            correlation=correlation,
            band=settings.band,
            seed=settings.seed,
        ),
        correlation=correlation,
        groups=np.unique(labels),
        n=n,
        bootstraps=settings.bootstraps,
    )


def held_out(
    refinement: Refinement,
    differences: ArrayLike,
    *,
    groups: ArrayLike,
    baselines: Mapping[str, ArrayLike] | None = None,
    first_wins: ArrayLike | None = None,
    seed: int = 0,
) -> HeldOut:
    """Accuracy of the weights on pairs that were not fitted, beside baselines.

    baselines: name -> score differences (pairs,) in the same turn as ``differences``, such as
    length of the first minus length of the second. Raises ValueError where a group was fitted.
    """
    rows = oriented(differences, first_wins)
    labels = _labels(groups, len(rows))
    if np.isin(labels, refinement.groups).any():
        raise ValueError("some of these groups were fitted: accuracy on them would flatter")
    codes = group_codes(labels)
    return _compared(refinement.margins(rows), codes, baselines or {}, first_wins, seed)


def hold_out(groups: ArrayLike, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Which pairs (pairs,) to hold out: whole groups, about ``share`` of them, one at least.

    Raises ValueError where a share leaves nothing on one side.
    """
    from sklearn.model_selection import GroupShuffleSplit

    labels = np.asarray(groups)
    split = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    _, out = next(split.split(labels, groups=labels))
    found = np.zeros(len(labels), dtype=np.bool_)
    found[out] = True
    return found


def refine_and_test(
    differences: ArrayLike,
    *,
    groups: ArrayLike,
    names: Sequence[str] | None = None,
    first_wins: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    share: float = 0.25,
    settings: Settings | None = None,
) -> tuple[Refinement, HeldOut]:
    """``refine`` on most groups, ``held_out`` on the rest (``share`` of the groups)."""
    settings = settings or Settings()
    rows = oriented(differences, first_wins)
    labels = _labels(groups, len(rows))
    pairs = checked_weights(weights, len(rows))
    out = hold_out(labels, share, seed=settings.seed)
    refined = refine(
        rows[~out], groups=labels[~out], names=names, weights=pairs[~out], settings=settings
    )
    turned = {
        name: oriented(np.asarray(one, dtype=np.float64)[:, None], first_wins)[out, 0]
        for name, one in (baselines or {}).items()
    }
    tested = held_out(refined, rows[out], groups=labels[out], baselines=turned, seed=settings.seed)
    return refined, tested


def cross_validated(
    differences: ArrayLike,
    *,
    groups: ArrayLike,
    first_wins: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    folds: int = 5,
    settings: Settings | None = None,
) -> HeldOut:
    """Accuracy of refining as such: each pair is judged by weights chosen without its group.

    Every fold is refined from the start, its C chosen inside, so that all pairs count. It speaks
    of the procedure; ``held_out`` speaks of one set of weights. Raises ValueError as ``refine``.
    """
    settings = replace(settings or Settings(), bootstraps=0)
    rows = oriented(differences, first_wins)
    labels, pairs = _labels(groups, len(rows)), checked_weights(weights, len(rows))
    codes = group_codes(labels)
    fold = _folds(codes, folds, settings.seed + 1)  # not the split that is made inside
    margins = np.zeros(len(rows))
    for at in range(int(fold.max()) + 1):
        out = fold == at
        fitted = refine(rows[~out], groups=codes[~out], weights=pairs[~out], settings=settings)
        margins[out] = fitted.margins(rows[out])
    return _compared(margins, codes, baselines or {}, first_wins, settings.seed)


def _labels(groups: ArrayLike, n: int) -> NDArray[Any]:
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups {labels.shape} must be ({n},)")
    return labels


def _compared(
    margins: Floats,
    codes: Codes,
    baselines: Mapping[str, ArrayLike],
    first_wins: ArrayLike | None,
    seed: int,
) -> HeldOut:
    ours = is_right(margins)
    counted, gains = {}, {}
    for name, given in baselines.items():
        theirs = oriented(np.asarray(given, dtype=np.float64)[:, None], first_wins)[:, 0]
        if len(theirs) != len(margins):
            raise ValueError(f"baseline {name!r} has {len(theirs)} rows for {len(margins)} pairs")
        counted[name] = _accuracy(theirs, codes, seed)
        gains[name] = gain(ours - is_right(theirs), codes, seed=seed)
    return HeldOut(_accuracy(margins, codes, seed), counted, gains)


def _accuracy(margins: Floats, codes: Codes, seed: int) -> Accuracy:
    found = estimate_accuracy(is_right(margins), codes, seed=seed, ties=int(is_tie(margins).sum()))
    assert found is not None  # there is at least one pair
    return found


def _strongest(strength: Floats) -> list[int]:
    return [int(at) for at in np.argsort(-np.abs(strength), kind="stable")]


def _kept(weights: Floats, spread: Floats, settings: Settings) -> Floats:
    """Weights with everything but the ``top`` strongest at 0."""
    allowed = weights > 0 if settings.negative == "drop" else weights != 0
    kept = np.where(allowed, weights, 0.0)
    kept[_strongest(kept * spread)[settings.top :]] = 0.0
    return kept


def _cross_fit(
    rows: Floats, pairs: Floats, codes: Codes, cs: Sequence[float], settings: Settings
) -> tuple[Codes, Floats]:
    """The fold of each pair (pairs,), and weights without it (folds, C, criteria)."""
    fold = _folds(codes, settings.folds, settings.seed)
    folds = int(fold.max()) + 1
    found = np.zeros((folds, len(cs), rows.shape[1]))
    for at in range(folds):
        fitted = (fold != at) & (pairs > 0)
        if not fitted.any():
            continue  # every weighted pair is in this fold: it is left with no weights
        inside, counts = rows[fitted], pairs[fitted]
        spread = spreads(inside, counts)
        for place, c in enumerate(cs):
            fit = fit_weights(
                inside,
                c=c,
                weights=counts,
                is_scaled=settings.is_scaled,
                total=len(rows),
                seed=settings.seed,
            )
            found[at, place] = _kept(fit, spread, settings)
    return fold, found


def _folds(codes: Codes, folds: int, seed: int) -> Codes:
    """The fold of each pair (pairs,), whole groups; as many as there are groups at most."""
    from sklearn.model_selection import GroupKFold

    split = GroupKFold(min(folds, int(codes.max()) + 1), shuffle=True, random_state=seed)
    fold = np.zeros(len(codes), dtype=np.int64)
    for at, (_, out) in enumerate(split.split(codes, groups=codes)):
        fold[out] = at
    return fold


def _path(
    rows: Floats,
    pairs: Floats,
    codes: Codes,
    cs: Sequence[float],
    fold: Codes,
    by_fold: Floats,
    settings: Settings,
) -> tuple[PathPoint, ...]:
    points = []
    for place, c in enumerate(cs):
        fit = fit_weights(
            rows, c=c, weights=pairs, is_scaled=settings.is_scaled, seed=settings.seed
        )
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
                accuracy=_accuracy(margins, codes, settings.seed),
            )
        )
    return tuple(points)


def _choose(path: Sequence[PathPoint], rule: str) -> int:
    best = min(range(len(path)), key=lambda at: (path[at].log_loss, path[at].c))
    if rule == "best":
        return best
    limit = path[best].log_loss + path[best].log_loss_error
    return min(
        (at for at in range(len(path)) if path[at].log_loss <= limit), key=lambda at: path[at].c
    )


def _bootstrap(rows: Floats, pairs: Floats, codes: Codes, c: float, settings: Settings) -> Floats:
    """Kept weights (bootstraps, criteria) of draws of whole groups with replacement."""
    rng = np.random.default_rng(settings.seed)
    m = int(codes.max()) + 1
    found = np.zeros((settings.bootstraps, rows.shape[1]))
    for at in range(settings.bootstraps):
        counts = pairs * np.bincount(rng.integers(m, size=m), minlength=m)[codes]
        drawn = counts > 0
        if not drawn.any():
            continue  # only groups without weight: such a draw chooses nothing
        inside, weights = rows[drawn], counts[drawn]
        fit = fit_weights(
            inside,
            c=c,
            weights=weights,
            is_scaled=settings.is_scaled,
            total=len(rows),
            seed=settings.seed,
        )
        found[at] = _kept(fit, spreads(inside, weights), settings)
    return found


def _correlation(rows: Floats) -> Floats:
    """Of score differences around 0, (criteria, criteria): with both turns their mean is 0."""
    largest = np.abs(rows).max(axis=0)
    unit = rows / np.where(largest > FLAT, largest, np.inf)
    product = unit.T @ unit
    size = np.sqrt(np.diag(product))
    scale = np.where(size > 0, size, np.inf)
    found: Floats = np.clip(product / scale / scale[:, None], -1.0, 1.0)
    return found
