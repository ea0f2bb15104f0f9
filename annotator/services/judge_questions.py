"""A judge's ratings and checks beside people's: one row per attribute or criterion."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.models import Judge
from annotator.queries import judge_votes
from annotator.queries.columns import Columns
from annotator.queries.judge_report import Estimate, Question
from annotator.queries.judge_votes import Crowd
from annotator.queries.quality_data import PLACES, Codes, Floats
from annotator.services.judge_truth import FEWEST, estimate, share
from models.agreement import Level, measure
from models.paired_agreement import paired_agreement
from models.ratings import Ratings
from models.resampling import mean_interval, resampled_sums

MOST: Final = 60
REPLICATES: Final = 400


def questions(raw: psycopg.Connection, judge: Judge, crowd: Crowd) -> list[Question]:
    """Everything it rated or checked that people have rated or checked too."""
    found = []
    for name, kind in judge_votes.questions(raw, judge, most=MOST):
        rows = judge_votes.rated(raw, judge, name, kind)
        one = _question(name, kind, rows, judge.rater_id, crowd.people)
        if one is not None:
            found.append(one)
    return found


def _question(name: str, kind: str, rows: Columns, rater: int, people: Codes) -> Question | None:
    """None for fewer than FEWEST responses that both have rated."""
    units = rows["task_id"] * PLACES + rows["place"]
    own, crowd = rows["rater_id"] == rater, np.isin(rows["rater_id"], people)
    shared = np.intersect1d(units[own], units[crowd])
    kept = np.isin(units, shared) & (own | crowd)
    if len(shared) < FEWEST:
        return None
    item = np.searchsorted(shared, units[kept])
    value, is_own = rows["value"][kept], own[kept]
    prompts = np.zeros(len(shared), dtype=np.int64)
    prompts[item] = rows["prompt_id"][kept]
    mine = np.zeros(len(shared))
    mine[item[is_own]] = value[is_own]
    n = np.bincount(item[~is_own], minlength=len(shared))
    mean = np.bincount(item[~is_own], weights=value[~is_own], minlength=len(shared)) / n
    middle = _medians(item[~is_own], value[~is_own], n)
    theirs = Ratings(item[~is_own], rows["rater_id"][kept][~is_own], value[~is_own])
    build = _checked if kind == "checklist" else _rated
    return build(name, mine, mean, middle, prompts, theirs)


def _medians(items: Codes, values: Floats, n: Codes) -> Floats:
    """The median of each item's values; the mean of the two in the middle where they are even."""
    ordered = values[np.lexsort((values, items))]
    begin = np.cumsum(n) - n
    return np.asarray((ordered[begin + (n - 1) // 2] + ordered[begin + n // 2]) / 2)


def _rated(
    name: str, mine: Floats, mean: Floats, middle: Floats, prompts: Codes, theirs: Ratings
) -> Question:
    from scipy.stats import rankdata  # slow to import, and every page would

    gaps = mine - mean
    interval = mean_interval(gaps, prompts)
    groups = len(np.unique(prompts))
    method = "normal over groups" if interval else ""
    return {
        "name": name,
        "kind": "rating",
        "exact": share(mine == middle, prompts),
        "within_one": share(np.abs(mine - middle) <= 1, prompts),
        "correlation": _correlation(mine, mean, prompts),
        "rank_correlation": _correlation(rankdata(mine), rankdata(mean), prompts),
        "difference": estimate(float(gaps.mean()), interval, len(gaps), groups, method),
        "alpha": _alpha(_together(mine, middle), np.tile(prompts, 2), "interval"),
        "kappa": None,
        "alpha_people": _alpha(theirs, prompts[theirs.units], "interval"),
    }


def _checked(
    name: str, mine: Floats, mean: Floats, middle: Floats, prompts: Codes, theirs: Ratings
) -> Question:
    decided = mean != 0.5
    mine, mean, prompts_ = mine[decided], mean[decided], prompts[decided]
    answer = (mean > 0.5).astype(np.int64)
    kappa = paired_agreement(
        answer, mine.astype(np.int64).clip(0, 1), prompts_, classes=2, statistic="cohen"
    )
    method = "bootstrap over groups" if kappa.interval else ""
    return {
        "name": name,
        "kind": "checklist",
        "exact": share(mine == answer, prompts_),
        "within_one": None,
        "correlation": None,
        "rank_correlation": None,
        "difference": None,
        "alpha": _alpha(
            _together(mine, answer.astype(np.float64)), np.tile(prompts_, 2), "nominal"
        ),
        "kappa": estimate(kappa.value, kappa.interval, kappa.n, kappa.groups, method),
        "alpha_people": _alpha(theirs, prompts[theirs.units], "nominal"),
    }


def _together(mine: Floats, others: Floats) -> Ratings:
    units = np.arange(len(mine))
    raters = np.repeat([0, 1], len(mine))
    return Ratings(np.tile(units, 2), raters, np.concatenate([mine, others]))


def _alpha(ratings: Ratings, groups: NDArray[Any], level: Level) -> Estimate | None:
    found = measure(ratings, level=level, replicates=REPLICATES, groups=groups)
    if found.value is None:
        return None
    return estimate(found.value, found.interval, found.n_units_paired, found.n_units, found.method)


def _correlation(one: Floats, two: Floats, prompts: Codes) -> Estimate | None:
    """Pearson's r with a bootstrap over prompts; None where either never varies."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    x, y = (one - one.mean()) / one.std(), (two - two.mean()) / two.std()
    columns = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
    drawn = resampled_sums(columns, prompts, replicates=REPLICATES, seed=0)
    found = _pearson(drawn)
    known = found[np.isfinite(found)]
    groups, interval = len(np.unique(prompts)), None
    if groups > 1 and len(known) > 0.95 * len(found):
        low, high = np.quantile(known, [0.025, 0.975])
        interval = (float(low), float(high))
    method = "bootstrap over groups" if interval else ""
    return estimate(float(_pearson(columns.sum(axis=0)[None])[0]), interval, len(x), groups, method)


def _pearson(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy = sums.T
    spread = (n * xx - x * x) * (n * yy - y * y)
    above = n * xy - x * y
    root = np.sqrt(np.maximum(spread, 0))
    return np.divide(above, root, out=np.full(len(n), np.nan), where=root > 1e-12 * n * n)
