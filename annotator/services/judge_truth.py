"""What people say of the pairs a judge was asked about, lined up with its verdicts.

The right answer of a pair is, in this order: the known one of a gold, what a reviewer decided, the
answer that more people gave than any other, where at least ``min_people`` judged the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.queries.judge_report import Estimate
from annotator.queries.judge_votes import JudgeVotes
from annotator.queries.quality_data import Codes
from models.intervals import Accuracy, Interval, estimate_accuracy

NONE: Final = 9  # no answer by people
SOURCES: Final = ("gold", "reviewer", "majority")
WANTED_PEOPLE: Final = 2
ENOUGH_PAIRS: Final = 30  # with so many people each, else one person is enough
FEWEST: Final = 5  # cases, below which a part says nothing
FAILED_CLASS: Final = 3  # in tables of classes a, tie, b, unreadable
SEED: Final = 0

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ballots:
    """One row per (pair, rater): the sign of what the rater said of it in all."""

    items: Codes
    raters: Codes  # ids
    outcome: Codes

    def __len__(self) -> int:
        return len(self.items)

    def where(self, rows: Flags) -> Ballots:
        return Ballots(self.items[rows], self.raters[rows], self.outcome[rows])


@dataclass(frozen=True, eq=False)
class Compared:
    """The judge's verdicts (n,) with the pair each is about and people's answer, NONE for none.

    ``source`` (n,) is the place in SOURCES, -1 for none. ``people`` and ``judges`` are everybody
    else's votes on the same pairs, ``failed`` what other judges could not say readably.
    ``has_people`` (n,): some person has voted or decided.
    """

    said: JudgeVotes
    items: Codes
    n_items: int
    truth: Codes
    source: Codes
    min_people: int
    has_people: Flags
    people: Ballots
    judges: Ballots
    failed: Ballots

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_known(self) -> Flags:
        known: Flags = self.truth != NONE
        return known

    @property
    def by_majority(self) -> Flags:
        found: Flags = self.source == SOURCES.index("majority")
        return found

    @cached_property
    def classes(self) -> Codes:
        """The judge's answer: 0 the first, 1 a tie, 2 the second, FAILED_CLASS unreadable."""
        verdicts = self.said.verdicts
        return np.where(verdicts.is_failed, FAILED_CLASS, 1 - verdicts.outcome.astype(np.int64))

    @cached_property
    def truth_of_items(self) -> Codes:
        """People's answer of each pair (n_items,)."""
        found = np.full(self.n_items, NONE, dtype=np.int64)
        found[self.items] = self.truth
        return found

    @cached_property
    def prompt_of_items(self) -> Codes:
        found = np.zeros(self.n_items, dtype=np.int64)
        found[self.items] = self.said.verdicts.prompts
        return found

    @cached_property
    def sides(self) -> tuple[Codes, Codes]:
        """Positions of the two responses of each verdict in ``said.responses``."""
        verdicts, responses = self.said.verdicts, self.said.responses
        return responses.at(verdicts.low), responses.at(verdicts.high)

    @cached_property
    def lengths(self) -> tuple[Codes, Codes]:
        low, high = self.sides
        return self.said.responses.lengths[low], self.said.responses.lengths[high]


