"""The charts of an evaluation, of one model or of two beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2
from typing import Any, Final

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

Json = dict[str, Any]

WIDE: Final = 588
THIRD: Final = 372
OWN, OTHER, GOLD, PLAIN = 1, 2, 3, 0  # styles
KIND_STYLES: Final = {"reward-model": OWN, "judge": OTHER, "rubric": 4, "length": PLAIN}
TITLES: Final = {
    "tag": "Tag",
    "subset": "Subset",
    "strength": "How clearly people prefer",
    "agreement": "How far people agree",
    "length": "The preferred answer is",
    "generators": "Who wrote the answers",
    "raters": "Right as these raters say",
    "split": "Split",
}
MOST_SHOWN: Final = 9


@dataclass(frozen=True)
class RivalRow:
    """One rival on the pairs it speaks of, the model on the same, and the difference."""

    label: str
    kind: str
    key: str
    is_shown: bool
    rival: Json
    model: Json
    difference: Json
    model_only: int
    rival_only: int
    mini: MiniInterval
    verdict: str


@dataclass(frozen=True)
class Page:
    """Everything drawn of one evaluation. ``other`` is the label of the model set beside."""

    name: str
    other: str
    splits: str  # how many pairs of each
    together: DotChart | None
    slices: list[DotChart]
    calibration: LineChart | None
    best_of_n: LineChart | None
    rivals: list[RivalRow]
    head_to_head: RivalRow | None


def page(figures: Json, name: str, *, beside: str = "") -> Page:
    """``name`` of the model, ``beside`` the key of a rival, ignored where there is no such."""
    rivals = list(_rivals(figures, beside))
    shown = next((row for row in rivals if row.is_shown), None)
    drawn = beside if beside in figures["calibration"] else ""
    return Page(
        name=name,
        other=drawn,
        splits=", ".join(f"{n:,} {split}" for split, n in figures["splits"].items() if n),
        together=_together(figures, name),
        slices=[
            _slices(title, rows, name, drawn)
            for key, title in TITLES.items()
            if len(rows := figures["slices"].get(key, ())) > 1  # one is all of them
        ],
        calibration=_calibration(figures, name, drawn),
        best_of_n=_best_of_n(figures["best_of_n"], name),
        rivals=rivals,
        head_to_head=shown,
    )


def _rivals(figures: Json, beside: str) -> Iterator[RivalRow]:
    bound = max(
        [0.05]
        + [abs(one["difference"][end]) for one in figures["rivals"] for end in ("low", "high")]
    )
    for one in figures["rivals"]:
        gap = one["difference"]
        yield RivalRow(
            label=one["label"],
            kind=one["kind"],
            key=one["key"],
            is_shown=one["key"] == beside,
            rival=one["rival"],
            model=one["model"],
            difference=gap,
            model_only=one["model_only"],
            rival_only=one["rival_only"],
            mini=mini_interval(
                gap["value"], gap["low"], gap["high"],
                domain=(-bound, bound), reference=0.0, width=128, style=OWN,
            ),
            verdict=_verdict(gap),
        )  # fmt: skip


def _verdict(gap: Json) -> str:
    if gap["low"] > 0:
        return "ahead"
    return "behind" if gap["high"] < 0 else "not told apart"


def _together(figures: Json, name: str) -> DotChart | None:
    found = figures["together"]
    if found is None:
        return None
    ceiling, reference = figures["ceiling"], None
    if ceiling is not None:
        text = f"people with people {formats.percent(ceiling['value'], unit='')}"
        reference = Reference(ceiling["value"], text)
    says = _ahead_of(found["rows"], name)
    aside = f" Too few pairs for {', '.join(found['aside'])}." if found["aside"] else ""
    return dots_with_intervals(
        [
            Dot(
                one["label"], one["value"], one["low"], one["high"],
                style=OWN if one["key"] == name else KIND_STYLES[one["kind"]],
                strong=one["key"] == name,
            )
            for one in found["rows"]
        ],
        label=says,
        reference=reference,
        heading="On the same pairs",
        caption=f"{says} {found['n']:,} pairs that all of these speak of.{aside}",
        width=WIDE,
        unit="%",
    )  # fmt: skip


def _ahead_of(rows: list[Json], name: str) -> str:
    own = next(one for one in rows if one["key"] == name)
    clear = [one["label"] for one in rows if one is not own and one["high"] < own["low"]]
    above = [one["label"] for one in rows if one is not own and one["low"] > own["high"]]
    says = f"{name} is right on {formats.percent(own['value'])}"
    if above:
        return f"{says}, clearly less than {' and '.join(above)}."
    return f"{says}, clearly more than {' and '.join(clear)}." if clear else f"{says}."


def _slices(title: str, rows: list[Json], name: str, beside: str) -> DotChart:
    dots = []
    for one in rows[:MOST_SHOWN]:
        dots.append(
            Dot(one["name"], one["value"], one["low"], one["high"], style=OWN, count=one["n"])
        )
        other = one["beside"].get(beside)
        if other is not None:
            dots.append(
                Dot(beside, other["value"], other["low"], other["high"], style=OTHER,
                    count=other["n"])
            )  # fmt: skip
    known = [one for one in rows if not one["pooled"]] or rows
    low = min(known, key=lambda one: one["value"])
    says = f"{name} is lowest on “{low['name']}”."
    return dots_with_intervals(
        dots, label=f"{title}: {says}", heading=title, caption=says, width=THIRD, unit="%"
    )


def _calibration(figures: Json, name: str, beside: str) -> LineChart | None:
    own = figures["calibration"].get(name)
    if own is None:
        return None
    drawn = [(name, own, OWN)]
    if beside and figures["calibration"].get(beside):
        drawn.append((beside, figures["calibration"][beside], OTHER))
    says = f"{own['message']} Error {formats.percent(own['ece']['value'], unit='')} points"
    says += f" {formats.interval(own['ece']['low'], own['ece']['high'])}"
    if len(drawn) > 1:
        says += f", of {beside} {formats.percent(drawn[1][1]['ece']['value'], unit='')}"
    says += "."
    series = [Series([50, 100], [50, 100], name="calibrated", style=PLAIN, end="", dotted=True)]
    lowest = 40.0
    for label, found, style in drawn:
        bins = found["bins"]
        lowest = min([lowest, *(100 * one["from"] for one in bins)])
        series.append(
            Series(
                [100 * one["says"] for one in bins],
                [100 * one["value"] for one in bins],
                name=label,
                low=[100 * one["from"] for one in bins],
                high=[100 * one["to"] for one in bins],
                style=style,
                whiskers=True,
                end=label if len(drawn) > 1 else "",
            )
        )
    return line_chart(
        series,
        label=says,
        title="people agree, %",
        x_label="model says, %",
        heading="Calibration",
        caption=says,
        width=WIDE,
        height=300,
        x_range=(50, 100),
        y_range=(lowest, 100),
    )


def _best_of_n(found: Json | None, name: str) -> LineChart | None:
    if found is None:
        return None
    points = found["points"]
    at = [log2(point["n"]) for point in points]
    gold = found["gold"]
    kinds = (("model", f"{name} prefers it", OWN), ("gold", f"{gold} prefer it", GOLD))
    stop = [Reference(log2(found["peak"]), f"stop at {found['peak']}")] if found["is_gamed"] else []
    return line_chart(
        [
            Series(
                at,
                [100 * point[kind]["value"] for point in points],
                name=label,
                low=[_points(point[kind]["low"]) for point in points],
                high=[_points(point[kind]["high"]) for point in points],
                style=style,
                end=label if len(label) < 28 else kind,
            )
            for kind, label, style in kinds
        ],
        label=found["message"],
        title="Wins against one sample, %",
        x_label="best of n",
        heading="Best of n",
        caption=f"{found['message']} {found['prompts']:,} prompts for each n.",
        width=WIDE,
        height=300,
        x_references=stop,
        x_names=[(log2(point["n"]), str(point["n"])) for point in points],
        x_format=lambda value: f"{2**value:.0f}",
    )


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * min(1.0, max(0.0, share))
