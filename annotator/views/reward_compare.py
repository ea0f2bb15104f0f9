"""Trainings side by side: curves over each other, options that differ, test accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotator import formats
from annotator.charts import Dot, DotChart, LineChart, Series, dots_with_intervals, line_chart
from annotator.models import Role
from annotator.queries import run_comparison as queries
from annotator.queries.run_comparison import Compared
from annotator.views.helpers import Access, page_after, project_page
from annotator.views.run_charts import LARGE, WINDOW

NAMES: Final = ("a", "b", "c", "d")
# Curves that are drawn: name of the series, title, unit in the sentence, how a value is written.
CURVES: Final = (
    ("loss", "Training loss", "loss", formats.compact),
    ("margin", "Margin, chosen minus rejected", "margin", formats.compact),
    ("grad_norm", "Gradient norm", "gradient norm", formats.compact),
    ("pairs_per_second", "Pairs a second", "pairs a second", formats.compact),
    ("memory_mb", "Peak memory, MB", "MB", formats.compact),
)


@project_page(Role.OWNER)
@require_GET
def compare(request: HttpRequest, access: Access) -> HttpResponse:
    """Up to four trainings by the numbers of their runs: ?a=12&b=15."""
    ids = [page_after(request, name) for name in NAMES]
    found = queries.find(access.project, [pk for pk in ids if pk is not None])
    context = {
        "access": access,
        "found": found,
        "fields": [
            {"name": name, "value": found[n].run.pk if n < len(found) else None}
            for n, name in enumerate(NAMES)
        ],
        "choices": queries.choices(access.project),
        "differences": queries.differences(found) if len(found) > 1 else [],
        "charts": _charts(found),
        "accuracies": _accuracies(found),
        "missing": len({pk for pk in ids if pk is not None}) - len(found),
    }
    return render(request, "rewards/compare.html", context)


def _charts(found: Sequence[Compared]) -> list[LineChart]:
    drawn = [_held_out(found), *(_curve(found, *one) for one in CURVES)]
    return [chart for chart in drawn if chart is not None]


def _curve(
    found: Sequence[Compared], name: str, title: str, unit: str, write: Callable[[float], str]
) -> LineChart | None:
    series, ends = [], []
    for style, one in enumerate(found, start=1):
        points = one.curves.series.get(name, [])
        if len(points) < 2:
            continue
        x, y = [step for step, _ in points], [value for _, value in points]
        smooths = name == "loss" and len(x) >= 3 * WINDOW
        series.append(Series(x, y, name=one.name, style=style, window=WINDOW if smooths else 0))
        ends.append(f"{one.name} {write(y[-1])}")
    if not series:
        return None
    return line_chart(
        series, title=title, label=f"At the end, {unit}: {', '.join(ends)}.",
        x_label="step", y_format=write, **LARGE,
    )  # fmt: skip


def _held_out(found: Sequence[Compared]) -> LineChart | None:
    series, ends = [], []
    for style, one in enumerate(found, start=1):
        points = one.curves.evaluations
        if not points:
            continue
        series.append(
            Series(
                [at.step for at in points], [100 * at.accuracy for at in points],
                low=[100 * at.low for at in points], high=[100 * at.high for at in points],
                name=one.name, style=style, marks=True,
            )
        )  # fmt: skip
        last = points[-1]
        interval = formats.interval(*last.interval)
        ends.append(f"{one.name} {formats.percent(last.accuracy)} {interval} on {last.n:,} pairs")
    if not series:
        return None
    return line_chart(
        series, title="Validation accuracy, %, with 95 % interval",
        label=f"At the last evaluation: {'; '.join(ends)}.",
        x_label="step", y_format=formats.fixed, **LARGE,
    )  # fmt: skip


def _accuracies(found: Sequence[Compared]) -> DotChart | None:
    dots = [
        Dot(
            one.name, one.measured.accuracy.share, one.measured.accuracy.low,
            one.measured.accuracy.high, style=style, strong=True, count=one.measured.accuracy.n,
        )
        for style, one in enumerate(found, start=1)
        if one.measured.accuracy is not None
    ]  # fmt: skip
    if not dots:
        return None
    told = [
        f"{one.name} {formats.percent(one.measured.accuracy.share)}"
        for one in found
        if one.measured.accuracy is not None
    ]
    return dots_with_intervals(
        dots, label=f"Accuracy on the test split: {', '.join(told)}.",
        heading="Accuracy on the test split", width=588, unit="%",
        caption="The number beside each name is what was counted. Test splits grow: where the "
        "data differ, so may the pairs.",
    )  # fmt: skip