def compare(said: JudgeVotes) -> Compared:
    """Line everything up."""
    verdicts, votes = said.verdicts, said.votes
    places = _Places(verdicts.low, verdicts.high)
    items, n_items = places.own, places.size
    there = places.find(votes.low, votes.high)
    is_person = np.isin(votes.raters, said.crowd.people)
    ballot = (there >= 0) & ~votes.is_decision & ~votes.is_failed
    lost = (there >= 0) & votes.is_failed
    people = _ballots(there, votes.raters, votes.outcome, ballot & is_person)
    judges = _ballots(there, votes.raters, votes.outcome, ballot & ~is_person)
    failed = _ballots(there, votes.raters, votes.outcome, lost)
    counts = np.zeros((n_items, 3), dtype=np.int64)
    np.add.at(counts, (people.items, 1 - people.outcome), 1)
    voters = counts.sum(axis=1)
    enough = int((voters >= WANTED_PEOPLE).sum()) >= ENOUGH_PAIRS
    min_people = WANTED_PEOPLE if enough else 1
    truth, source = _majority(counts, min_people)
    decided = (there >= 0) & votes.is_decision
    has_people = voters > 0
    has_people[there[decided]] = True
    known = places.find(said.golds.low, said.golds.high)
    for at, (place, outcome) in enumerate(
        (
            (known[known >= 0], said.golds.outcome[known >= 0]),
            (there[decided], votes.outcome[decided]),
        )
    ):
        better = (source[place] < 0) | (source[place] > at)
        truth[place[better]] = outcome[better]
        source[place[better]] = at
    return Compared(
        said, items, n_items, truth[items], source[items], min_people, has_people[items],
        people, judges, failed,
    )  # fmt: skip


class _Places:
    """Codes of pairs of ids: those of the judge's own, and where other pairs are among them."""

    def __init__(self, low: Codes, high: Codes) -> None:
        self._ids = np.unique(np.concatenate([low, high]))
        self._keys, own = np.unique(self._key(low, high), return_inverse=True)
        self.own: Codes = own.astype(np.int64)
        self.size = len(self._keys)

    def find(self, low: Codes, high: Codes) -> Codes:
        """Code of each pair, -1 for one that the judge was not asked about."""
        if not self.size:
            return np.full(len(low), -1, dtype=np.int64)
        key = self._key(low, high)
        at = np.minimum(np.searchsorted(self._keys, key), self.size - 1)
        there = (self._keys[at] == key) & np.isin(low, self._ids) & np.isin(high, self._ids)
        return np.where(there, at, -1).astype(np.int64)

    def _key(self, low: Codes, high: Codes) -> Codes:
        first, second = np.searchsorted(self._ids, low), np.searchsorted(self._ids, high)
        key: Codes = (first * (len(self._ids) + 1) + second).astype(np.int64)
        return key


def _ballots(items: Codes, raters: Codes, outcome: Any, kept: Flags) -> Ballots:
    items, raters = items[kept], raters[kept]
    if not len(items):
        nothing = np.empty(0, dtype=np.int64)
        return Ballots(nothing, nothing, nothing)
    ids, rater = np.unique(raters, return_inverse=True)
    cells, at = np.unique(items * len(ids) + rater, return_inverse=True)
    net = np.sign(np.bincount(at, weights=outcome[kept])).astype(np.int64)
    return Ballots(cells // len(ids), ids[cells % len(ids)], net)


def _majority(counts: Codes, min_people: int) -> tuple[Codes, Codes]:
    """The answer that most people gave; NONE where too few did, or two answers lead."""
    ordered = np.sort(counts, axis=1)
    leads = (ordered[:, -1] > ordered[:, -2]) & (counts.sum(axis=1) >= min_people)
    truth = np.where(leads, 1 - counts.argmax(axis=1), NONE).astype(np.int64)
    return truth, np.where(leads, SOURCES.index("majority"), -1).astype(np.int64)


# Numbers for JSON -----------------------------------------------------------------------------


def estimate(
    value: float | None, interval: Interval | None, n: int, groups: int, method: str = ""
) -> Estimate:
    low, high = interval if interval is not None else (None, None)
    return {"value": value, "low": low, "high": high, "n": n, "groups": groups, "method": method}


def of_accuracy(found: Accuracy) -> Estimate:
    return estimate(found.accuracy, found.interval, found.n, found.groups, found.method)


def share(hits: Any, groups: Any) -> Estimate:
    """A mean of hits in 0..1 with its interval over groups; its value is None where n is 0."""
    found = estimate_accuracy(hits, groups, seed=SEED)
    return of_accuracy(found) if found is not None else estimate(None, None, 0, 0)
