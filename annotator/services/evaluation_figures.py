"""What an evaluation says, as the JSON that its run keeps. Every number with interval and count.

``est`` is {"value", "low", "high", "n", "groups", "ties"}: over ``groups`` prompts, ``ties`` even
ones counted as wrong. Parts that cannot be said are None, and ``missing`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.queries.evaluation_pairs import NAMELESS, SPLIT_KEYS, Pairs, Votes
from annotator.queries.quality_data import Codes
from annotator.services import evaluation_benchmark
from models.baselines import human_ceiling
from models.best_of_n import Curve, Mean, curve, gain
from models.calibration import brier, log_loss
from models.calibrators import CALIBRATORS, cross_fitted
from models.intervals import Accuracy, Interval
from models.rm_evaluation import (
    Correlation,
    Flags,
    Floats,
    Swap,
    calibration,
    follows_length,
    length_buckets,
    paired,
    sliced,
    strict,
)
from models.transforms import COMBINATIONS

Json = dict[str, Any]

VERSION: Final = 1
SMALLEST: Final = 20  # pairs of a slice that stands alone
MOST_SLICES: Final = 12
COMPARED_SLICES: Final = 6  # reward models whose slices are kept beside
STRENGTHS: Final = {1: "better", 2: "much better", 3: "very much better"}
FEWEST_SHARED: Final = 20  # pairs that all compared must have in common
BY_PAIRS: Final = (
    "This model compares two answers with each other and may go in circles: it gives no single"
    " score by which one of many could be chosen."
)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Something that says which answer of a pair is better.

    ``margins`` (n,) are positive where it says that ``chosen`` is, NaN where it says nothing;
    ``even`` is how near to 0 is a tie. Only those of a ``reward-model`` are log-odds.
    """

    key: str
    label: str
    kind: str  # "reward-model", "rubric", "judge", "length"
    margins: Floats
    even: float = 0.0

    @property
    def known(self) -> Flags:
        return np.asarray(np.isfinite(self.margins))

    @property
    def right(self) -> Flags:
        return np.asarray(self.margins > self.even)


@dataclass(frozen=True, eq=False)
class Crowd:
    """Raters as masks over single votes: (name, those of the group)."""

    people: Flags
    groups: list[tuple[str, Flags]] = field(default_factory=list)
    imported: bool = False
    simulated: bool = False


