"""How far the votes on pairs agree and how often one is wrong, from counts per pair. Pure numpy.

A million pairs fall in a few dozen ways, so n pairs are given as ``kinds`` (n,): which row of
``counts`` (k, 3), votes for a, for a tie and for b in canonical order, each of them is. ``groups``
(n,) are codes that never fall: pairs of one prompt follow each other and are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.intervals import CELLS_AT_ONCE, Interval, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED: Final = 0
REPLICATES: Final = 1000
MANY_KINDS: Final = 10_000  # of group, above which fewer replicates are drawn
FEWER: Final = 300
PAIRS_AT_ONCE: Final = 65_536
FEW: Final = 10  # groups below which a bootstrap over them knows less than it says
DEFINED: Final = 0.95  # of the replicates, else the tails are unknown
HALF: Final = 0.5


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, both None where they cannot be told."""

    value: float | None
    interval: Interval | None = None
    method: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, four places."""
        return {
            "value": None if self.value is None else round(self.value, 4),
            "interval": None if self.interval is None else [round(x, 4) for x in self.interval],
            "method": self.method,
        }


@dataclass(frozen=True)
class VoteAgreement:
    """Krippendorff's nominal alpha and the mean share of equal pairs of votes, over ``pairs``."""

    alpha: Estimate
    percent: Estimate
    pairs: int  # with two votes or more
    single: int  # with one
    votes: int
    reason: str = ""  # why alpha cannot be told

    def as_dict(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha.as_dict(),
            "percent": self.percent.as_dict(),
            "pairs": self.pairs,
            "single": self.single,
            "votes": self.votes,
            "reason": self.reason,
        }


def vote_agreement(counts: ArrayLike, kinds: ArrayLike, groups: ArrayLike) -> VoteAgreement:
    """The same figures as ``models.agreement.measure``, whose units are the pairs.

    Intervals are over groups. Raises ValueError on ragged input or groups that fall.
    """
    table, kind, group = _checked(counts, kinds, groups)
    sizes = table.sum(axis=1)
    paired, per_kind = sizes > 1, np.bincount(kind, minlength=len(table))
    squares = (table**2).sum(axis=1)
    spare = np.where(paired, sizes - 1, 1)
    features = np.column_stack(
        [
            (sizes**2 - squares) / spare,  # disagreement, as Krippendorff counts it
            table,
            (squares - sizes) / (np.where(paired, sizes, 1) * spare),  # share of equal pairs
            np.ones(len(table)),
        ]
    )
    features[~paired] = 0
    sums, times = _kinds_of_groups(features, kind, group)
    n_groups = int(times[sums[:, -1] > 0].sum())
    percent = _estimate(_percent, sums, times)
    percent = _or_wilson(percent, n_groups)
    alpha = _estimate(_alpha, sums, times)
    reason = ""
    if not n_groups:
        reason = "no pair has two votes"
    elif alpha.value is None:
        reason = "all votes say the same, so that agreement by chance is certain"
    elif alpha.value == 1:
        alpha = Estimate(1.0, wilson(n_groups, n_groups), "wilson on prompts")
    return VoteAgreement(
        alpha,
        percent,
        pairs=int(per_kind[paired].sum()),
        single=int(per_kind[sizes == 1].sum()),
        votes=int((per_kind * sizes).sum()),
        reason=reason,
    )


def disagreement(counts: ArrayLike, kinds: ArrayLike, groups: ArrayLike) -> tuple[Estimate, int]:
    """How often two votes on one pair name different winners, and on how many pairs that rests.

    Calls of a tie are left out. Every pair with two such votes counts the same.
    """
    table, kind, group = _checked(counts, kinds, groups)
    a, b = table[:, 0], table[:, 2]
    named = a + b
    paired = named > 1
    share = np.where(paired, 2 * a * b / np.where(paired, named * (named - 1), 1), 0.0)
    sums, times = _kinds_of_groups(np.column_stack([share, paired]), kind, group)
    n_groups = int(times[sums[:, -1] > 0].sum())
    found = _estimate(lambda totals: _ratio(totals[:, 0], totals[:, 1]), sums, times)
    pairs = int(np.bincount(kind, minlength=len(table))[paired].sum())
    return _or_wilson(found, n_groups), pairs


def flip_rate(disagrees: Estimate) -> Estimate:
    """The chance e that one vote names the wrong winner: two votes differ in 2 e (1 - e).

    Assumes votes that err independently and equally often on every pair: where pairs differ in
    difficulty the mean chance is higher. .5 is the most it can say.
    """
    if disagrees.value is None or disagrees.interval is None:
        return Estimate(None)
    low, high = (_flip(end) for end in disagrees.interval)
    return Estimate(_flip(disagrees.value), (low, high), disagrees.method)


def row_noise(per_vote: Estimate, leads: Mapping[int, int]) -> Estimate:
    """The mean chance that a row's label is wrong, given the votes behind it.

    ``leads``: votes for chosen less votes for rejected -> how many rows. With e the chance that a
    vote is wrong and even odds before any vote, chosen is the worse answer with probability
    1 / (1 + ((1 - e) / e) ** lead). The interval is that of e carried through: the rows are given.
    """
    if per_vote.value is None or per_vote.interval is None or not sum(leads.values()):
        return Estimate(None)
    ends = sorted(_mean_wrong(end, leads) for end in per_vote.interval)
    value = _mean_wrong(per_vote.value, leads)
    return Estimate(value, (min(ends[0], value), max(ends[1], value)), per_vote.method)


