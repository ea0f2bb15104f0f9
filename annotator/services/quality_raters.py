"""Raters as figures: everyone in one table and by one measure."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.queries.quality_data import KIND_KEYS, NEVER, Codes, Said
from annotator.services import quality_agreement as agreement
from annotator.services.quality_agreement import Figure, estimate
from annotator.services.quality_opinions import Opinions
from models.agreement import measure
from models.consensus import Pooled, dawid_skene, majority
from models.gold import consistency, gold_reliability, position_bias, speed, wilson_shares
from models.intervals import wilson

SHOWN: Final = 200  # raters of a table, those with most judgments
DAYS: Final = {"start": 0, "7": 7, "30": 30}
DAY: Final = 24 * 3600
FEW: Final = 30  # judgments below which a wide interval is only newness
WIDE: Final = 0.3
SURE: Final = 0.99  # of a preference for a place: with ten raters one in twenty is nothing
LOW: Final = 0.6
ENOUGH_REPEATS: Final = 10
FEWEST: Final = 5  # opinions from which a reliability is told at all
COMPARING: Final = [KIND_KEYS.index(key) for key in ("pairwise", "ranking")]


def slices(said: Said, main: Opinions, scale: Figure) -> dict[str, Figure]:
    """Figures of every choice of the page's two filters, by "since|kind".

    ``scale`` holds CrowdBT reliabilities by rater id, which are of all judgments.
    """
    newest = int(said.work.at.max(initial=0))
    kinds = np.unique(said.tasks.kinds[said.work.tasks]).tolist()
    found: dict[str, Figure] = {}
    sizes: dict[tuple[int, str], str] = {}
    for since, days in DAYS.items():
        recent = said.work.at > newest - days * DAY if days else np.ones(len(said.work), bool)
        for kind in ["all", *(KIND_KEYS[code] for code in kinds if len(kinds) > 1)]:
            mask = recent.copy()
            if kind != "all":
                mask &= said.tasks.kinds[said.work.tasks] == KIND_KEYS.index(kind)
            same = sizes.setdefault((int(mask.sum()), kind), f"{since}|{kind}")
            if same in found:
                found[f"{since}|{kind}"] = {"same": same}
                continue
            rows = main if mask.all() else main.where(mask[main.judgments]).compact()
            found[f"{since}|{kind}"] = table(said, mask, rows, scale)
    return found


def table(said: Said, mask: NDArray[np.bool_], rows: Opinions, scale: Figure) -> Figure:
    """One table of raters with its headline figures; mask (judgments,) chooses the judgments."""
    work, people = said.work, said.people
    n = np.bincount(work.raters[mask], minlength=len(people))
    order = np.argsort(-n, kind="stable")
    order = order[n[order] > 0]
    columns = _columns(said, mask, rows)
    return {
        "judgments": int(mask.sum()),
        "n_raters": len(order),
        "headline": _headline(said, mask, rows),
        "raters": [
            _row(said, code, columns, int(n[code]), scale) for code in order[:SHOWN].tolist()
        ],
        "matrix": agreement.matrix(
            said, rows.where(agreement.counted_rows(said, rows, judges=True))
        ),
    }


def _columns(said: Said, mask: NDArray[np.bool_], rows: Opinions) -> dict[str, Any]:
    """Arrays (raters,) by name."""
    work, size = said.work, len(said.people)
    raters = work.raters[mask]

    def count(of: NDArray[Any]) -> Codes:
        return np.bincount(raters[of[mask]], minlength=size)

    pooled = pool(said, rows)
    golds = count(work.hit == 1), count(work.hit == 0)
    # A rating of one answer, or a checklist, is level without anybody having called it a tie.
    compares = np.isin(said.tasks.kinds[work.tasks], COMPARING)
    timed = mask & (work.active_ms != NEVER)
    return {
        "others": with_others(said, rows),
        "reliability": (pooled.reliability, pooled.low, pooled.high),
        "consensus": with_consensus(said, rows, pooled),
        "golds": gold_reliability(*golds),
        "gold_counts": golds,
        "first": position_bias(count(work.first > 0), count(work.first != 0)),
        "biased": position_bias(count(work.first > 0), count(work.first != 0), SURE).is_biased,
        "ties": wilson_shares(count(work.is_tie & compares), count(compares)),
        "speed": speed(work.raters[timed], work.active_ms[timed], n_raters=size),
        "repeats": repeats(said, rows),
    }


def pool(said: Said, rows: Opinions) -> Pooled:
    """Dawid-Skene over the opinions, whatever the project's own aggregator."""
    method = dawid_skene if rows.is_classes else majority
    if not rows.is_classes:  # scores: no confusion of classes is to be learned
        rows = rows.where(np.zeros(len(rows), dtype=bool)).compact()
    return method(rows.votes(said.people.excluded))


