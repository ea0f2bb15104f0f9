"""How far raters agree: percent, Cohen, Fleiss, Krippendorff, with intervals. Numpy and scipy.

Every function takes ``Ratings`` or a (raters, units) table with NaN for gaps. What cannot be
computed is None, never NaN: no unit with two ratings, or ratings that never vary, where agreement
by chance is certain. Categories of pairwise verdicts must be in canonical item order, not as
shown. Skewed verdicts give a low alpha or kappa at a high percentage: show both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models import coefficients
from models.coefficients import Coefficient
from models.intervals import Interval, wilson
from models.rater_agreement import (
    LeaveOneOut,
    PairwiseKappas,
    Weights,
    leave_one_out,
    pairwise_kappas,
)
from models.ratings import Floats, Ints, Ratings, Table, as_ratings, codes_of

__all__ = [
    "Agreement",
    "LeaveOneOut",
    "Level",
    "PairwiseKappas",
    "Ratings",
    "Statistic",
    "Weights",
    "cohen_kappa",
    "fleiss_kappa",
    "krippendorff_alpha",
    "leave_one_out",
    "measure",
    "measure_cohen",
    "pairwise_kappas",
    "percent_agreement",
]

Level = Literal["nominal", "ordinal", "interval"]
Statistic = Literal["alpha", "fleiss", "percent", "percent pooled", "cohen"]

ALPHA: Final[dict[str, Callable[[Table], Coefficient]]] = {
    "nominal": coefficients.alpha_nominal,
    "ordinal": coefficients.alpha_ordinal,
    "interval": coefficients.alpha_interval,
}
NOMINAL: Final[dict[str, Callable[[Table], Coefficient]]] = {
    "percent": coefficients.percent,
    "percent pooled": coefficients.percent_pooled,
    "fleiss": coefficients.fleiss,
}
WEIGHTS_OF_LEVEL: Final[dict[str, Weights | None]] = {
    "nominal": None,
    "ordinal": "linear",
    "interval": "quadratic",
}


@dataclass(frozen=True)
class Agreement:
    """One coefficient with its interval and what it was counted on.

    ``value`` is None where undefined; ``interval`` (95 %) also where units are too few or too
    uniform to tell. ``n_ratings`` by ``n_raters`` were given to ``n_units``; only the
    ``n_units_paired`` units with two ratings or more say anything about agreement. ``method``
    names the interval: "bootstrap over units", "wilson on units" or "" where there is none.
    """

    value: float | None
    interval: Interval | None
    n_ratings: int
    n_units: int
    n_raters: int
    n_units_paired: int
    statistic: str
    level: str
    method: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self) | {"interval": list(self.interval) if self.interval else None}


def percent_agreement(ratings: Ratings | ArrayLike, *, pooled: bool = False) -> float | None:
    """Share of pairs of ratings of one unit that are equal, averaged over units.

    Every unit with two ratings or more counts the same, so a few units with many ratings do not
    decide the figure; this is also the observed part of ``fleiss_kappa``. ``pooled`` counts every
    pair the same instead: a unit with m ratings weighs m (m - 1) / 2.
    None without a unit rated twice. Raises ValueError on broken input (``Ratings``).
    """
    make = coefficients.percent_pooled if pooled else coefficients.percent
    return _estimate(make, Table.of(as_ratings(ratings)))


def fleiss_kappa(ratings: Ratings | ArrayLike) -> float | None:
    """Fleiss' kappa, also where units have different numbers of ratings.

    Observed agreement is the mean over units of the share of equal pairs, agreement by chance
    that of two ratings drawn from all; both over units with two ratings or more. With equal
    numbers this is Fleiss 1971, Psychological Bulletin 76:378. None without a unit rated twice,
    or where the ratings never vary. Raises ValueError on broken input (``Ratings``).
    """
    return _estimate(coefficients.fleiss, Table.of(as_ratings(ratings)))


def krippendorff_alpha(ratings: Ratings | ArrayLike, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha: 1 - observed disagreement / disagreement by chance.

    ``level`` says how far two values are apart: "nominal" equal or not (a verdict such as
    A / B / tie), "ordinal" by how many ratings lie between (Likert), "interval" by their squared
    difference (strength, score). Units with one rating are ignored. Computed by moments: time and
    memory grow with the ratings, not with the square of the distinct values.
    None without a unit rated twice, or where the ratings never vary.
    Raises ValueError on an unknown level and on broken input (``Ratings``).
    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
    """
    return _estimate(ALPHA[_known_level(level)], Table.of(as_ratings(ratings)))


