"""What was measured of a rubric: every criterion's score of both sides of every pair, as one value.

From a sheet everything that is said of a rubric's accuracy can be counted again in milliseconds:
with all criteria, with those accepted so far, with equal weights, without one of them. Pairs of
``is_held`` took no part in finding or weighing criteria; accuracy is only ever counted on those.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rubrics.intervals import Accuracy, estimate_accuracy, group_codes
from rubrics.margins import Gain, gain
from rubrics.regularization import correlation_around_zero

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
BAND: Final = 0.1  # a smaller difference in score does not tell two sides apart
EVEN: Final = 1e-6  # a smaller margin is none, as a share of the largest there can be
SEED: Final = 0
COLUMNS: Final = ("criteria", "prompts", "chosen", "rejected", "votes_for", "votes", "is_held")


@dataclass(frozen=True)
class Sheet:
    """Scores of k criteria on n pairs.

    criteria (k,) ids; prompts, chosen, rejected (n,) ids; votes_for of votes (n,) put chosen
    first; is_held (n,) bool; scores (n, 2, k) in 0..1, chosen then rejected, NaN where a
    criterion says nothing of a side or was not asked. ``others`` (n,) by name are what other
    scorers say of the same pairs, positive where they prefer chosen, NaN where not asked:
    "length", "judge", "judge.rubric", "reward-model". ``orders`` (n, 2) by judge name are its
    probabilities that chosen is better, shown first and shown second.
    """

    criteria: Longs
    prompts: Longs
    chosen: Longs
    rejected: Longs
    votes_for: Longs
    votes: Longs
    is_held: NDArray[np.bool_]
    scores: Floats
    others: dict[str, Floats] = field(default_factory=dict)
    orders: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = len(self.prompts), len(self.criteria)
        if self.scores.shape != (n, 2, k):
            raise ValueError(f"scores {self.scores.shape} must be ({n}, 2, {k})")
        if any(len(getattr(self, name)) != n for name in COLUMNS[1:]):
            raise ValueError(f"columns must have {n} rows")
        if any(one.shape != (n,) for one in self.others.values()):
            raise ValueError(f"what others say must be ({n},)")
        if any(one.shape != (n, 2) for one in self.orders.values()):
            raise ValueError(f"orders must be ({n}, 2)")

    def to_bytes(self) -> bytes:
        """Compressed; read again by ``from_bytes``."""
        target = io.BytesIO()
        named = {name: getattr(self, name) for name in COLUMNS} | {"scores": self.scores}
        named |= {f"other.{name}": one for name, one in self.others.items()}
        named |= {f"order.{name}": one for name, one in self.orders.items()}
        np.savez_compressed(target, **named)
        return target.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sheet:
        """Raises ValueError for what ``to_bytes`` did not write."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                return cls(
                    **{name: found[name] for name in (*COLUMNS, "scores")},
                    others=_named(found, "other."),
                    orders=_named(found, "order."),
                )
        except (BadZipFile, EOFError, KeyError, OSError, TypeError, AttributeError) as error:
            raise ValueError(f"these bytes are no sheet: {error}") from error

    @property
    def differences(self) -> Floats:
        """Chosen minus rejected (n, k); 0 where a criterion says nothing of either side."""
        found: Floats = np.nan_to_num(self.scores[:, 0] - self.scores[:, 1])
        return found

    def only(self, rows: NDArray[Any]) -> Sheet:
        """The same of some pairs."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS[1:]}
        return Sheet(
            criteria=self.criteria,
            scores=self.scores[rows],
            others={name: one[rows] for name, one in self.others.items()},
            orders={name: one[rows] for name, one in self.orders.items()},
            **columns,
        )

    def of_criteria(self, ids: Collection[int]) -> Sheet:
        """The same of some criteria; ids that are not in it are passed over."""
        places = [at for at, pk in enumerate(self.criteria) if int(pk) in ids]
        return replace(self, criteria=self.criteria[places], scores=self.scores[:, :, places])

    def held(self) -> Sheet:
        return self.only(self.is_held)

    def learned(self) -> Sheet:
        return self.only(~self.is_held)

    def margins(self, weights: ArrayLike) -> NDArray[np.float64]:
        """Weighted differences (n,), positive where chosen comes out first; weights (k,).

        What is only the rest of equal sums in floating point is 0.
        """
        given = np.asarray(weights, dtype=np.float64)
        found: NDArray[np.float64] = self.differences @ given
        found[np.abs(found) <= EVEN * np.abs(given).sum()] = 0.0
        return found

    def weights(self, by_id: Mapping[int, float]) -> NDArray[np.float64]:
        """Weights (k,) of these criteria, 0 for all others. Raises KeyError as ``places``."""
        found = np.zeros(len(self.criteria))
        found[self.places(list(by_id))] = list(by_id.values())
        return found

    def places(self, ids: Sequence[int]) -> list[int]:
        """Columns of these criteria. Raises KeyError for one that was not measured."""
        at = {int(pk): place for place, pk in enumerate(self.criteria)}
        return [at[pk] for pk in ids]


def accuracy(sheet: Sheet, margins: ArrayLike) -> Accuracy | None:
    """How often chosen comes out first, strict: an even pair is wrong, and counted in ``ties``.

    NaN margins were not asked and are left out. None where nothing is left.
    """
    given = np.asarray(margins, dtype=np.float64)
    asked = ~np.isnan(given)
    right, even = _right(given[asked]), _even(given[asked])
    return estimate_accuracy(right, sheet.prompts[asked], seed=SEED, ties=int(even.sum()))


def _even(margins: NDArray[np.float64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.abs(margins) <= EVEN * np.abs(margins).max(initial=0.0)
    return found


def _right(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((margins > 0) & ~_even(margins)).astype(np.float64)


def difference(sheet: Sheet, ours: ArrayLike, theirs: ArrayLike) -> Gain | None:
    """Accuracy of one set of margins minus that of another on the pairs that both judge."""
    mine, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    both = ~np.isnan(mine) & ~np.isnan(other)
    if not both.any():
        return None
    right = _right(mine[both]) - _right(other[both])
    return gain(right, group_codes(sheet.prompts[both]), seed=SEED)


def held_accuracy(sheet: Sheet, by_id: Mapping[int, float]) -> Accuracy | None:
    """Accuracy of these criteria together, by id, on the pairs that took no part in fitting.

    With the weights of those accepted so far it is that of the draft as it stands. Raises
    KeyError for a criterion that was not measured.
    """
    held = sheet.held()
    return accuracy(held, held.margins(held.weights(by_id)))


def contributions(
    sheet: Sheet, by_id: Mapping[int, float], of: Collection[int] | None = None
) -> dict[int, Gain | None]:
    """By criterion, what held-out accuracy loses without it, the other weights as they are.

    ``of``: only of these. None where there is no held-out pair.
    """
    held = sheet.held()
    weights = held.weights(by_id)
    margins, differences = held.margins(weights), held.differences
    found: dict[int, Gain | None] = {}
    for pk in by_id if of is None else of:
        (at,) = held.places([pk])
        without = margins - differences[:, at] * weights[at]
        without[np.abs(without) <= EVEN * np.abs(weights).sum()] = 0.0
        found[pk] = difference(held, margins, without)
    return found


def redundancy(sheet: Sheet) -> dict[int, tuple[int, float] | None]:
    """By criterion, the one whose differences are most like its own, and their correlation.

    Around 0, on the pairs that were learned from (on all where there are none); None where it
    goes with no other.
    """
    learned = sheet.learned()
    rows = (learned if len(learned.prompts) else sheet).differences.astype(np.float64)
    ids = [int(pk) for pk in sheet.criteria]
    if len(ids) < 2 or not len(rows):
        return dict.fromkeys(ids)
    correlation = correlation_around_zero(rows)
    np.fill_diagonal(correlation, 0.0)
    found: dict[int, tuple[int, float] | None] = {}
    for at, pk in enumerate(ids):
        nearest = int(np.abs(correlation[at]).argmax())
        r = float(correlation[at, nearest])
        found[pk] = (ids[nearest], r) if r else None
    return found


def _named(found: Any, prefix: str) -> dict[str, Floats]:
    return {name.removeprefix(prefix): found[name] for name in found.files if name[:6] == prefix}
