"""The charts of a run's page: loss and accuracy large, the rest small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from annotator import formats
from annotator.charts import LineChart, Reference, Series, line_chart
from annotator.queries.curves import Curves

LARGE: Final = {"width": 588, "height": 240}
SMALL: Final = {"width": 372, "height": 150}
WINDOW: Final = 10
# Curves drawn small: name, title, and the finding in words.
OTHERS: Final = (
    ("margin", "Margin, chosen minus rejected", "The reward margin is {end} at step {step}."),
    ("grad_norm", "Gradient norm", "The gradient norm is {end} at step {step}."),
    ("pairs_per_second", "Pairs a second", "{end} pairs a second at step {step}."),
)


@dataclass(frozen=True)
class RunCharts:
    large: list[LineChart] = field(default_factory=list)
    small: list[LineChart] = field(default_factory=list)


def charts(points: Curves, *, ceiling: float | None = None) -> RunCharts:
    """What there is to draw; ``ceiling`` is how often people agree with people."""
    large = [_loss(points), _accuracy(points, ceiling)]
    small = [_other(points, *one) for one in OTHERS]
    return RunCharts([one for one in large if one], [one for one in small if one])


def _range(points: Curves) -> tuple[float, float] | None:
    """All steps so far; while a training runs its axis shows what is still to come."""
    end = points.steps if points.is_active else points.step
    return (0, end) if end else None


def _xy(points: Curves, name: str) -> tuple[list[float], list[float]] | None:
    found = points.series.get(name, [])
    if len(found) < 2:
        return None
    return [step for step, _ in found], [value for _, value in found]


def _loss(points: Curves) -> LineChart | None:
    xy = _xy(points, "loss")
    if xy is None:
        return None
    x, y = xy
    window = WINDOW if len(x) >= 3 * WINDOW else 0
    validation = [(one.step, one.loss) for one in points.evaluations if one.loss is not None]
    lines = [Series(x, y, name="training", window=window)]
    if len(validation) > 1:
        lines.append(
            Series(
                [s for s, _ in validation],
                [v for _, v in validation],
                name="validation",
                style=2,
                marks=True,
            )
        )
    smoothed = f", smoothed over {WINDOW} points" if window else ""
    return line_chart(
        lines,
        label=f"Training loss went from {formats.compact(y[0])} to {formats.compact(y[-1])} "
        f"by step {x[-1]:,}.",
        title=f"Training loss{smoothed}{' and validation loss' if len(lines) > 1 else ''}",
        x_label="step",
        x_range=_range(points),
        x_references=_members(points),
        **LARGE,
    )


def _members(points: Curves) -> list[Reference]:
    """Where the next member of an ensemble begins: it starts anew, and so do its curves."""
    return [Reference(step, f"member {number}") for number, step in points.members.items()][1:]


def _accuracy(points: Curves, ceiling: float | None) -> LineChart | None:
    found = points.evaluations
    if not found:
        return None
    last = found[-1]
    references = []
    if ceiling is not None:
        people = f"people with people {formats.fixed(100 * ceiling)}"
        references.append(Reference(100 * ceiling, people))
    return line_chart(
        [
            Series(
                [one.step for one in found],
                [100 * one.accuracy for one in found],
                low=[100 * one.low for one in found],
                high=[100 * one.high for one in found],
                marks=True,
            )
        ],
        label=f"{last.split.capitalize()} accuracy is {formats.percent(last.accuracy)} "
        f"at step {last.step:,}.",
        title=f"{last.split.capitalize()} accuracy, %, with 95 % interval",
        x_label="step",
        x_range=_range(points),
        x_references=_members(points),
        y_references=references,
        y_format=formats.fixed,
        **LARGE,
    )


def _other(points: Curves, name: str, title: str, finding: str) -> LineChart | None:
    xy = _xy(points, name)
    if xy is None:
        return None
    x, y = xy
    return line_chart(
        [Series(x, y)],
        label=finding.format(end=formats.compact(y[-1]), step=f"{x[-1]:,}"),
        title=title,
        x_range=_range(points),
        **SMALL,
    )