@dataclass(frozen=True, eq=False)
class Candidates:
    """Responses (m,) of the prompts with the model's scores and the gold's, for best of n."""

    prompts: Codes
    scores: Floats | None  # None: the model compares, and has none to choose by
    golds: Floats
    gold: str  # who the gold is, in words
    by_ways: Mapping[str, Floats] = field(default_factory=dict)  # of an ensemble


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Everything that figures are made of. All pairs are decided."""

    pairs: Pairs
    model: Scorer
    scores: Floats | None  # (n, 2) of chosen and rejected; None: the model compares two answers
    rivals: list[Scorer]
    votes: Votes
    crowd: Crowd
    tags: list[tuple[str, Codes]]
    candidates: Candidates
    ceiling: Accuracy | None
    swap: Swap | None

    @cached_property
    def has_texts(self) -> bool:
        """Whether answers have a length: pictures have none."""
        return bool(self.pairs.chosen_length.any() or self.pairs.rejected_length.any())


def est(found: Accuracy | None) -> Json | None:
    if found is None:
        return None
    low, high = found.interval
    return {
        "value": found.accuracy, "low": low, "high": high, "n": found.n, "groups": found.groups,
        "ties": found.ties,
    }  # fmt: skip


def figures(given: Evaluated) -> Json:
    """All parts. The pairs are those that the model has scored on both sides."""
    pairs, model = given.pairs, given.model
    longer = (pairs.chosen_length - pairs.rejected_length).astype(np.float64)
    length = Scorer("length", "Longer answer wins", "length", longer)
    rivals = [*([length] if given.has_texts else []), *given.rivals]
    found: Json = {
        "version": VERSION,
        "accuracy": est(strict(model.margins, pairs.prompts)),
        "longer": est(strict(longer, pairs.prompts)) if given.has_texts else None,
        "ceiling": _ceiling(given),
        "rivals": [_rival(model, rival, pairs) for rival in rivals if rival.known.any()],
        "together": _together(model, rivals, pairs),
        "slices": _slices(given),
        "calibration": {
            one.key: _calibration(one, pairs) for one in (model, *_models(given.rivals))
        },
        "length": _length(given, longer),
        "order": _order(given.swap),
        "best_of_n": _best_of_n(given.candidates),
        "benchmark": evaluation_benchmark.benchmark(pairs, model.margins, given.scores),
        "splits": {key: int((pairs.splits == code).sum()) for code, key in enumerate(SPLIT_KEYS)},
    }
    found["missing"] = dict(_missing(given, found))
    return found


def _models(rivals: Sequence[Scorer]) -> list[Scorer]:
    return [one for one in rivals if one.kind == "reward-model"][:COMPARED_SLICES]


def ceiling(votes: Votes, people: Flags) -> Accuracy | None:
    """How often a person agrees with the majority of the others, on any pairs, undecided ones too:
    of pairs chosen for their majority two people would always agree."""
    rows = people & (votes.pair >= 0)
    return human_ceiling(votes.pair[rows], votes.raters[rows], votes.outcome[rows])


def _ceiling(given: Evaluated) -> Json | None:
    told = est(given.ceiling)
    if told is None:
        return None
    return told | {"imported": given.crowd.imported, "simulated": given.crowd.simulated}


# Against others -----------------------------------------------------------------------------------


def _rival(model: Scorer, rival: Scorer, pairs: Pairs) -> Json:
    """Both on the pairs of which the rival says something, and the difference."""
    rows = rival.known
    prompts = pairs.prompts[rows]
    found = paired(model.right[rows], rival.right[rows], prompts)
    assert found is not None, "it says something"
    low, high = found.interval
    return {
        "key": rival.key,
        "label": rival.label,
        "kind": rival.kind,
        "rival": est(strict(rival.margins[rows], prompts, even=rival.even)),
        "model": est(strict(model.margins[rows], prompts)),
        "difference": {"value": found.difference, "low": low, "high": high, "n": found.n},
        "model_only": found.first_only,
        "rival_only": found.second_only,
    }


def _together(model: Scorer, rivals: Sequence[Scorer], pairs: Pairs) -> Json | None:
    """All on the very same pairs: those that every rival speaks of that speaks of at least half.

    Where rivals leave too few in common, the one with the fewest pairs stands aside.
    """
    kept = [one for one in rivals if 2 * one.known.sum() >= len(pairs)]
    kept.sort(key=lambda one: -int(one.known.sum()))
    while True:
        rows = np.all([one.known for one in (model, *kept)], axis=0)
        if rows.sum() >= min(FEWEST_SHARED, len(pairs)) or not kept:
            break
        kept.pop()
    if not rows.any():
        return None
    order = {one.key: place for place, one in enumerate((model, *rivals))}
    shown = sorted((model, *kept), key=lambda one: order[one.key])
    prompts = pairs.prompts[rows]
    return {
        "n": int(rows.sum()),
        "rows": [
            {
                "key": one.key,
                "label": one.label,
                "kind": one.kind,
                **(est(strict(one.margins[rows], prompts, even=one.even)) or {}),
            }
            for one in shown
        ],
        "aside": [one.label for one in rivals if one not in kept and one.known.any()],
    }


# Where it does better or worse --------------------------------------------------------------------


def _slices(given: Evaluated) -> dict[str, list[Json]]:
    pairs = given.pairs
    models = _models(given.rivals)
    parts = {
        "split": [(key, pairs.splits == code) for code, key in enumerate(SPLIT_KEYS)],
        "tag": [(tag, np.isin(pairs.prompts, ids)) for tag, ids in given.tags],
        "subset": _named(pairs.subset, pairs.subsets.texts),
        "generators": _generator_pairs(pairs),
        "strength": [(name, pairs.strength == code) for code, name in STRENGTHS.items()],
        "agreement": _agreement(pairs),
        "length": length_buckets(pairs.chosen_length, pairs.rejected_length),
    }
    found = {name: _part(given.model, models, pairs, rows) for name, rows in parts.items()}
    found["raters"] = _by_raters(given)
    return {name: rows for name, rows in found.items() if len(rows) > 1 or name == "raters"}


def _part(
    model: Scorer, models: Sequence[Scorer], pairs: Pairs, rows: list[tuple[str, Flags]]
) -> list[Json]:
    found = sliced(model.margins, pairs.prompts, rows, smallest=SMALLEST, most=MOST_SLICES)
    named = dict(rows)
    told = []
    for one in found:
        row = None if one.pooled or one.name not in named else named[one.name]
        beside = {}
        for other in models if row is not None else ():
            both = row & other.known
            beside[other.key] = est(strict(other.margins[both], pairs.prompts[both]))
        told.append({"name": one.name, "pooled": one.pooled, **(est(one.accuracy) or {}),
                     "beside": beside})  # fmt: skip
    return told


def _named(codes: Codes, names: Sequence[str]) -> list[tuple[str, Flags]]:
    return [(name, codes == code) for code, name in enumerate(names)]


def _generator_pairs(pairs: Pairs) -> list[tuple[str, Flags]]:
    """Which two models wrote the answers, whichever of them was preferred; the commonest first."""
    names = pairs.generators.texts
    low = np.minimum(pairs.chosen_by, pairs.rejected_by)
    high = np.maximum(pairs.chosen_by, pairs.rejected_by)
    named = low != NAMELESS
    if not named.any():
        return []
    keys, counts = np.unique(low[named] * len(names) + high[named], return_counts=True)
    found = []
    for place in np.argsort(-counts, kind="stable").tolist():
        one, other = divmod(int(keys[place]), len(names))
        first, second = sorted((names[one], names[other]))
        found.append((f"{first} and {second}", named & (low == one) & (high == other)))
        if len(found) == 4 * MOST_SLICES:
            break
    return found


def _agreement(pairs: Pairs) -> list[tuple[str, Flags]]:
    several, all_ = pairs.votes > 1, pairs.votes == pairs.votes_for
    return [
        ("one vote", ~several),
        ("several, all agree", several & all_),
        ("several, disputed", several & ~all_),
    ]


def _by_raters(given: Evaluated) -> list[Json]:
    """Accuracy where each group of raters is right by itself: its own majority of each pair."""
    votes, pairs = given.votes, given.pairs
    found = []
    for name, members in given.crowd.groups:
        rows = members & (votes.pair >= 0)
        net = np.sign(
            np.bincount(votes.pair[rows], weights=votes.outcome[rows], minlength=len(pairs))
        )
        said = net != 0
        one = strict((given.model.margins * net)[said], pairs.prompts[said])
        if one is not None:
            beside = {}
            for other in _models(given.rivals):
                both = said & other.known
                beside[other.key] = est(strict((other.margins * net)[both], pairs.prompts[both]))
            found.append({"name": name, "pooled": 0, **(est(one) or {}), "beside": beside})
    return found


# Calibration, length, order -----------------------------------------------------------------------


def _calibration(one: Scorer, pairs: Pairs) -> Json | None:
    rows = one.known
    found = calibration(one.margins[rows], pairs.prompts[rows])
    if found is None:
        return None
    error, says, right = found.error, found.confidence, found.correct
    return {
        "bins": [
            {"low": bar.low, "high": bar.high, "says": bar.says, "value": bar.share,
             "from": bar.interval[0], "to": bar.interval[1], "n": bar.n}
            for bar in found.bins
        ],
        "ece": _value(error.value, error.interval, error.n, error.groups),
        "ece_expected": error.expected,
        "ece_debiased": error.debiased,
        "brier": brier(says, right, found.groups).value,
        "log_loss": log_loss(says, right, found.groups).value,
        "mean_confidence": float(says.mean()),
        "even": found.even,
        "message": found.message,
        "mended": list(_mended(says, right, found.groups)),
    }  # fmt: skip


def _mended(says: Floats, right: Flags, groups: NDArray[Any]) -> Iterator[Json]:
    """What each calibrator would make of the error, learned on other folds."""
    edges = np.linspace(0, 1, 21)
    for key, method in CALIBRATORS.items():
        fitted = cross_fitted(key, says, right, groups)
        if fitted is not None:
            place = np.clip(np.searchsorted(edges, fitted, side="right") - 1, 0, 19)
            gaps = np.bincount(place, weights=right - fitted, minlength=20)
            yield {
                "key": key,
                "label": method.label,
                "ece": float(np.abs(gaps).sum() / len(fitted)),
                "log_loss": log_loss(fitted, right, groups).value,
            }


def _value(value: float, interval: Interval | None, n: int, groups: int) -> Json:
    low, high = interval if interval is not None else (None, None)
    return {"value": value, "low": low, "high": high, "n": n, "groups": groups}


def _correlation(found: Correlation | None) -> Json | None:
    return _value(found.value, found.interval, found.n, found.groups) if found else None


def _length(given: Evaluated, longer: Floats) -> Json:
    pairs, margins = given.pairs, given.model.margins
    wins, loses = longer > 0, longer < 0
    people = np.ones(len(pairs))  # chosen is what they prefer
    return {
        "model": _correlation(follows_length(margins, longer, pairs.prompts)),
        "people": _correlation(follows_length(people, longer, pairs.prompts)),
        "beside": {
            one.key: _correlation(
                follows_length(one.margins[one.known], longer[one.known], pairs.prompts[one.known])
            )
            for one in _models(given.rivals)
        },
        "longer_right": est(strict(margins[wins], pairs.prompts[wins])),
        "longer_wrong": est(strict(margins[loses], pairs.prompts[loses])),
    }


def _order(swap: Swap | None) -> Json | None:
    if swap is None:
        return None
    low, high = swap.flip_interval
    return {
        "n": swap.n,
        "flips": {"value": swap.flips / swap.n, "low": low, "high": high, "n": swap.n},
        "largest": swap.largest,
        "toward_first": swap.toward_first,
        "is_invariant": swap.is_invariant,
    }


# Best of n ----------------------------------------------------------------------------------------


def _best_of_n(given: Candidates) -> Json | None:
    if given.scores is None:
        return None
    found = curve(given.scores, given.golds, given.prompts)
    if found is None:
        return None
    return {
        "gold": given.gold,
        "prompts": found.prompts,
        "left_out": found.left_out,
        "peak": found.peak,
        "is_gamed": found.is_gamed,
        "drop": _mean(found.drop, found.prompts),
        "points": [
            {"n": point.n, "kl": point.kl, "model": _mean(point.proxy, found.prompts),
             "gold": _mean(point.gold, found.prompts),
             "oracle": _mean(point.oracle, found.prompts)}
            for point in found.points
        ],
        "message": _gamed(found, given.gold),
        "ways": list(_ways(given)),
    }  # fmt: skip


def _ways(given: Candidates) -> Iterator[Json]:
    """Of an ensemble, how its members are combined: each way's pick by the gold, and at the largest
    n beside that of the mean, on the same prompts."""
    curves = {
        key: curve(scores, given.golds, given.prompts) for key, scores in given.by_ways.items()
    }
    mean = curves.get("mean")
    for key, found in curves.items():
        if found is None or mean is None:
            return
        yield {
            "key": key,
            "says": COMBINATIONS[key],
            "n": found.points[-1].n,
            "gold": _mean(found.points[-1].gold, found.prompts),
            "peak": found.peak,
            "is_gamed": found.is_gamed,
            "gain": None if key == "mean" else _mean(gain(found, mean), found.prompts),
            "points": [
                {"n": point.n, "gold": _mean(point.gold, found.prompts)} for point in found.points
            ],
        }


def _mean(one: Mean, n: int) -> Json:
    return _value(one.value, one.interval, n, n)


def _gamed(found: Curve, gold: str) -> str:
    largest = found.points[-1].n
    if found.is_gamed:
        return (
            f"Past n = {found.peak} the score still rises while {gold} like the answers less:"
            " the model is being gamed."
        )
    first, last = found.points[0].gold, found.points[-1].gold
    if last.interval is not None and last.interval[0] > first.value:
        return f"Choosing among {largest} gains by {gold} too, as far as n goes here."
    return f"Choosing among {largest} gains nothing by {gold} that chance could not give."


def _missing(given: Evaluated, found: Json) -> Iterator[tuple[str, str]]:
    if found["ceiling"] is None:
        yield "ceiling", "No pair was judged by two people, so there is no human ceiling."
    if found["calibration"][given.model.key] is None:
        yield "calibration", "Too few pairs have a margin other than 0."
    if found["longer"] is None:
        yield "length", "The answers are pictures: none is longer."
    if given.candidates.scores is None:
        yield "best_of_n", BY_PAIRS
    elif found["best_of_n"] is None:
        gold = given.candidates.gold
        yield (
            "best_of_n",
            f"Fewer than ten prompts have two answers with a score that {gold} judged.",
        )
    if found["order"] is None:
        yield "order", "The model could not be asked again: its files are gone."
    if found["benchmark"] is None:
        yield "benchmark", "The pairs came without a column “subset”."
