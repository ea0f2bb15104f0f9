"""A version of a rubric drawn: its criteria in rows, its accuracy beside others, its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from annotator import formats
from annotator.charts import (
    Dot,
    DotChart,
    LineChart,
    MiniInterval,
    Reference,
    Series,
    dots_with_intervals,
    line_chart,
    mini_interval,
)
from annotator.charts_scale import nice_range, px, tick_label
from annotator.models import Criterion, RubricVersion
from rubrics.programs import PROGRAMS
from rubrics.sheet import Sheet, accuracy

MINI: Final = 104
ASIDE: Final = 340
NAMED: Final = 6  # curves of the path that have a name
SAME: Final = 1e-6
EQUAL: Final = "Every criterion counts the same."
LIKE: Final = 0.8  # a correlation from which two criteria ask for much the same
REACH: Final = 3.0  # times the largest weight: what reaches further does not set the axis
WAYS: Final = {
    Criterion.Verifier.LLM: "asked of a model",
    Criterion.Verifier.PROGRAM: "checked by a program",
    Criterion.Verifier.PERSON: "checked by people",
    Criterion.Verifier.REWARD_MODEL: "scored by a reward model",
}
STATES: Final = {
    Criterion.Decision.PROPOSED: ("", "to decide"),
    Criterion.Decision.ACCEPTED: ("done", "accepted"),
    Criterion.Decision.REJECTED: ("failed", "rejected"),
    Criterion.Decision.MERGED: ("", "merged"),
}


@dataclass(frozen=True)
class Row:
    """One criterion as its row has it. ``weight`` is fitted; ``counts`` is what it counts with
    where that is something else."""

    criterion: Criterion
    label: str
    how: str
    support: str
    coverage: str
    precision: str
    weight: str
    interval: str
    counts: str
    mini: MiniInterval | None
    state: str
    said: str
    like: str
    opposite: str
    merged: str
    figures: dict[str, Any]
    is_open: bool = False


@dataclass(frozen=True)
class Axis:
    """The scale over the drawn weights: (pixel, words) of its ticks."""

    width: int
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Lines:
    rows: list[Row]
    axis: Axis | None
    merged: list[Row]
    decided: int
    in_force: int  # accepted
    total: int
    weighing: str

    @property
    def left(self) -> int:
        return self.total - self.decided


def label(criterion: Criterion) -> str:
    """How pages call a criterion for short: C1 is the first of its version."""
    return f"C{criterion.position + 1}"


def lines(
    criteria: Sequence[Criterion], figures: Mapping[str, Any], *, opened: int | None
) -> Lines:
    """Rows in the order of what they weigh, else as they were proposed; merged ones apart."""
    by_id = {one.pk: one for one in criteria}
    measured = figures.get("criteria", {})
    domain = _domain(criteria, measured)
    rows = [
        _row(one, measured.get(str(one.pk), {}), by_id, domain, is_open=one.pk == opened)
        for one in criteria
    ]
    rows.sort(key=lambda row: (-_size(row), row.criterion.position))
    kept = [row for row in rows if row.criterion.decision != Criterion.Decision.MERGED]
    merged = [row for row in rows if row.criterion.decision == Criterion.Decision.MERGED]
    weighing = _weighing(kept)
    if weighing == EQUAL:
        kept = [replace(row, counts="") for row in kept]
    decided = sum(row.criterion.decision != Criterion.Decision.PROPOSED for row in kept)
    return Lines(
        rows=kept,
        axis=_axis(domain) if domain else None,
        merged=merged,
        decided=decided,
        in_force=sum(row.criterion.decision == Criterion.Decision.ACCEPTED for row in kept),
        total=len(kept),
        weighing=weighing,
    )


def _weighing(rows: Sequence[Row]) -> str:
    """How the criteria count, in words."""
    own = {abs(one.criterion.weight or 0.0) for one in rows if one.criterion.weight is not None}
    if not own or (len(own) == 1 and all(row.criterion.weight is not None for row in rows)):
        return EQUAL
    if any(row.counts for row in rows):
        return "They count with the weights that stand below the fitted ones."
    return "They count with these weights."


def _weights(criterion: Criterion, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The weight with its interval: as measured, else as the generator fitted it."""
    if told.get("fitted"):
        return dict(told["fitted"])
    own = criterion.figures
    if criterion.weight is None:
        return None
    return {
        "weight": criterion.weight,
        "low": own.get("weight_low"),
        "high": own.get("weight_high"),
    }


def _size(row: Row) -> float:
    found = _weights(row.criterion, row.figures)
    return abs(found["weight"]) if found else 0.0


