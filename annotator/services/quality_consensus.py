"""The consensus of every task: computed by a named aggregator, written in bulk.

Tasks a reviewer settled hold the decision, certain; all others what the counted votes add up to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
from django.db import connection, transaction

from annotator.queries.quality_data import PLACES, Codes, Floats, Said
from annotator.services.quality_opinions import Opinions
from models.aggregators import AGGREGATORS
from models.consensus import TIE, Pooled, majority
from rubrics.registry import pick

ADJUDICATION: Final = "adjudication"
RATINGS_INSTEAD: Final = "dawid-skene"  # of CrowdBT, which knows pairs only
EVEN: Final = 1e-6
ANALYZE_FROM: Final = 5_000  # rows changed; what reads them next needs a plan that fits


@dataclass(eq=False)
class Found:
    """What the questions said so far, by task code. Arrays (tasks,)."""

    said: Said
    posterior: Floats = field(init=False)
    rated_posterior: Floats = field(init=False)
    agreeing: Floats = field(init=False)
    agreements: Floats = field(init=False)
    pairs: tuple[Opinions, Pooled] | None = None
    ratings: dict[str, tuple[Codes, Codes, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.said.tasks.ids)
        self.posterior, self.rated_posterior = np.ones(size), np.ones(size)
        self.agreeing, self.agreements = np.zeros(size), np.zeros(size)

    def add_pairs(self, opinions: Opinions, pooled: Pooled) -> None:
        self.pairs = opinions, pooled
        np.minimum.at(self.posterior, opinions.item_tasks, pooled.posterior.max(axis=1))
        self._agree(opinions)

    def add_ratings(self, opinions: Opinions, *, aggregator: str) -> None:
        """Means of the posterior, or of the votes where the values are scores and no classes."""
        excluded = self.said.people.excluded
        counted = ~excluded[opinions.raters]
        size = len(opinions.item_tasks)
        voted = np.bincount(opinions.items[counted], minlength=size) > 0
        if opinions.is_classes:
            key = aggregator if aggregator != "crowd-bt" else RATINGS_INSTEAD
            pooled = pool(opinions, key, excluded)
            means = pooled.posterior @ opinions.domain
            np.minimum.at(
                self.rated_posterior,
                opinions.item_tasks[voted],
                pooled.posterior.max(axis=1)[voted],
            )
        else:
            totals = np.bincount(
                opinions.items[counted], weights=opinions.signed[counted], minlength=size
            )
            n = np.bincount(opinions.items[counted], minlength=size)
            means = totals / np.maximum(n, 1)
        self.ratings[opinions.name] = (
            opinions.item_tasks[voted], opinions.item_places[voted], means[voted]
        )  # fmt: skip
        self._agree(opinions)

    def _agree(self, opinions: Opinions) -> None:
        """Share of agreeing pairs of raters of each item, summed per task."""
        rows = opinions.where(~self.said.people.excluded[opinions.raters])
        width = max(len(rows.domain), 1)
        cells, n = np.unique(rows.items * width + rows.labels, return_counts=True)
        size = len(opinions.item_tasks)
        same = np.bincount(cells // width, weights=n * (n - 1), minlength=size)
        all_ = np.bincount(rows.items, minlength=size)
        shared = all_ > 1
        share = same[shared] / (all_[shared] * (all_[shared] - 1))
        tasks = len(self.agreeing)
        self.agreeing += np.bincount(opinions.item_tasks[shared], weights=share, minlength=tasks)
        self.agreements += np.bincount(opinions.item_tasks[shared], minlength=tasks)


def pool(opinions: Opinions, aggregator: str, excluded: Any, *, clamped: bool = True) -> Pooled:
    """The consensus of one question; without a counted vote nothing is decided."""
    method = pick(AGGREGATORS, aggregator) if len(opinions) else majority
    found: Pooled = method(opinions.votes(excluded, clamped=clamped))
    return found


@dataclass(frozen=True)
class Row:
    """One task's consensus, as annotator.models.Consensus keeps it."""

    task_id: int
    aggregator: str
    ranks: list[int]
    ratings: dict[str, list[float | None]] | None
    pairs: list[list[float]]
    posterior: float
    votes: int
    agreement: float | None