def _flip(share: float) -> float:
    return (1 - float(np.sqrt(max(0.0, 1 - 2 * share)))) / 2


def _mean_wrong(e: float, leads: Mapping[int, int]) -> float:
    lead, rows = (np.array(list(part), dtype=np.float64) for part in (leads, leads.values()))
    if e <= 0:
        wrong = np.where(lead > 0, 0.0, np.where(lead < 0, 1.0, HALF))
    else:
        odds = min(float(np.log1p(-e) - np.log(e)), 700.0)
        wrong = 1 / (1 + np.exp(np.clip(lead * odds, -700, 700)))
    return float((wrong * rows).sum() / rows.sum())


def _checked(counts: ArrayLike, kinds: ArrayLike, groups: ArrayLike) -> tuple[Floats, Ints, Ints]:
    table = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
    kind, group = np.asarray(kinds), np.asarray(groups)
    kind = kind if kind.size else kind.astype(np.int64)
    if kind.ndim != 1 or kind.shape != group.shape:
        raise ValueError(f"kinds {kind.shape} and groups {group.shape} must be equal and (n,)")
    if kind.size and not 0 <= kind.min() <= kind.max() < len(table):
        raise ValueError(f"kinds must be rows of counts, 0..{len(table) - 1}")
    if (group[1:] < group[:-1]).any():
        raise ValueError("pairs of one group must follow each other")
    return table, kind, group


def _kinds_of_groups(features: Floats, kinds: Ints, groups: Ints) -> tuple[Floats, Ints]:
    """Sums of the features (K, f) of each kind of group, and how many groups are of it (K,).

    Two groups are of one kind where they hold the same pairs, told by a random number per kind of
    pair: their sums collide once in 2**64.
    """
    random = np.random.default_rng(SEED).integers(2**63, size=len(features), dtype=np.uint64)
    found = [(np.zeros(0, np.uint64), np.zeros((0, features.shape[1])), np.zeros(0, np.int64))]
    # Of a million pairs there are a few kinds: block by block nothing else stays in memory.
    end = 0
    while end < len(kinds):
        start, end = end, min(end + PAIRS_AT_ONCE, len(kinds))
        end = int(np.searchsorted(groups, groups[end - 1], side="right"))  # a group is not cut
        found.append(_kinds_of_block(features, random, kinds[start:end], groups[start:end]))
    keys, sums, times = (np.concatenate(parts) for parts in zip(*found, strict=True))
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    counted = np.bincount(kind, weights=times, minlength=len(first))
    return sums[first], counted.astype(np.int64)


def _kinds_of_block(
    features: Floats, random: NDArray[np.uint64], kinds: Ints, groups: Ints
) -> tuple[NDArray[np.uint64], Floats, Ints]:
    """The keys of the kinds of group in it, their sums, and how many groups are of each."""
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    keys, first, times = np.unique(
        np.add.reduceat(random[kinds], starts), return_index=True, return_counts=True
    )
    sizes = np.diff(np.append(starts, len(kinds)))[first]
    ends = np.cumsum(sizes)
    rows = np.repeat(starts[first] - (ends - sizes), sizes) + np.arange(ends[-1])
    return keys, np.add.reduceat(features[kinds[rows]], ends - sizes, axis=0), times


def _estimate(formula: Callable[[Floats], Floats], sums: Floats, times: Ints) -> Estimate:
    """The formula of the totals (B, f), and its interval over groups drawn whole."""
    if not len(times):
        return Estimate(None)
    value = float(formula((times @ sums)[None, :])[0])
    if np.isnan(value):
        return Estimate(None)
    told = sums[:, -1] > 0
    sums, times = sums[told], times[told]
    total = int(times.sum())
    if total < FEW:
        return Estimate(value)
    rng, share = np.random.default_rng(SEED), times / total
    replicates = REPLICATES if len(times) <= MANY_KINDS else FEWER
    step, found = max(1, CELLS_AT_ONCE // len(times)), []
    for start in range(0, replicates, step):
        drawn = rng.multinomial(total, share, size=min(step, replicates - start))
        found.append(formula(drawn @ sums))
    values = np.concatenate(found)
    values = values[~np.isnan(values)]
    if len(values) < DEFINED * replicates:
        return Estimate(value)
    low, high = (float(end) for end in np.quantile(values, [0.025, 0.975]))
    return Estimate(value, (low, high) if low < high else None, "bootstrap over prompts")


def _or_wilson(found: Estimate, groups: int) -> Estimate:
    """A share where a bootstrap has no width, or too few groups: as if each group said one thing."""
    if found.value is None or found.interval is not None:
        return found
    value = min(max(found.value, 0.0), 1.0)
    return Estimate(found.value, wilson(value * groups, groups), "wilson on prompts")


def _percent(totals: Floats) -> Floats:
    return _ratio(totals[:, 4], totals[:, 5])


def _alpha(totals: Floats) -> Floats:
    """1 - observed disagreement / disagreement by chance, as models.coefficients.alpha_nominal."""
    counts = totals[:, 1:4]
    n = counts.sum(axis=1)
    expected = _ratio(n**2 - (counts**2).sum(axis=1), n - 1)
    varies = ~(counts == n[:, None]).any(axis=1)
    return np.where(varies, 1 - _ratio(totals[:, 0], expected), np.nan)


def _ratio(above: Floats, below: Floats) -> Floats:
    nothing: Floats = np.full(above.shape, np.nan)
    return np.divide(above, below, out=nothing, where=below != 0)