def with_others(said: Said, rows: Opinions) -> tuple[Any, Any, Any, Any]:
    """Share of the others' opinions that a rater shares, its interval and number, (raters,).

    Each opinion counts once, with the share of counted others on its item who said the same.
    """
    size = len(said.people)
    rows = rows.where(~said.tasks.is_gold[rows.item_tasks[rows.items]])
    width = len(rows.domain) or 1
    own = (~said.people.excluded)[rows.raters].astype(float)
    cell = rows.items * width + rows.labels
    cells, at = np.unique(cell, return_inverse=True)
    same = np.bincount(at, weights=own, minlength=len(cells))[at] - own
    others = np.bincount(rows.items, weights=own, minlength=len(rows.item_tasks))[rows.items] - own
    seen = others > 0
    hits = np.bincount(rows.raters[seen], weights=same[seen] / others[seen], minlength=size)
    n = np.bincount(rows.raters[seen], minlength=size)
    shares = by_task(np.minimum(hits, n), n, rows, seen)
    return shares.share, shares.low, shares.high, n


def by_task(hits: Any, n: Codes, rows: Opinions, seen: NDArray[np.bool_]) -> Any:
    """Shares hits / n (raters,) whose intervals count a task once.

    The pairs of one ranking come from one judgment: as many cases as there are tasks is the
    careful number, and exact where a task is one item.
    """
    pairs = np.unique(np.stack([rows.raters[seen], rows.tasks[seen]]), axis=1)
    tasks = np.bincount(pairs[0], minlength=len(n))
    share = np.divide(hits, n, out=np.zeros(len(n)), where=n > 0)
    return wilson_shares(share * tasks, tasks)


def with_consensus(said: Said, rows: Opinions, pooled: Pooled) -> tuple[Any, Any, Any, Any]:
    """Share of a rater's opinions that are the consensus of their item, (raters,)."""
    size = len(said.people)
    if len(pooled.posterior) != len(rows.item_tasks):
        nothing = np.zeros(size)
        shares = wilson_shares(nothing, nothing)
        return shares.share, shares.low, shares.high, nothing
    told = np.ptp(pooled.posterior, axis=1)[rows.items] > 0
    right = pooled.labels[rows.items] == rows.labels
    hits = np.bincount(rows.raters[told & right], minlength=size)
    n = np.bincount(rows.raters[told], minlength=size)
    shares = by_task(hits, n, rows, told)
    return shares.share, shares.low, shares.high, n


def repeats(said: Said, rows: Opinions) -> Any:
    """Same verdict where a rater met the same two responses again in another task."""
    size = len(said.people)
    if rows.sides is None or not len(rows):
        return consistency(np.zeros(size), np.zeros(size))
    a, b = rows.sides
    low, high = np.minimum(a, b), np.maximum(a, b)
    pair = np.unique(np.stack([low, high]), axis=1, return_inverse=True)[1].ravel()[rows.items]
    label = np.where((a < b)[rows.items], rows.labels, 2 - rows.labels)
    order = np.lexsort((rows.judgments, pair, rows.raters))
    again = (np.diff(rows.raters[order]) == 0) & (np.diff(pair[order]) == 0)
    same = again & (np.diff(label[order]) == 0)
    who = rows.raters[order][1:]
    return consistency(
        np.bincount(who[same], minlength=size), np.bincount(who[again], minlength=size)
    )