def rows(found: Found, *, aggregator: str) -> Iterator[Row]:
    """The consensus of every task that has a counted vote or a decision, by rising task."""
    said, tasks = found.said, found.said.tasks
    counted = ~said.people.excluded[said.work.raters] & said.is_counted
    votes = np.bincount(said.work.tasks[counted], minlength=len(tasks.ids))
    decided = {one.task: one for one in said.decisions}
    pairs = _Pairs(found)
    ratings = {name: _ByTask(*columns) for name, columns in found.ratings.items()}
    judged = np.union1d(np.flatnonzero(votes), np.array(sorted(decided), dtype=np.int64))
    shared = found.agreements > 0
    agreement = np.where(shared, found.agreeing / np.maximum(found.agreements, 1), np.nan)
    for task in judged.astype(np.int64).tolist():
        size = int(tasks.sizes[task])
        of_pairs = pairs.of(task)
        known = decided.get(task)
        rated = {name: values.of(task, size) for name, values in ratings.items()}
        rated = {name: values for name, values in rated.items() if values is not None}
        yield Row(
            task_id=int(tasks.ids[task]),
            aggregator=ADJUDICATION if known else aggregator,
            ranks=known.ranks if known else ranks(size, of_pairs),
            ratings=(known.ratings if known else rated) or None,
            pairs=[one.stored() for one in of_pairs],
            posterior=1.0 if known else _posterior(found, task, has_pairs=bool(of_pairs)),
            votes=int(votes[task]),
            agreement=None if not shared[task] else float(agreement[task]),
        )


def _posterior(found: Found, task: int, *, has_pairs: bool) -> float:
    return float((found.posterior if has_pairs else found.rated_posterior)[task])


@dataclass(frozen=True)
class _Pair:
    a: int  # ids of the two responses
    b: int
    place_a: int
    place_b: int
    chances: list[float]

    @property
    def label(self) -> int:
        return max(range(3), key=self.chances.__getitem__)

    def stored(self) -> list[float]:
        return [self.a, self.b, *(round(chance, 4) for chance in self.chances)]


