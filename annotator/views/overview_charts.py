"""The charts of a project's overview: one per stage of the loop, and two small intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from annotator import formats
from annotator.charts import (
    Bar,
    BarChart,
    Dot,
    DotChart,
    HBar,
    HBarChart,
    LineChart,
    MiniInterval,
    Reference,
    Series,
    bars,
    dots_with_intervals,
    hbars,
    line_chart,
    mini_interval,
)
from annotator.models import DatasetVersion
from annotator.queries.curves import Curves
from annotator.queries.figures import Agreement, Figures
from annotator.queries.overview import Overview

WHOLE: Final = (0.0, 1.0)
MINI: Final = 72


@dataclass(frozen=True)
class OverviewCharts:
    agreement: MiniInterval | None
    model: MiniInterval | None
    daily: BarChart | None
    learn: LineChart | DotChart | None
    versions: HBarChart | None


def charts(found: Overview) -> OverviewCharts:
    return OverviewCharts(
        agreement=agreement(found.figures.agreement, width=MINI),
        model=_model(found),
        daily=_daily(found.figures),
        learn=_learn(found),
        versions=_versions(found.versions),
    )


def agreement(estimate: Agreement | None, *, width: int) -> MiniInterval | None:
    if estimate is None:
        return None
    return mini_interval(estimate.share, estimate.low, estimate.high, domain=WHOLE, width=width)


def _model(found: Overview) -> MiniInterval | None:
    model = found.model
    if model is None or model.accuracy is None or model.interval is None:
        return None
    ceiling = found.ceiling
    return mini_interval(
        model.accuracy,
        *model.interval,
        domain=WHOLE,
        reference=ceiling.accuracy if ceiling else None,
        width=MINI,
    )


def _daily(figures: Figures) -> BarChart | None:
    if not figures.recent:
        return None
    counts = [count for _, count in figures.daily]
    week, before = sum(counts[-7:]), sum(counts[-14:-7])
    return bars(
        [Bar(f"{day.day} {day:%b}", count) for day, count in figures.daily],
        label=f"{week:,} judgments in the last seven days, {before:,} in the seven days before.",
        title="Judgments a day, last four weeks",
    )


def _learn(found: Overview) -> LineChart | DotChart | None:
    if found.curves is not None and len(found.curves.evaluations) > 1:
        return _training(found, found.curves)
    rows = [
        Dot(one.name, one.accuracy, *(one.interval or (None, None)), strong=place == 0)
        for place, one in enumerate(found.models)
        if one.accuracy is not None
    ]
    if not rows:
        return None
    rows += [
        Dot(one.label, one.accuracy, *one.interval, style=0)
        for one in found.baselines
        if one is not found.ceiling
    ]
    best = rows[0]
    return dots_with_intervals(
        rows,
        label=f"{best.name} gets {formats.percent(best.value)} of the test pairs right.",
        reference=_ceiling(found),
    )


def _ceiling(found: Overview) -> Reference | None:
    one = found.ceiling
    return one and Reference(one.accuracy, f"people {formats.percent(one.accuracy)}")


def _training(found: Overview, curves: Curves) -> LineChart:
    points = curves.evaluations
    last = points[-1]
    references = []
    if found.ceiling:
        references.append(Reference(100 * found.ceiling.accuracy, "people"))
    if found.model and found.model.accuracy is not None:
        references.append(Reference(100 * found.model.accuracy, found.model.name))
    return line_chart(
        [
            Series(
                [one.step for one in points],
                [100 * one.accuracy for one in points],
                low=[100 * one.low for one in points],
                high=[100 * one.high for one in points],
            )
        ],
        label=f"Validation accuracy is {formats.percent(last.accuracy)} at step {last.step:,}.",
        title="Validation accuracy, %",
        width=340,
        height=148,
        x_range=(0, curves.steps) if curves.steps else None,
        y_references=references,
        y_format=formats.fixed,
    )


def _versions(versions: list[DatasetVersion]) -> HBarChart | None:
    if not versions:
        return None
    latest = versions[0]
    return hbars(
        [
            HBar(
                f"v{one.number}, {one.created_at.day} {one.created_at:%b}",
                one.rows,
                f"{one.rows:,} row{'' if one.rows == 1 else 's'}",
                style=1 if one is latest else 0,
            )
            for one in reversed(versions)
        ],
        label=f"Version {latest.number} holds {latest.rows:,} rows.",
    )