def _domain(
    criteria: Sequence[Criterion], measured: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Of the weights and their intervals. One loose interval must not make dots of the others."""
    values, sizes = [0.0], [0.0]
    for one in criteria:
        found = _weights(one, measured.get(str(one.pk), {}))
        if found:
            sizes.append(abs(found["weight"]))
            values += [value for value in found.values() if isinstance(value, float | int)][:3]
    if len(values) == 1:
        return None
    reach = REACH * max(sizes) or max(map(abs, values))
    low, high = float(max(min(values), -reach)), float(min(max(values), reach))
    pad = (high - low) * 0.05 or 1.0
    return low - pad, high + pad


def _axis(domain: tuple[float, float]) -> Axis:
    low, high = domain
    _, _, step = nice_range([low, high], 3)
    marks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    scale = (MINI - 2) / (high - low)
    ticks = tuple((px(1 + (float(at) - low) * scale), tick_label(float(at), step)) for at in marks)
    return Axis(MINI, ticks)


def _row(
    criterion: Criterion,
    told: Mapping[str, Any],
    by_id: Mapping[int, Criterion],
    domain: tuple[float, float] | None,
    *,
    is_open: bool,
) -> Row:
    own, weighed = criterion.figures, _weights(criterion, told)
    state, said = STATES[Criterion.Decision(criterion.decision)]
    redundant = told.get("redundancy") or {}
    other = by_id.get(redundant.get("criterion", 0))
    is_like = other is not None and abs(redundant["r"]) >= LIKE
    ways = criterion.polarity * other.polarity if other else 1  # both speak for it, or both against
    kin = ("like" if ways * redundant["r"] > 0 else "opposite of") if is_like else ""
    precision, coverage = told.get("precision"), told.get("coverage")
    interval = ""
    if weighed and formats.number(weighed["low"]) is not None:
        interval = f"{signed(weighed['low'])} to {signed(weighed['high'])}"
    return Row(
        criterion=criterion,
        label=label(criterion),
        how=_how(criterion),
        support=formats.thousands(told.get("support", own.get("support"))),
        coverage=formats.percent(coverage["value"] if coverage else own.get("coverage"), digits=0),
        precision=formats.percent(
            precision["value"] if precision else own.get("precision"), digits=0
        ),
        weight=signed(weighed["weight"]) if weighed else formats.MISSING,
        interval=interval,
        counts=_counts(criterion, weighed),
        mini=_mini(weighed, domain) if weighed and domain else None,
        state="warn" if is_like and not state else state,
        said=f"{kin} {label(other)}" if other and kin and not state else said,
        like=label(other) if other and kin == "like" else "",
        opposite=label(other) if other and kin == "opposite of" else "",
        merged=label(criterion.merged_into) if criterion.merged_into else "",
        figures=dict(told),
        is_open=is_open,
    )


def _counts(criterion: Criterion, weighed: Mapping[str, Any] | None) -> str:
    """The weight in use, where it is neither the one that was fitted nor the same for all."""
    own = criterion.weight
    if own is None or weighed is None or abs(own - weighed["weight"]) <= SAME * max(1, abs(own)):
        return ""
    return signed(own)


def _how(criterion: Criterion) -> str:
    words = WAYS[Criterion.Verifier(criterion.verifier)]
    if criterion.verifier == Criterion.Verifier.PROGRAM and criterion.program in PROGRAMS:
        return f"{words}: {PROGRAMS[criterion.program].label}"
    return words


def _mini(weighed: Mapping[str, Any], domain: tuple[float, float]) -> MiniInterval:
    return mini_interval(
        weighed["weight"],
        weighed["low"],
        weighed["high"],
        domain=domain,
        reference=0.0,
        width=MINI,
        style=1 if weighed["weight"] >= 0 else 2,
    )


def signed(value: object) -> str:
    """A weight with its sign: +1.62."""
    found = formats.number(value)
    text = formats.fixed(value, 2)
    return f"+{text}" if found is not None and found >= 0 else text


# Beside the criteria --------------------------------------------------------------------------


def weights_of(criteria: Sequence[Criterion], sheet: Sheet, *, only: set[str]) -> np.ndarray:
    """A weight for every column of a sheet: 0 for criteria of other decisions, or gone."""
    by_id = {one.pk: one for one in criteria if one.decision in only}
    found = [by_id.get(int(pk)) for pk in sheet.criteria]
    return np.array(
        [
            0.0 if one is None else one.polarity if one.weight is None else one.weight
            for one in found
        ]
    )


def _est(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": found.accuracy,
        "low": found.interval[0],
        "high": found.interval[1],
        "n": found.n,
    }


def _own(version: RubricVersion, criteria: Sequence[Criterion], held: Sheet) -> list[Dot]:
    """What is in force, what of it is accepted, and the same with equal weights.

    Empty where nothing in force has a score of a pair: even on all pairs is no accuracy.
    """
    name, accepted = f"v{version.number}", {str(Criterion.Decision.ACCEPTED)}
    in_force = accepted | {str(Criterion.Decision.PROPOSED)}
    counted = [one for one in criteria if one.decision in in_force]
    count, known = len(counted), sum(one.pk in held.criteria for one in counted)
    if not known or np.isnan(held.scores).any(axis=1).all():
        return []

    def of(weights: np.ndarray) -> dict[str, Any] | None:
        return _est(accuracy(held, held.margins(weights)))

    weights = weights_of(criteria, held, only=in_force)
    all_ = f"all {count}" if known == count else f"{known} of {count} measured"
    dots = [_dot(f"{name}, {all_}", of(weights), strong=True)]
    kept = sum(one.decision in accepted for one in criteria)
    so_far = weights_of(criteria, held, only=accepted)
    if version.is_draft and 0 < kept < count and so_far.any():
        dots.append(_dot(f"{name}, accepted so far", of(so_far), strong=True))
    if _differ(weights):
        dots.append(_dot(f"{name}, equal weights", of(np.sign(weights))))
    return dots


def held_out(
    version: RubricVersion,
    criteria: Sequence[Criterion],
    figures: Mapping[str, Any],
    sheet: Sheet | None,
    *,
    is_changed: bool = False,
) -> DotChart | None:
    """Accuracy on held-out pairs of what is in force now, of what is accepted, and of others.

    ``is_changed``: the judge was shown other criteria than these.
    """
    told = figures.get("held_out") or {}
    if not told or sheet is None:
        return None
    dots = _own(version, criteria, sheet.held())
    if not dots:
        return None
    parent = told.get("parent") or {}
    model = told.get("reward-model") or {}
    for words, one, style in (
        (f"v{parent.get('number', '')}, in use", parent, 1),
        (f"judge reading it{' as it was' * is_changed}", told.get("judge.rubric"), 2),
        ("the judge without it", told.get("judge"), 2),
        (f"reward model rm-{model.get('number', '')}", model, 4),
        ("longer answer wins", told.get("length"), 0),
    ):
        if one and one.get("value") is not None:
            dots.append(_dot(words, one, style=style))
    ceiling = told.get("human_ceiling") or {}
    people = ceiling.get("value")
    n = figures.get("n_held", 0)
    return dots_with_intervals(
        dots,
        label=_sentence(dots, people),
        heading="Held-out accuracy",
        caption=f"{n:,} pair{'s' * (n != 1)} of the test split, never used to induce. "
        "An even pair counts as wrong."
        + " Who chooses criteria by this figure makes it flatter."
        * version.is_draft,
        reference=Reference(people, f"people {formats.percent(people, unit='')}")
        if people is not None
        else None,
        width=ASIDE,
        unit="%",
    )


def _differ(weights: np.ndarray) -> bool:
    """Whether criteria that count do so by more than their sign."""
    sizes = np.abs(weights[weights != 0])
    return bool(len(sizes)) and bool(np.ptp(sizes) > SAME * sizes.max())


def _dot(name: str, one: Mapping[str, Any] | None, *, style: int = 1, strong: bool = False) -> Dot:
    one = one or {}
    return Dot(name, one.get("value"), one.get("low"), one.get("high"), style=style, strong=strong)


def _sentence(dots: Sequence[Dot], people: float | None) -> str:
    said = [f"{dot.name} {formats.percent(dot.value)}" for dot in dots if dot.value is not None]
    ceiling = f"; people agree with people {formats.percent(people)}" if people is not None else ""
    return f"Accuracy on held-out pairs: {', '.join(said)}{ceiling}."


def position(
    figures: Mapping[str, Any],
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """How far the judge favors the first answer, without the rubric and with it."""
    told = figures.get("position") or {}
    before, after = told.get("judge") or {}, told.get("judge.rubric") or {}
    return before.get("gap"), after.get("gap")


def path(criteria: Sequence[Criterion], figures: Mapping[str, Any]) -> LineChart | None:
    """Weights over the penalty: what enters first matters most."""
    told = figures.get("path")
    if not told or len(told["points"]) < 2:
        return None
    by_id = {one.pk: one for one in criteria}
    weights = np.array([point["weights"] for point in told["points"]], dtype=float)  # (p, k)
    x = np.log10([point["c"] for point in told["points"]])
    at = told["at"]
    order = np.argsort(-np.abs(weights[-1]), kind="stable")
    named = {int(one) for one in order[:NAMED] if weights[-1][one] != 0}
    series = []
    for place, pk in enumerate(told["criteria"]):
        one = by_id.get(pk)
        if one is None or not weights[:, place].any():
            continue
        is_in = weights[at][place] != 0
        style = 0 if not is_in else 1 if weights[at][place] > 0 else 2
        end = label(one) if place in named else " "
        series.append(
            Series(x.tolist(), weights[:, place].tolist(), name=label(one), style=style, end=end)
        )
    chosen = int((weights[at] != 0).sum())
    return line_chart(
        series,
        label=f"Weights as the penalty weakens; {chosen} criteria have a weight at the one chosen.",
        heading="Regularization path",
        caption="What enters first matters most.",
        title="Weight",
        x_label="weaker penalty →",
        width=ASIDE,
        height=260,
        x_references=[Reference(float(x[at]), f"{chosen} kept")],
        x_names=[(float(x[0]), " ")],
    )