class _Pairs:
    """The consensus of pairs, task by task."""

    def __init__(self, found: Found) -> None:
        size = len(found.said.tasks.ids)
        if found.pairs is None:
            self._starts = [0] * (size + 1)
            return
        opinions, pooled = found.pairs
        assert opinions.sides is not None
        # Items are sorted by task: opinions.of_pairs keys them so.
        self._starts = np.searchsorted(opinions.item_tasks, np.arange(size + 1)).tolist()
        self._a, self._b = opinions.sides.tolist()
        self._place_a = (opinions.item_places // PLACES).tolist()
        self._place_b = (opinions.item_places % PLACES).tolist()
        self._chances = pooled.posterior.tolist()

    def of(self, task: int) -> list[_Pair]:
        return [
            _Pair(self._a[at], self._b[at], self._place_a[at], self._place_b[at], self._chances[at])
            for at in range(self._starts[task], self._starts[task + 1])
        ]


class _ByTask:
    """Mean ratings of one attribute, task by task."""

    def __init__(self, tasks: Codes, places: Codes, means: Floats) -> None:
        self._tasks, self._places, self._means = tasks, places, means

    def of(self, task: int, size: int) -> list[float | None] | None:
        begin, end = np.searchsorted(self._tasks, [task, task + 1])
        if begin == end:
            return None
        values: list[float | None] = [None] * size
        for at in range(begin, end):
            if self._places[at] < size:
                values[self._places[at]] = round(float(self._means[at]), 4)
        return values


def ranks(size: int, pairs: list[_Pair]) -> list[int]:
    """Places of a task's responses from the consensus of its pairs, 1 the best, without a gap.

    A response's score is the sum of its chances to win, a tie half. Two in a row whose own pair
    is a tie share a place. Where nothing was compared all tie; a response that nobody could rank
    beside others gets 0.
    """
    if not pairs:
        return [1] * size
    score, games = [0.0] * size, [0] * size
    tied = set()
    for pair in pairs:
        a, tie, b = pair.chances
        for place, won in ((pair.place_a, a), (pair.place_b, b)):
            if place < size:
                score[place] += won + tie / 2
                games[place] += 1
        if pair.label == TIE:
            tied.add((pair.place_a, pair.place_b))
    share = [won / n if n else -1.0 for won, n in zip(score, games, strict=True)]
    order = sorted((place for place in range(size) if games[place]), key=lambda at: -share[at])
    found, place = [0] * size, 0
    for before, at in zip([None, *order[:-1]], order, strict=True):
        level = before is not None and (
            abs(share[before] - share[at]) < EVEN or (min(before, at), max(before, at)) in tied
        )
        place += not level
        found[at] = place
    return found


COLUMNS: Final = (
    "task_id, project_id, aggregator, ranks, ratings, pairs, posterior, votes, agreement,"
    " computed_at"
)
CHANGED: Final = "aggregator, ranks, ratings, pairs, posterior, votes, agreement"
UPSERT: Final = f"""
    INSERT INTO annotator_consensus AS c ({COLUMNS})
    SELECT {", ".join(f"n.{name.strip()}" for name in COLUMNS.split(","))}
    FROM consensus_now n JOIN annotator_task t ON t.id = n.task_id
    -- decided since the votes were read: the decision wins
    WHERE n.aggregator = '{ADJUDICATION}' OR NOT t.is_settled
    ORDER BY n.task_id
    ON CONFLICT (task_id) DO UPDATE SET
        ({CHANGED}, computed_at) = ROW (
            {", ".join(f"excluded.{name.strip()}" for name in CHANGED.split(","))},
            excluded.computed_at)
    WHERE ({", ".join(f"c.{name.strip()}" for name in CHANGED.split(","))})
          IS DISTINCT FROM
          ({", ".join(f"excluded.{name.strip()}" for name in CHANGED.split(","))})
"""
# What is not there any more; a decision made since the votes were read stays.
PRUNE: Final = """
    DELETE FROM annotator_consensus c
    WHERE c.project_id = %s
      AND NOT EXISTS (SELECT FROM consensus_now n WHERE n.task_id = c.task_id)
      AND NOT EXISTS (SELECT FROM annotator_task t WHERE t.id = c.task_id AND t.is_settled)
"""


def write(project_id: int, found: Iterator[Row], *, at: datetime) -> int:
    """Replace the project's consensus in one transaction; returns the number of tasks.

    Rows that stay as they were are not touched. Two writers of one project stand in line.
    """
    count = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext('touchstone consensus'), %s)", [project_id]
        )
        cursor.execute(
            "CREATE TEMPORARY TABLE consensus_now ON COMMIT DROP AS"
            f" SELECT {COLUMNS} FROM annotator_consensus WITH NO DATA"
        )
        with cursor.copy(f"COPY consensus_now ({COLUMNS}) FROM STDIN") as copy:
            for row in found:
                copy.write_row(_fields(row, project_id, at))
                count += 1
        cursor.execute("CREATE UNIQUE INDEX ON consensus_now (task_id)")
        cursor.execute("ANALYZE consensus_now")
        cursor.execute(UPSERT)
        changed = cursor.rowcount
        cursor.execute(PRUNE, [project_id])
    if changed > ANALYZE_FROM:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE annotator_consensus")
    return count


def _fields(row: Row, project_id: int, at: datetime) -> tuple[Any, ...]:
    return (
        row.task_id,
        project_id,
        row.aggregator,
        row.ranks,
        orjson.dumps(row.ratings).decode() if row.ratings else None,
        orjson.dumps(row.pairs).decode(),
        round(row.posterior, 6),
        min(row.votes, 32_767),
        row.agreement,
        at,
    )