def _row(said: Said, code: int, columns: dict[str, Any], n: int, scale: Figure) -> Figure:
    people, gold, first = said.people, columns["golds"], columns["first"]
    times, ties, again = columns["speed"], columns["ties"], columns["repeats"]
    hits, misses = (int(column[code]) for column in columns["gold_counts"])
    others, told = columns["others"], columns["consensus"]
    row = {
        "id": int(people.ids[code]),
        "name": people.names[code],
        "kind": people.kinds[code],
        "judgments": n,
        "others": estimate(others[0][code], others[1][code], others[2][code], n=int(others[3][code])),
        "consensus": estimate(told[0][code], told[1][code], told[2][code], n=int(told[3][code])),
        "reliability": estimate(
            *(column[code] if told[3][code] >= FEWEST else None for column in columns["reliability"])
        ),
        "scale": scale.get(str(people.ids[code])),
        "first": estimate(first.share[code], first.low[code], first.high[code], n=int(first.n[code])),
        "ties": estimate(ties.share[code], ties.low[code], ties.high[code], n=int(ties.n[code])),
        "median_ms": estimate(
            times.median[code], times.low[code], times.high[code], n=int(times.n[code])
        ),
        "gold": estimate(gold.mean[code], gold.low[code], gold.high[code], hits=hits, n=hits + misses),
        "again": estimate(
            again.share[code], again.low[code], again.high[code], n=int(again.n[code])
        ),
    }  # fmt: skip
    row["flags"] = _flags(row, fast=times.too_fast[code], biased=columns["biased"][code],
                          failing=gold.flagged[code], above=first.share[code] > 0.5)  # fmt: skip
    return row


def _flags(row: Figure, *, fast: Any, biased: Any, failing: Any, above: Any) -> list[str]:
    """What a reviewer should look at, by a word each; the page says it in sentences."""
    reliable, again = row["reliability"], row["again"]
    told = reliable["high"] is not None and reliable["value"] is not None
    marks = {
        "fast": bool(fast),
        "first": bool(biased and above),
        "last": bool(biased and not above),
        "golds": bool(failing),
        "unreliable": told and row["judgments"] >= FEW and reliable["high"] < LOW,
        "inconsistent": again["n"] >= ENOUGH_REPEATS and again["high"] < LOW,
        "wide": told and reliable["high"] - reliable["low"] > WIDE,
    }
    return [mark for mark, is_set in marks.items() if is_set]


def _headline(said: Said, mask: NDArray[np.bool_], rows: Opinions) -> Figure:
    """Five figures of people and imported raters together, judges where there are only judges."""
    work, people = said.work, said.people
    keep = ~people.excluded
    if (keep & ~people.is_judge).any():
        keep = keep & ~people.is_judge
    mine = mask & keep[work.raters]
    counted = rows.where(agreement.counted_rows(said, rows, judges=False))
    ratings = counted.ratings()
    first, asked = int((work.first[mine] > 0).sum()), int((work.first[mine] != 0).sum())
    hits, golds = int((work.hit[mine] == 1).sum()), int((work.hit[mine] >= 0).sum())
    times = work.active_ms[mine & (work.active_ms != NEVER)]
    quarters = np.quantile(times, [0.25, 0.5, 0.75]) if len(times) else [None] * 3
    return {
        "alpha": agreement.of(measure(ratings, groups=counted.tasks)),
        "percent": agreement.of(measure(ratings, statistic="percent", groups=counted.tasks)),
        "first": _share(first, asked),
        "gold": _share(hits, golds),
        "time": estimate(quarters[1], quarters[0], quarters[2], n=len(times)),
    }


def _share(hits: int, n: int) -> Figure:
    low, high = wilson(hits, n)
    return estimate(hits / n if n else None, low, high, hits=hits, n=n)