def cohen_kappa(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: Weights | None = None,
    labels: Sequence[Any] | None = None,
) -> float | None:
    """Cohen's kappa of two raters over aligned items; a, b (n,) numbers or strings.

    Items that either left out (NaN or None) are dropped. ``weights`` None counts all
    disagreements alike, "linear" and "quadratic" by the distance of the two categories in
    ``labels``: by default the sorted labels that occur, one step apart whatever their values.
    None where nothing is left or both give one same label throughout.
    Raises ValueError on unequal shapes, unknown weights, and labels that are not in ``labels``.
    Source: Cohen 1960, Educational and Psychological Measurement 20:37; 1968, Psychological
    Bulletin 70:213.
    """
    coefficient, times, _ = _cohen(a, b, weights, labels)
    return _value(coefficient, times)


def measure(
    ratings: Ratings | ArrayLike,
    *,
    statistic: Statistic = "alpha",
    level: Level = "nominal",
    replicates: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> Agreement:
    """A coefficient of all the ratings, with a 95 % bootstrap interval over units.

    ``groups`` (n,), one code per rating, the same for all ratings of a unit, says which units
    belong together, as the pairs of one ranking do: the interval is then over groups. It needs
    ``Ratings``; the value is the same with and without.
    ``statistic``: "alpha", "fleiss", "percent", "percent pooled", or "cohen" where there are
    exactly two raters (``level`` "ordinal" and "interval" then mean linear and quadratic
    weights). Fixed by ``seed``. Where no two ratings differ, a bootstrap would claim certainty:
    the interval then is Wilson's on the number of units, of the share judged otherwise than by
    chance. None where more than a twentieth of the replicates is undefined, or none differs.
    Raises ValueError on an unknown statistic or level, a level other than nominal for a nominal
    statistic, replicates < 1, and on broken input (``Ratings``).
    """
    data, level = as_ratings(ratings), _known_level(level)
    if statistic == "cohen":
        a, b = _two_columns(data)
        weights = WEIGHTS_OF_LEVEL[level]
        return measure_cohen(a, b, weights=weights, replicates=replicates, seed=seed)
    make = _formula(statistic, level)
    table = Table.of(data)
    paired, together = len(table.times), _groups(data, groups)
    if together is None:
        table = table.merged()
    value = _estimate(make, table)
    interval, method = _interval(
        make(table),
        table.times,
        value,
        width=len(table.domain),
        share=statistic.startswith("percent"),
        replicates=replicates,
        seed=seed,
        groups=together,
    )
    n_units, n_raters = (len(codes_of(codes)[0]) for codes in (data.units, data.raters))
    return Agreement(
        value, interval, len(data), n_units, n_raters, paired, statistic, level, method
    )


def measure_cohen(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: Weights | None = None,
    labels: Sequence[Any] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Agreement:
    """``cohen_kappa`` with a 95 % bootstrap interval over the aligned items; see ``measure``."""
    coefficient, times, width = _cohen(a, b, weights, labels)
    value = _value(coefficient, times)
    interval, method = _interval(
        coefficient, times, value, width=width, share=False, replicates=replicates, seed=seed
    )
    given = [~_missing(np.asarray(one)) for one in (a, b)]
    return Agreement(
        value=value,
        interval=interval,
        n_ratings=sum(int(np.count_nonzero(one)) for one in given),
        n_units=int(np.count_nonzero(given[0] | given[1])),
        n_raters=sum(bool(one.any()) for one in given),
        n_units_paired=int(times.sum()),
        statistic="cohen",
        level={kind: level for level, kind in WEIGHTS_OF_LEVEL.items()}[weights],
        method=method,
    )


def _formula(statistic: Statistic, level: Level) -> Callable[[Table], Coefficient]:
    if statistic != "alpha" and statistic not in NOMINAL:
        raise ValueError(f"statistic {statistic!r} is not one of {get_args(Statistic)}")
    if statistic != "alpha" and level != "nominal":
        raise ValueError(f"{statistic} knows equal or not: level {level!r} needs alpha or cohen")
    return ALPHA[level] if statistic == "alpha" else NOMINAL[statistic]


def _estimate(make: Callable[[Table], Coefficient], table: Table) -> float | None:
    return _value(make(table), table.times) if len(table.times) else None


def _value(coefficient: Coefficient, times: Ints) -> float | None:
    """The coefficient of the data as they are; times (rows,)."""
    if not len(times):
        return None
    value = float(coefficient(times[None, :].astype(np.float64))[0])
    return None if np.isnan(value) else value


def _interval(
    coefficient: Coefficient,
    times: Ints,
    value: float | None,
    *,
    width: int,
    share: bool,
    replicates: int,
    seed: int,
    groups: Ints | None = None,
) -> tuple[Interval | None, str]:
    """The interval and the name of its method; ``share`` where the value is a percentage."""
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, not {replicates}")
    if value is None:
        return None, ""
    units, what = int(times.sum()), "units"
    if groups is not None:
        units, what = int(groups.max(initial=-1)) + 1, "groups"
    if value == 1:
        return wilson(units, units), f"wilson on {what}"
    draw: dict[str, Any] = {"width": width, "replicates": replicates, "seed": seed}
    if groups is None:
        found = coefficients.bootstrap(coefficient, times, **draw)
    else:
        found = coefficients.bootstrap_groups(coefficient, groups, **draw)
    if found is not None and found[0] < found[1]:
        return found, f"bootstrap over {what}"
    if share:  # all units alike, or a single one
        return wilson(value * units, units), f"wilson on {what}"
    return None, ""


def _groups(data: Ratings, groups: ArrayLike | None) -> Ints | None:
    """The group of each row of ``Table.of``, codes from 0; None where each unit is its own."""
    if groups is None:
        return None
    given = np.asarray(groups)
    if given.shape != (len(data),):
        raise ValueError(f"groups {given.shape} must be one per rating ({len(data)},)")
    unit = codes_of(data.units)[1]
    per_unit = np.bincount(unit)
    first = np.unique(unit, return_index=True)[1]
    if not np.array_equal(given[first][unit], given):
        raise ValueError("the ratings of one unit are in several groups")
    found, codes = np.unique(given[first][per_unit > 1], return_inverse=True)
    return None if len(found) == len(codes) else codes.astype(np.int64)


def _known_level(level: Level) -> Level:
    if level not in ALPHA:
        raise ValueError(f"level {level!r} is not one of {get_args(Level)}")
    return level


def _cohen(
    a: ArrayLike, b: ArrayLike, weights: Weights | None, labels: Sequence[Any] | None
) -> tuple[Coefficient, Ints, int]:
    """The coefficient over kinds of item, how many items each is (kinds,), and the categories."""
    if weights not in (None, *get_args(Weights)):
        raise ValueError(f"weights {weights!r} is not None or one of {get_args(Weights)}")
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"a {first.shape} and b {second.shape} must be equal and (n,)")
    kept = ~(_missing(first) | _missing(second))
    codes, width = _categories(first[kept], second[kept], labels)
    kinds, times = np.unique(codes[0] * width + codes[1], return_counts=True)
    coefficient = coefficients.cohen(kinds // width, kinds % width, width, weights)
    return coefficient, times, width


def _categories(
    first: NDArray[Any], second: NDArray[Any], labels: Sequence[Any] | None
) -> tuple[Ints, int]:
    """Categories (2, n) of both, and how many there are (at least 1)."""
    n, numeric = len(first), {one.dtype.kind in "biuf" for one in (first, second)}
    if n and len(numeric) > 1:
        raise ValueError(f"labels of two types: {first.dtype} and {second.dtype}")
    try:
        found, codes = codes_of(np.concatenate([first, second]))
    except TypeError as error:
        raise ValueError(f"labels must be of one type: {error}") from error
    if labels is not None:
        place = {label: index for index, label in enumerate(labels)}
        unknown = [label for label in found.tolist() if label not in place]
        if unknown or len(place) < len(labels):
            raise ValueError(f"labels has repeats, or lacks {unknown}")
        codes = np.array([place[label] for label in found.tolist()], dtype=np.int64)[codes]
    return codes.reshape(2, n), max(1, len(found if labels is None else labels))


def _missing(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a label is None or NaN, (n,); text is never missing."""
    missing: NDArray[np.bool_] = np.zeros(labels.shape, dtype=bool)
    if labels.dtype.kind in "fO":
        nothing = np.array(None, dtype=object)
        missing = np.not_equal(labels, labels) | np.equal(labels, nothing).astype(bool)
    return missing.astype(bool)


def _two_columns(ratings: Ratings) -> Floats:
    """Both raters' values (2, U), NaN for gaps. Raises ValueError unless there are just two."""
    raters, rater = codes_of(ratings.raters)
    if len(raters) != 2:
        raise ValueError(f"Cohen's kappa is of two raters, not {len(raters)}; see pairwise_kappas")
    units, unit = codes_of(ratings.units)
    columns = np.full((2, len(units)), np.nan)
    columns[rater, unit] = ratings.values
    return columns
