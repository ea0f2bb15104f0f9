"""The charts and tables of the agreement page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from annotator import formats
from annotator.charts import (
    Bar,
    BarChart,
    Dot,
    DotChart,
    HBar,
    HBarChart,
    LineChart,
    Reference,
    Series,
    bars,
    dots_with_intervals,
    hbars,
    line_chart,
)
from annotator.kinds import KINDS

VERDICTS: Final = "verdicts"
STRENGTHS: Final = ("tie", "slightly", "better", "much better")
COLUMNS: Final = ("percent", "alpha", "ordinal", "interval", "fleiss")


@dataclass(frozen=True)
class Estimate:
    text: str
    interval: str


@dataclass(frozen=True)
class Line:
    """A row of the table of agreement; `cells` in the order of COLUMNS."""

    name: str
    cells: list[Estimate]
    units: int
    raters: int


@dataclass(frozen=True)
class AgreementPage:
    lines: list[Line]
    cohen: list[dict[str, Any]]
    ceiling: Estimate | None
    known: list[tuple[str, DotChart]]
    weeks: LineChart | None
    kinds: DotChart | None
    tags: DotChart | None
    labels: HBarChart | None
    strength: HBarChart | None
    position: DotChart | None
    pace: BarChart | None
    wins: DotChart | None


def agreement_page(figures: dict[str, Any]) -> AgreementPage:
    found = figures["agreement"]
    lines = [_line(found["whole"], "All, without judges")] if found["whole"] else []
    lines += [_line(found["with_judges"], "With judges")] if found["with_judges"] else []
    if len(found["kinds"]) > 1:
        lines += [_line(one, KINDS[one["name"]].label) for one in found["kinds"]]
    lines += [_line(one, one["name"]) for one in found["attributes"]]
    return AgreementPage(
        lines=lines,
        cohen=[one | {"shown": four(one)} for one in found["cohen"]],
        ceiling=share(found["ceiling"]),
        known=_known(figures["known"]),
        weeks=weeks(found["weeks"]),
        kinds=_parts(found["kinds"], "kind of task") if len(found["kinds"]) > 1 else None,
        tags=_parts(found["tags"], "tag"),
        labels=_labels(figures["distribution"]),
        strength=_strength(figures["distribution"]),
        position=_position(figures),
        pace=_pace(figures["pace"]),
        wins=_wins(figures["win_rates"]),
    )


def four(one: dict[str, Any] | None) -> Estimate:
    """A coefficient in four digits, to be compared with what others computed."""
    if one is None or one["value"] is None:
        return Estimate(formats.MISSING, "")
    low, high = (formats.coefficient(one[end]) for end in ("low", "high"))
    interval = f"[{low},{formats.SPACE}{high}]" if one["low"] is not None else "no interval"
    return Estimate(formats.coefficient(one["value"], 4), interval)


def share(one: dict[str, Any] | None) -> Estimate | None:
    if one is None or one["value"] is None:
        return None
    return Estimate(formats.percent(one["value"]), formats.interval(one["low"], one["high"]))


def _line(one: dict[str, Any], name: str) -> Line:
    percent = share(one["percent"]) or Estimate(formats.MISSING, "")
    cells = [percent, *(four(one.get(column)) for column in COLUMNS[1:])]
    return Line(name, cells, one["alpha"]["units"], one["raters"])


def weeks(found: list[dict[str, Any]]) -> LineChart | None:
    """Alpha by week with its interval band; None for a single week."""
    told = [one for one in found if one["alpha"]["value"] is not None]
    if len(told) < 2:
        return None
    first = date.fromisoformat(told[0]["name"])
    x = [(date.fromisoformat(one["name"]) - first).days / 7 + 1 for one in told]
    y = [one["alpha"]["value"] for one in told]
    last = formats.coefficient(y[-1])
    return line_chart(
        [
            Series(
                x,
                y,
                low=[one["alpha"]["low"] for one in told],
                high=[one["alpha"]["high"] for one in told],
                marks=True,
                end=last,
            )
        ],
        label=f"Krippendorff’s alpha was {formats.coefficient(y[0])} in the first week and is "
        f"{last} in the last.",
        title="Krippendorff α by week of the last opinion, with 95 % interval",
        x_label=f"week, the first begins {first.day} {first:%b %Y}",
        heading="Agreement over time",
        caption=f"From {formats.coefficient(y[0])} in the first week to {last} in the last.",
        width=560,
        height=200,
        y_format=formats.coefficient,
    )


def _known(found: list[dict[str, Any]]) -> list[tuple[str, DotChart]]:
    """One chart per question: the share each aggregator gets right."""
    questions = dict.fromkeys(one["question"] for one in found)
    charts = []
    for question in questions:
        rows = [one for one in found if one["question"] == question]
        best = max(rows, key=lambda one: one["value"])
        voted = next(one for one in rows if one["key"] == "majority")
        finding = (
            f"{best['label']} gets {formats.percent(best['value'], digits=2)} right, "
            f"majority {formats.percent(voted['value'], digits=2)}, of {best['n']:,}."
        )
        chart = dots_with_intervals(
            [
                Dot(one["label"], one["value"], one["low"], one["high"], strong=one is best,
                    style=0 if one is voted else 1, count=one["n"])
                for one in rows
            ],
            label=finding,
            heading=f"Against known answers, {'pairs' if question == VERDICTS else question}",
            caption=finding,
            width=560,
            digits=2,
            unit="%",
        )  # fmt: skip
        charts.append((question, chart))
    return charts


def _parts(found: list[dict[str, Any]], what: str) -> DotChart | None:
    told = [one for one in found if one["alpha"]["value"] is not None]
    if not told:
        return None
    order = sorted(told, key=lambda one: -one["alpha"]["value"])
    names = {key: method.label for key, method in KINDS.items()} if what != "tag" else {}
    best, worst = order[0]["name"], order[-1]["name"]
    finding = f"Highest for {names.get(best, best)}, lowest for {names.get(worst, worst)}."
    return dots_with_intervals(
        [
            Dot(
                names.get(one["name"], one["name"]),
                one["alpha"]["value"],
                one["alpha"]["low"],
                one["alpha"]["high"],
                count=one["alpha"]["units"],
            )
            for one in order
        ],
        label=f"Krippendorff’s alpha by {what}. {finding}",
        heading=f"By {what}",
        caption=f"Krippendorff α, and on how many items. {finding}",
        width=560,
        scale=1.0,
        digits=2,
    )


def _labels(found: dict[str, Any]) -> HBarChart | None:
    total = sum(count for _, count in found["verdicts"])
    if not total:
        return None
    return hbars(
        [HBar(name, count, _counted(count, total)) for name, count in found["verdicts"]],
        label=f"Of {total:,} preferences, {_counted(found['verdicts'][1][1], total)} are ties.",
        heading="Verdicts",
        caption="Preferences by the order in which responses are stored, not shown.",
        width=560,
    )


def _strength(found: dict[str, Any]) -> HBarChart | None:
    total = sum(found["strength"])
    if not total:
        return None
    return hbars(
        [
            HBar(name, count, _counted(count, total))
            for name, count in zip(STRENGTHS, found["strength"], strict=True)
        ],
        label=f"Strength of {total:,} verdicts; {found['both_bad']:,} call both bad.",
        heading="Strength",
        caption=f"{found['both_bad']:,} of {total:,} say that none is acceptable.",
        width=560,
    )


def _counted(count: int, total: int) -> str:
    return f"{count:,}, {formats.percent(count / total)}"


def _position(figures: dict[str, Any]) -> DotChart | None:
    found = figures["slices"]["start|all"]
    rows = [row for row in found["raters"] if row["first"]["value"] is not None][:16]
    if not rows:
        return None
    biased = [row["name"] for row in rows if {"first", "last"} & set(row["flags"])]
    whole = found["headline"]["first"]
    finding = (
        f"{len(biased)} of {len(rows)} raters favor a place."
        if biased
        else "No rater favors a place beyond chance."
    )
    return dots_with_intervals(
        [
            Dot("All, without judges", whole["value"], whole["low"], whole["high"], style=0,
                strong=True, count=whole["n"]),
            *(
                Dot(row["name"], row["first"]["value"], row["first"]["low"], row["first"]["high"],
                    style=2 if {"first", "last"} & set(row["flags"]) else 1,
                    count=row["first"]["n"])
                for row in rows
            ),
        ],
        label=finding,
        reference=Reference(0.5, "no bias"),
        heading="First shown wins",
        caption=f"{finding} Share of verdicts for what was shown first over what was shown last.",
        width=560,
        unit="%",
    )  # fmt: skip


def _pace(found: list[list[Any]]) -> BarChart | None:
    if not found:
        return None
    days = [(date.fromisoformat(day), count) for day, count in found]
    total = sum(count for _, count in days)
    span = "day" if len(days) == 1 else f"{len(days)} days"
    return bars(
        [Bar(f"{day.day} {day:%b}", count) for day, count in days],
        label=f"{total:,} judgments in the {span} shown.",
        title="Judgments a day, imported ones on the day they are dated",
        heading="Pace",
        caption=f"{total:,} judgments in the {span} up to the newest.",
        width=560,
    )


def _wins(found: dict[str, Any] | None) -> DotChart | None:
    if not found:
        return None
    best = found["rows"][0]
    return dots_with_intervals(
        [
            Dot(one["name"], one["value"], one["low"], one["high"], strong=place == 0,
                count=one["wins"] + one["ties"] + one["losses"])
            for place, one in enumerate(found["rows"])
        ],
        label=f"{best['name']} wins most: {formats.percent(best['value'])} against the field.",
        heading="Which model wins",
        caption="Expected share of wins against the others, by Bradley–Terry; votes of one prompt "
        "are counted as dependent.",
        width=560,
        reference=Reference(0.5, "even"),
        unit="%",
    )  # fmt: skip
