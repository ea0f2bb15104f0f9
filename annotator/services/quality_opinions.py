"""What was said as statistics take it: items, raters, labels. One table per question asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.queries.quality_data import PLACES, Codes, Floats, Said, Values, Verdict
from models.consensus import TIE as TIED
from models.consensus import A, B, Votes
from models.raters import UNKNOWN
from models.ratings import Ratings

VERDICTS: Final = "verdicts"  # the question "which of two is better"
MOST_CLASSES: Final = 20  # more distinct values than this are scores, not classes
PAIR_VALUES: Final = (1.0, 0.0, -1.0)


@dataclass(frozen=True, eq=False)
class Opinions:
    """n opinions on one question, one row per (item, rater).

    items, raters, labels, judgments (n,) codes: a judgment is its place in ``Said.work``, a label
    its place in ``domain`` (K,). ``signed`` (n,) are the same opinions on an ordered scale: the
    strength of a preference with its direction, or the rating. Of each item (I,): its task, the
    places of its response or of its two, the ids of the two (2, I), and the known class.
    """

    name: str
    items: Codes
    raters: Codes
    labels: Codes
    judgments: Codes
    signed: Floats
    domain: Floats
    item_tasks: Codes
    item_places: Codes  # of the response, or place of a * PLACES + place of b
    sides: Codes | None
    truth: Codes  # what is known of any item with a gold
    certain: Codes  # what is known beforehand: control tasks, and what reviewers decided

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_pairs(self) -> bool:
        return self.sides is not None

    @property
    def is_classes(self) -> bool:
        """Whether there are few enough distinct values to be classes."""
        return len(self.domain) <= MOST_CLASSES

    def where(self, rows: NDArray[Any]) -> Opinions:
        """Some of the rows; items keep their codes."""
        names = ("items", "raters", "labels", "judgments", "signed")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def counted(self, said: Said) -> Opinions:
        """Those that count, with their items: what judges said is left out unless accepted."""
        kept = said.is_counted[self.judgments]
        return self if kept.all() else self.where(kept).compact()

    def compact(self) -> Opinions:
        """The same rows with only the items that occur in them."""
        present = np.bincount(self.items, minlength=len(self.item_tasks)) > 0
        return replace(
            self,
            items=(np.cumsum(present) - 1)[self.items],
            item_tasks=self.item_tasks[present],
            item_places=self.item_places[present],
            sides=None if self.sides is None else self.sides[:, present],
            truth=self.truth[present],
            certain=self.certain[present],
        )

    def votes(self, excluded: NDArray[np.bool_], *, clamped: bool = True) -> Votes:
        """For models.consensus."""
        known = clamped and (self.certain != UNKNOWN).any()
        return Votes(
            self.items,
            self.raters,
            self.labels,
            len(self.item_tasks),
            len(excluded),
            n_classes=max(len(self.domain), 1),
            sides=None if self.sides is None else _codes(self.sides),
            gold=self.certain if known else None,
            excluded=excluded,
            groups=self.item_tasks,
        )

    @property
    def tasks(self) -> Codes:
        """The task of each opinion: what a person judged at once is one for every interval."""
        return self.item_tasks[self.items]

    def ratings(self, *, signed: bool = False) -> Ratings:
        """For models.agreement."""
        values = self.signed if signed else self.domain[self.labels]
        return Ratings(self.items, self.raters, values)


def _codes(ids: Codes) -> Codes:
    return np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int64)


def of_pairs(said: Said) -> Opinions:
    """Every preference, in canonical order: classes a, tie, b."""
    edges = said.edges
    straight = edges.place_a < edges.place_b
    low = np.minimum(edges.place_a, edges.place_b).astype(np.int64)
    high = np.maximum(edges.place_a, edges.place_b).astype(np.int64)
    outcome = np.where(straight, edges.outcomes, -edges.outcomes).astype(np.int64)
    keys, first, items = np.unique(
        (edges.tasks * PLACES + low) * PLACES + high, return_index=True, return_inverse=True
    )
    a = np.where(straight, edges.a, edges.b)[first]
    b = np.where(straight, edges.b, edges.a)[first]
    item_tasks, item_places = keys // (PLACES * PLACES), keys % (PLACES * PLACES)
    truth, certain = _known(said, keys, _pair_classes)
    return Opinions(
        name=VERDICTS,
        items=items.astype(np.int64),
        raters=edges.raters,
        labels=1 - outcome,
        judgments=edges.judgments,
        signed=(outcome * edges.strengths).astype(np.float64),
        domain=np.array(PAIR_VALUES),
        item_tasks=item_tasks,
        item_places=item_places,
        sides=np.stack([a, b]),
        truth=truth,
        certain=certain,
    )


def of_ratings(said: Said, attribute: str, values: Values) -> Opinions:
    """Every rating of one attribute: an item is a response of a task."""
    tasks = said.work.tasks[values.judgments]
    keys, items = np.unique(tasks * PLACES + values.places, return_inverse=True)
    domain, labels = np.unique(values.values, return_inverse=True)

    def classes(verdict: Verdict) -> list[tuple[int, int]]:
        found = []
        for place, value in enumerate(verdict.ratings.get(attribute) or []):
            at = np.flatnonzero(domain == value) if isinstance(value, int | float) else ()
            if len(at):
                found.append((verdict.task * PLACES + place, int(at[0])))
        return found

    truth, certain = _known(said, keys, classes)
    return Opinions(
        name=attribute,
        items=items.astype(np.int64),
        raters=said.work.raters[values.judgments],
        labels=labels.astype(np.int64),
        judgments=values.judgments,
        signed=values.values,
        domain=domain,
        item_tasks=keys // PLACES,
        item_places=keys % PLACES,
        sides=None,
        truth=truth,
        certain=certain,
    )


def pooled(questions: list[Opinions]) -> Opinions | None:
    """Ratings of several attributes as one question: an item is a response on an attribute."""
    if not questions:
        return None
    domain = np.unique(np.concatenate([one.domain for one in questions]))
    offsets = np.cumsum([0, *(len(one.item_tasks) for one in questions)])[:-1]

    def together(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in questions])

    def recoded(name: str) -> Codes:
        """Labels of items or opinions in the common domain."""
        parts = []
        for one in questions:
            place = np.searchsorted(domain, one.domain)
            labels = getattr(one, name)
            parts.append(np.where(labels == UNKNOWN, UNKNOWN, place[labels]))
        return np.concatenate(parts).astype(np.int64)

    return Opinions(
        name="ratings",
        items=np.concatenate(
            [one.items + at for one, at in zip(questions, offsets, strict=True)]
        ).astype(np.int64),
        raters=together("raters"),
        labels=recoded("labels"),
        judgments=together("judgments"),
        signed=together("signed"),
        domain=domain,
        item_tasks=together("item_tasks"),
        item_places=together("item_places"),
        sides=None,
        truth=recoded("truth"),
        certain=recoded("certain"),
    )


def _pair_classes(verdict: Verdict) -> list[tuple[int, int]]:
    """(key of a pair, its class) for every two ranked responses."""
    ranks = verdict.ranks[:PLACES]
    return [
        ((verdict.task * PLACES + i) * PLACES + j, TIED if one == two else A if one < two else B)
        for i, one in enumerate(ranks)
        for j, two in enumerate(ranks)
        if i < j and one and two
    ]


def _known(said: Said, keys: Codes, classes: Any) -> tuple[Codes, Codes]:
    """Known classes of the items with these rising keys: of any gold, and of certain ones."""
    truth = np.full(len(keys), UNKNOWN, dtype=np.int64)
    certain = truth.copy()
    for verdicts, into in ((said.golds, truth), (said.decisions, certain)):
        for verdict in verdicts:
            for key, label in classes(verdict):
                at = int(np.searchsorted(keys, key))
                if at < len(keys) and keys[at] == key:
                    into[at] = label
                    if into is truth and said.tasks.is_gold[verdict.task]:
                        certain[at] = label
    return truth, certain
