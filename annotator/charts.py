"""Charts as geometry: numbers become frozen dataclasses that `templates/charts/` writes as SVG.

Drawn at true size, so type keeps its size; a narrow page scrolls instead of shrinking. The caller
passes the sentence that states the finding; the same numbers follow in a table named "Numbers".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from annotator import formats
from annotator.charts_bars import Bar, BarChart, HBar, HBarChart, bars, hbars
from annotator.charts_line import LineChart, line_chart
from annotator.charts_scale import (
    MAX_POINTS,
    Scale,
    Tick,
    finite,
    nice_range,
    nice_step,
    px,
    shortened,
    text_width,
    tick_label,
    tick_values,
)
from annotator.charts_shares import Share, ShareChart, share_chart
from annotator.charts_types import Label, Reference, Rule, Series, Table

__all__ = [
    "Bar",
    "BarChart",
    "Dot",
    "DotChart",
    "HBar",
    "HBarChart",
    "LineChart",
    "MiniInterval",
    "Reference",
    "Series",
    "Share",
    "ShareChart",
    "bars",
    "dots_with_intervals",
    "hbars",
    "line_chart",
    "mini_interval",
    "share_chart",
]

_ROW: Final = 26
_FIRST_ROW: Final = 35


# Estimates with their intervals ----------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """An estimate to compare: a method's accuracy, with its interval where there is one."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    style: int = 1
    strong: bool = False
    count: int | None = None


@dataclass(frozen=True)
class DotRow:
    """A row of a dot chart in pixels; `x` is None where there is no value to draw."""

    y: float
    text_y: float
    name: str
    count: str
    value: str
    interval: str
    style: int
    strong: bool
    x: float | None
    low: float | None
    high: float | None

    @property
    def tip(self) -> float | int:
        return px(self.y - 5)


@dataclass(frozen=True)
class DotChart:
    """What `charts/dots.html` draws."""

    template: ClassVar[str] = "charts/dots.html"
    width: int
    height: int
    label: str
    heading: str
    caption: str
    top: float
    bottom: float
    ticks_y: float
    values_x: float
    ticks: tuple[Tick, ...]
    rows: tuple[DotRow, ...]
    reference: Rule | None
    table: Table


