"""Agreement of a project as figures: whole, and by kind, attribute, tag and week."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.queries.quality_data import KIND_KEYS, Codes, Said
from annotator.services.quality_opinions import Opinions
from models.agreement import Agreement, leave_one_out, measure, measure_cohen
from models.rater_agreement import pairwise_kappas

WEEK: Final = 7 * 24 * 3600
MONDAY: Final = 4 * 24 * 3600  # 1970-01-01 was a Thursday: the first Monday is the fifth
WEEKS: Final = 26
REPLICATES: Final = 400  # of the interval of a part; the whole has measure's default
MATRIX: Final = 14  # raters in the table of who agrees with whom
FEWEST_SHARED: Final = 20
COHEN_PAIRS: Final = 15

Figure = dict[str, Any]


def estimate(value: float | None, low: float | None, high: float | None, **more: Any) -> Figure:
    """A number with its interval, ready for JSON."""
    return {"value": _number(value), "low": _number(low), "high": _number(high), **more}


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def of(found: Agreement) -> Figure:
    low, high = found.interval or (None, None)
    return estimate(found.value, low, high, units=found.n_units_paired, ratings=found.n_ratings)


def counted_rows(said: Said, opinions: Opinions, *, judges: bool) -> NDArray[np.bool_]:
    """Opinions that agreement is measured on: no control tasks, nobody who was left out.

    Judges are left out where there are people or imported raters, unless asked for.
    """
    people = said.people
    keep = ~people.excluded
    if not judges and (keep & ~people.is_judge).any():
        keep = keep & ~people.is_judge
    rows: NDArray[np.bool_] = (
        keep[opinions.raters] & ~said.tasks.is_gold[opinions.item_tasks[opinions.items]]
    )
    return rows


def line(name: str, opinions: Opinions, *, whole: bool = False) -> Figure:
    """One row of the table of agreement."""
    ratings = opinions.ratings()
    signed = opinions.ratings(signed=True)
    n: dict[str, Any] = {
        "replicates": 1000 if whole else REPLICATES,
        "groups": opinions.tasks,
    }
    ordered = {} if not whole else {
        "ordinal": of(measure(signed, level="ordinal", **n)),
        "interval": of(measure(signed, level="interval", **n)),
        "fleiss": of(measure(ratings, statistic="fleiss", **n)),
    }  # fmt: skip
    return {
        "name": name,
        "alpha": of(measure(ratings, **n)),
        "percent": of(measure(ratings, statistic="percent", **n)),
        "raters": len(np.unique(opinions.raters)),
        **ordered,
    }


def by_kind(said: Said, opinions: Opinions) -> list[Figure]:
    """A row per kind of task; the opinions on a pair of a ranking count as units of their own."""
    kinds = said.tasks.kinds[opinions.item_tasks[opinions.items]]
    return [
        line(KIND_KEYS[code], opinions.where(kinds == code), whole=True)
        for code in np.unique(kinds).tolist()
    ]


def by_tag(said: Said, opinions: Opinions, tags: list[tuple[str, Codes]]) -> list[Figure]:
    prompts = said.tasks.prompts[opinions.item_tasks[opinions.items]]
    found = []
    for tag, ids in tags:
        rows = np.isin(prompts, ids)
        if rows.any():
            found.append(line(tag, opinions.where(rows)))
    return found


def by_week(said: Said, opinions: Opinions) -> list[Figure]:
    """A row per week in which the last opinion on an item was given."""
    if not len(opinions):
        return []
    at = said.work.at[opinions.judgments]
    last = np.zeros(len(opinions.item_tasks), dtype=np.int64)
    np.maximum.at(last, opinions.items, at)
    week = (last[opinions.items] - MONDAY) // WEEK
    found = []
    for number in np.unique(week)[-WEEKS:].tolist():
        begin = datetime.fromtimestamp(number * WEEK + MONDAY, UTC).date()
        found.append(line(begin.isoformat(), opinions.where(week == number)))
    return found


def ceiling(opinions: Opinions) -> Figure | None:
    """How often one person says what the others of an item say most."""
    found = leave_one_out(opinions.ratings()) if len(opinions) else None
    if found is None:
        return None
    return estimate(found.accuracy, *found.interval, n=found.n, units=found.groups)


def busiest(said: Said, opinions: Opinions, most: int = MATRIX) -> Codes:
    """Codes of the raters with most opinions, people before judges."""
    n = np.bincount(opinions.raters, minlength=len(said.people))
    order = np.argsort(-n, kind="stable")[:most]
    order = order[n[order] > 0]
    judge = said.people.is_judge[order]
    return np.concatenate([order[~judge], order[judge]]).astype(np.int64)


def matrix(said: Said, opinions: Opinions) -> Figure:
    """Who agrees with whom: shares of shared items, None below FEWEST_SHARED."""
    raters = busiest(said, opinions)
    cells: list[list[float | None]] = [[None] * len(raters) for _ in raters]
    shared_cells = [[0] * len(raters) for _ in raters]
    if len(raters) > 1 and opinions.is_classes:
        found = pairwise_kappas(opinions.where(np.isin(opinions.raters, raters)).ratings())
        at = {int(code): place for place, code in enumerate(found.raters)}
        for i, one in enumerate(raters.tolist()):
            for j, two in enumerate(raters.tolist()):
                n = int(found.shared[at[one], at[two]])
                shared_cells[i][j] = n if i != j else 0
                if i != j and n >= FEWEST_SHARED:
                    cells[i][j] = float(found.agreement[at[one], at[two]])
    return {"raters": said.people.ids[raters].tolist(), "share": cells, "shared": shared_cells}


def cohens(said: Said, opinions: Opinions) -> list[Figure]:
    """Cohen's kappa of the pairs of raters who share most items, each with its interval."""
    raters = busiest(said, opinions)
    rows = opinions.where(np.isin(opinions.raters, raters))
    if len(raters) < 2 or not rows.is_classes:
        return []
    place = np.zeros(len(said.people), dtype=np.int64)
    place[raters] = np.arange(len(raters))
    table = np.full((len(raters), len(rows.item_tasks)), np.nan, dtype=np.float32)
    table[place[rows.raters], rows.items] = rows.labels
    known = ~np.isnan(table)
    pairs = [
        (int((known[i] & known[j]).sum()), i, j)
        for i in range(len(raters))
        for j in range(i + 1, len(raters))
    ]
    shown = sorted(pair for pair in pairs if pair[0])[-COHEN_PAIRS:]
    return [_cohen(said, raters, table, i, j) for i, j in sorted((i, j) for _, i, j in shown)]


def _cohen(said: Said, raters: Codes, table: NDArray[np.float32], i: int, j: int) -> Figure:
    both = ~np.isnan(table[i]) & ~np.isnan(table[j])
    found = measure_cohen(table[i][both], table[j][both], replicates=REPLICATES)
    names = [said.people.names[raters[at]] for at in (i, j)]
    return {"first": names[0], "second": names[1], **of(found)}


def questions(said: Said, ratings: Iterator[Opinions]) -> list[Figure]:
    """A row per attribute that was rated."""
    found = []
    for one in ratings:
        rows = one.where(counted_rows(said, one, judges=False))
        if len(rows):
            found.append(line(one.name, rows, whole=True))
    return found
