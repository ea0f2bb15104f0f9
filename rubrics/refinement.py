"""Score differences in, signed weights out: which criteria explain what people prefer.

    refined, tested = refine_and_test(differences, groups=prompts, baselines={"longer": lengths})
    print(refined.as_dict(), tested.as_dict())

``differences`` (pairs, criteria) are preferred minus other (or first minus second, with
``first_wins``), NaN where a criterion does not apply. Needs numpy and scikit-learn, nothing
else of this project but its intervals. No accuracy is ever counted on pairs that were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rubrics.criterion_figures import CriterionFigures, Folded, criterion_figures
from rubrics.intervals import Accuracy, group_codes
from rubrics.l1 import Floats, Rows, c_grid, checked_weights, oriented
from rubrics.margins import Gain, gain, is_right
from rubrics.regularization import (
    Check,
    Codes,
    PathPoint,
    Settings,
    accuracy_of,
    bootstrap,
    choose,
    correlation_around_zero,
    folds_of,
    kept_weights,
    nobody,
    regularization_path,
    strongest,
)

__all__ = [
    "HeldOut",
    "PathPoint",
    "Refinement",
    "Settings",
    "cross_validated",
    "held_out",
    "hold_out",
    "refine",
    "refine_and_test",
]

MIN_GROUPS: Final = 2


@dataclass(frozen=True, slots=True)
class Refinement:
    """Signed weights and what they rest on.

    ``weights`` (criteria,) per unit of score, 0 for what was not chosen; ``chosen`` their
    places, the strongest first; ``figures`` one per criterion, in the order given. ``correlation``
    (criteria, criteria) of score differences around 0. ``at`` is the chosen point of ``path``,
    whose cross-validated accuracy is a little flattered, being the best of several: the one to
    report is of ``held_out``. The path ends before a C at which the solver does not. ``groups``
    (g,) are those that were fitted, ``bootstraps`` the draws that could be.
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
    check: Check = nobody,
) -> Refinement:
    """Choose criteria and weigh them.

    differences (pairs, criteria), see the module; groups (pairs,) of which none stands in two
    folds, such as prompts; weights (pairs,) count in the fit and its loss, never in an accuracy.
    Exchanging the sides of a pair (with its label) changes nothing. ``check`` is called between
    fits; what it raises ends it. Raises ValueError for infinite values, wrong shapes or fewer
    than two groups, rubrics.l1.NotConverged.
    """
    settings = settings or Settings()
    rows = oriented(differences, first_wins)
    n, j = rows.shape
    labels, pairs, titles = _labels(groups, n), checked_weights(weights, n), _titles(names, j)
    codes = group_codes(labels)
    if codes.max() + 1 < MIN_GROUPS:
        raise ValueError(f"all pairs are of one group; at least {MIN_GROUPS} are needed")
    cs = tuple(sorted(settings.cs)) or c_grid(
        rows, settings.n_cs, pairs, is_scaled=settings.is_scaled
    )
    known = Rows(rows, is_scaled=settings.is_scaled, seed=settings.seed)
    path, fold, by_fold = regularization_path(known, pairs, codes, cs, settings, check=check)
    at = choose(path, settings.rule)
    spread = known.spreads(pairs)
    kept = kept_weights(path[at].weights, spread, settings)
    drawn = bootstrap(known, pairs, codes, path[at], settings, check=check)
    check()
    correlation = correlation_around_zero(rows)
    return Refinement(
        names=titles,
        weights=kept,
        chosen=tuple(int(one) for one in strongest(kept * spread) if kept[one] != 0),
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
        bootstraps=len(drawn),
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
    check: Check = nobody,
) -> HeldOut:
    """Accuracy of refining as such: each pair is judged by weights chosen without its group.

    Every fold is refined from the start, its C chosen inside, so that all pairs count. It speaks
    of the procedure; ``held_out`` speaks of one set of weights. Raises ValueError as ``refine``.
    """
    settings = replace(settings or Settings(), bootstraps=0)
    rows = oriented(differences, first_wins)
    labels, pairs = _labels(groups, len(rows)), checked_weights(weights, len(rows))
    codes = group_codes(labels)
    fold = folds_of(codes, folds, settings.seed + 1)  # not the split that is made inside
    margins = np.zeros(len(rows))
    for at in range(int(fold.max()) + 1):
        out = fold == at
        fitted = refine(rows[~out], groups=codes[~out], weights=pairs[~out],
                        settings=settings, check=check)  # fmt: skip
        margins[out] = fitted.margins(rows[out])
    return _compared(margins, codes, baselines or {}, first_wins, settings.seed)


def _labels(groups: ArrayLike, n: int) -> NDArray[Any]:
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups {labels.shape} must be ({n},)")
    return labels


def _titles(names: Sequence[str] | None, j: int) -> tuple[str, ...]:
    titles = tuple(names) if names is not None else tuple(f"criterion {at}" for at in range(j))
    if len(titles) != j:
        raise ValueError(f"{len(titles)} names for {j} criteria")
    return titles


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
        counted[name] = accuracy_of(theirs, codes, seed)
        gains[name] = gain(ours - is_right(theirs), codes, seed=seed)
    return HeldOut(accuracy_of(margins, codes, seed), counted, gains)