def dots_with_intervals(
    dots: Sequence[Dot],
    *,
    label: str,
    reference: Reference | None = None,
    heading: str = "",
    caption: str = "",
    width: int = 340,
    scale: float = 100.0,
    digits: int = 1,
    unit: str = "",
) -> DotChart:
    """Return the geometry of estimates with whiskers, one to a row, the values printed beside.

    Values are shares unless `scale` is 1. `unit` is printed once, at the last tick.
    """
    shown = list(dots)[:MAX_POINTS]
    if reference is not None and not finite([reference.value]):
        reference = None
    names = [shortened(dot.name, width * 0.4) for dot in shown]
    counts = ["" if dot.count is None else f"{dot.count:,}" for dot in shown]
    widest = max(
        (text_width(f"{a} {b}".strip()) for a, b in zip(names, counts, strict=True)), default=0.0
    )
    texts = [_estimate(dot, scale, digits) for dot in shown]
    values = max((text_width(f"{value} {rest}") for value, rest in texts), default=100.0)
    values_x = px(width - values - 2)
    left = widest + 16
    axis = _dot_axis(shown, reference, scale, (left, max(left + 20, values_x - 24)))
    rows = tuple(
        _dot_row(dot, index, (names[index], counts[index], *texts[index]), axis, scale)
        for index, dot in enumerate(shown)
    )
    bottom = _FIRST_ROW + _ROW * max(1, len(shown)) - 13
    step = nice_step(axis.high - axis.low, max(2, min(4, int((axis.end - axis.start) // 36))))
    return DotChart(
        width=width,
        height=bottom + 26,
        label=label,
        heading=heading,
        caption=caption,
        top=20,
        bottom=bottom,
        ticks_y=bottom + 16,
        values_x=values_x,
        ticks=_dot_ticks(axis, step, unit),
        rows=rows,
        reference=_dot_reference(reference, axis, scale, width),
        table=_dot_table(dots, scale, digits, unit),
    )


def _estimate(dot: Dot, scale: float, digits: int) -> tuple[str, str]:
    if not finite([dot.value]):
        return formats.MISSING, "no value"
    value = formats.fixed(scale * float(dot.value or 0), digits)
    if len(finite([dot.low, dot.high])) < 2:
        return value, "no interval"
    return value, formats.interval(dot.low, dot.high, digits=digits, scale=scale)


def _dot_axis(
    dots: Sequence[Dot], reference: Reference | None, scale: float, ends: tuple[float, float]
) -> Scale:
    values = finite([number for dot in dots for number in (dot.value, dot.low, dot.high)])
    if reference is not None:
        values.append(reference.value)
    held = [scale * value for value in values if abs(value) < 1e290]
    low, high = min(held, default=0.0), max(held, default=scale)
    if high - low < max(abs(low), abs(high)) * 1e-6 or high == low:
        low, high, _ = nice_range([low], 4)
    pad = (high - low) * 0.04
    return Scale(low - pad, high + pad, *ends)


def _dot_ticks(axis: Scale, step: float, unit: str) -> tuple[Tick, ...]:
    values = tick_values(axis.low, axis.high, step)
    labels = [tick_label(value, step) for value in values]
    if labels and unit:
        labels[-1] += f"{formats.SPACE}{unit}"
    return tuple(Tick(px(axis.at(value)), text) for value, text in zip(values, labels, strict=True))


def _dot_row(
    dot: Dot, index: int, texts: tuple[str, str, str, str], axis: Scale, scale: float
) -> DotRow:
    y = _FIRST_ROW + _ROW * index
    name, count, value, interval = texts
    drawn = finite([dot.value])
    whisker = finite([dot.low, dot.high]) if drawn else []
    low, high = sorted(whisker) if len(whisker) == 2 else (None, None)
    return DotRow(
        y=y,
        text_y=y + 4,
        name=name,
        count=count,
        value=value,
        interval=interval,
        style=dot.style if dot.style in range(5) else 0,
        strong=dot.strong,
        x=px(axis.at(scale * drawn[0])) if drawn else None,
        low=None if low is None else px(axis.at(scale * low)),
        high=None if high is None else px(axis.at(scale * high)),
    )


def _dot_reference(
    reference: Reference | None, axis: Scale, scale: float, width: int
) -> Rule | None:
    if reference is None:
        return None
    at = px(axis.at(scale * reference.value))
    text = shortened(reference.label, width)
    half = text_width(text) / 2
    return Rule(at, Label(px(min(width - half, max(half, at))), 12, text, "middle"))


def _dot_table(dots: Sequence[Dot], scale: float, digits: int, unit: str) -> Table:
    counted = any(dot.count is not None for dot in dots)
    head = f"Value, {unit}" if unit else "Value"
    columns = ("", *(("Count",) if counted else ()), head, "95 % interval")
    rows = tuple(
        (
            dot.name,
            *((formats.thousands(dot.count),) if counted else ()),
            *_estimate(dot, scale, digits),
        )
        for dot in list(dots)[:MAX_POINTS]
    )
    left_out = len(dots) - len(rows)
    return Table(columns, rows, f"{left_out:,} more are not shown." if left_out > 0 else "")


# One estimate beside its number ----------------------------------------------------------------


@dataclass(frozen=True)
class MiniInterval:
    """What `charts/mini.html` draws; hidden from screen readers, its numbers stand beside it."""

    template: ClassVar[str] = "charts/mini.html"
    width: int
    style: int
    value: float | None
    low: float | None
    span: float | None
    reference: float | None


def mini_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    domain: tuple[float, float],
    reference: float | None = None,
    width: int = 64,
    style: int = 1,
) -> MiniInterval:
    """Return the geometry of an estimate and its interval on a short axis over `domain`.

    What lies outside the domain is held at its edge; what is missing is not drawn.
    """
    if len(finite(domain)) != 2 or not domain[0] < domain[1]:
        raise ValueError("a domain is two increasing finite numbers")
    axis = Scale(domain[0], domain[1], 1.0, width - 1.0)

    def at(number: float | None) -> float | None:
        found = finite([number])
        return axis.at(found[0]) if found else None

    ends = [end for end in (at(low), at(high)) if end is not None]
    drawn = len(ends) == 2
    middle, mark = at(value), at(reference)
    return MiniInterval(
        width=width,
        style=style if style in range(5) else 0,
        value=None if middle is None else px(middle),
        low=px(min(ends)) if drawn else None,
        span=px(max(ends) - min(ends)) if drawn else None,
        reference=None if mark is None else px(mark),
    )
