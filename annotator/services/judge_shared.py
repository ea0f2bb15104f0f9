"""Whether a judge makes the same mistakes as others do."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from annotator.models import Judge
from annotator.queries.judge_report import Shared
from annotator.services.judge_truth import Compared
from models.raters import DawidSkene
from models.shared_errors import shared_errors

MOST_ITEMS: Final = 20_000  # pairs drawn where there are more
MOST_RATERS: Final = 100  # the busiest
FEWEST_RATERS: Final = 4  # with fewer the fit absorbs what they share
MOST_ROWS: Final = 10


def shared(judge: Judge, compared: Compared) -> Shared | None:
    """The judge against everybody who judged the same pairs; None with too few raters."""
    own = ~compared.said.verdicts.is_failed
    parts = [
        (compared.items[own], np.full(own.sum(), judge.rater_id), compared.classes[own]),
        *((one.items, one.raters, 1 - one.outcome) for one in (compared.people, compared.judges)),
    ]
    items, raters, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    ids, n = np.unique(raters, return_counts=True)
    if len(ids) < FEWEST_RATERS:
        return None
    busiest = np.union1d(ids[np.argsort(-n, kind="stable")[:MOST_RATERS]], [judge.rater_id])
    kept = np.isin(raters, busiest) & _drawn(compared.n_items)[items]
    ids, rater = np.unique(raters[kept], return_inverse=True)
    item = np.unique(items[kept], return_inverse=True)[1]
    if len(ids) < FEWEST_RATERS:
        return None
    fitted = DawidSkene().fit(item, rater, labels[kept], n_raters=len(ids), n_classes=3)
    found = shared_errors(item, rater, labels[kept], fitted, named=len(ids) ** 2)
    own_code = int(np.searchsorted(ids, judge.rater_id))
    rows = [
        _row(compared, int(ids[one.second if one.first == own_code else one.first]), one)
        for one in found.worst
        if own_code in (one.first, one.second)
    ]
    looked = len(ids) - 1
    return {
        "is_warning": bool(rows),
        "message": _sentence(len(rows), looked),
        "pairs": looked,
        "rows": rows[:MOST_ROWS],
    }


def _drawn(n_items: int) -> Any:
    kept = np.ones(n_items, dtype=bool)
    if n_items > MOST_ITEMS:
        kept[np.random.default_rng(0).permutation(n_items)[MOST_ITEMS:]] = False
    return kept


def _row(compared: Compared, other: int, pair: Any) -> dict[str, Any]:
    return {
        "name": compared.said.crowd.title(other),
        "judge": compared.said.crowd.judges.get(other),
        "shared": pair.shared,
        "agreement": pair.agreement,
        "expected": pair.expected,
        "excess": pair.excess,
        "p_value": pair.p_value,
    }


def _sentence(alike: int, looked: int) -> str:
    if not alike:
        return f"No sign that it shares errors with any of {looked:,} other raters."
    return (
        f"It agrees with {alike:,} of {looked:,} other raters more often than their quality "
        "explains: their common votes are fewer pieces of evidence than they look."
    )
