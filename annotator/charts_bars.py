"""Bars: counts in a row over time, and named amounts below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from annotator import formats
from annotator.charts_scale import (
    MAX_POINTS,
    Scale,
    Tick,
    finite,
    nice_step,
    px,
    shortened,
    text_width,
    tick_label,
    tick_values,
)
from annotator.charts_types import Table

_ROW: Final = 26


@dataclass(frozen=True)
class Bar:
    """A count and what it counts: a day's judgments."""

    name: str
    value: float


@dataclass(frozen=True)
class BarBox:
    """One bar in pixels; `soft` where it only gives the context of the others."""

    x: float
    y: float
    width: float
    height: float
    soft: bool


@dataclass(frozen=True)
class BarChart:
    """What `charts/bars.html` draws."""

    template: ClassVar[str] = "charts/bars.html"
    width: int
    height: int
    label: str
    title: str
    heading: str
    caption: str
    right: float
    bottom: float
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    bars: tuple[BarBox, ...]
    table: Table

    @property
    def y_labels_x(self) -> float | int:
        """Where the labels of the level ticks start."""
        return px(self.right + 8)

    @property
    def x_labels_y(self) -> float | int:
        """The base line of the labels below the axis."""
        return px(self.bottom + 16)


def bars(
    counts: Sequence[Bar],
    *,
    label: str,
    title: str = "",
    heading: str = "",
    caption: str = "",
    width: int = 340,
    height: int = 128,
    highlight: int = 7,
    tick_every: int = 7,
) -> BarChart:
    """Return the geometry of counts in a row, the last `highlight` of them in full color.

    Over `MAX_POINTS` bars, neighbors are added up, which the table's note says.
    """
    per_bar = max(1, math.ceil(len(counts) / MAX_POINTS))
    names, values = _summed(counts, per_bar)
    most = max(values, default=0.0) or 1.0
    step = max(1.0, nice_step(most, 2))  # counts have no halves
    ticks = tick_values(0.0, most, step)
    room = max(text_width(tick_label(value, step)) for value in ticks) + 10
    right, bottom = width - max(60.0 if width >= 300 else 0.0, room), height - 20
    scale = Scale(0.0, most, bottom, 28)
    slot = right / max(1, len(values))
    thick = max(slot * 0.4, min(24.0, slot - (3 if slot >= 8 else 1)))
    first_full = len(values) - math.ceil(highlight / per_bar)
    boxes = tuple(
        BarBox(
            x=px(index * slot + (slot - thick) / 2),
            y=px(scale.at(value)),
            width=px(thick),
            height=px(bottom - scale.at(value)),
            soft=index < first_full,
        )
        for index, value in enumerate(values)
    )
    return BarChart(
        width=width,
        height=height,
        label=label,
        title=title,
        heading=heading,
        caption=caption,
        right=px(right),
        bottom=bottom,
        y_ticks=tuple(Tick(px(scale.at(value)), tick_label(value, step)) for value in ticks),
        x_ticks=_bar_ticks(names, slot, width, max(1, tick_every // per_bar)),
        bars=boxes,
        table=_bar_table(counts, per_bar, names, values),
    )


def _summed(counts: Sequence[Bar], per_bar: int) -> tuple[list[str], list[float]]:
    names, values = [], []
    for start in range(0, len(counts), per_bar):
        group = counts[start : start + per_bar]
        names.append(group[0].name)
        values.append(min(1e300, sum(max(0.0, value) for value in finite(b.value for b in group))))
    return names, values


def _bar_ticks(names: Sequence[str], slot: float, width: int, every: int) -> tuple[Tick, ...]:
    """Label every so many bars, at their left edge, wherever the label before it leaves room."""
    ticks: list[Tick] = []
    free = 0.0
    for index in range(0, len(names), every):
        text = shortened(names[index], 80)
        at = index * slot
        if at >= free and at + text_width(text) <= width:
            ticks.append(Tick(px(at), text, "start"))
            free = at + text_width(text) + 8
    return tuple(ticks)


def _bar_table(
    counts: Sequence[Bar], per_bar: int, names: Sequence[str], values: Sequence[float]
) -> Table:
    pairs = list(zip(names, values, strict=True))[-60:]
    notes = [f"Each bar adds up {per_bar:,} values."] if per_bar > 1 else []
    if len(pairs) < len(values):
        notes.append(f"These are the last {len(pairs)} of {len(values):,} bars.")
    lost = len(counts) - len(finite(bar.value for bar in counts))
    if lost:
        notes.append(f"Values missing or not finite: {lost:,}.")
    rows = tuple((name, formats.thousands(value)) for name, value in pairs)
    return Table(("", "Count"), rows, " ".join(notes))


@dataclass(frozen=True)
class HBar:
    """A named amount; `text` is what is printed instead of the bare number."""

    name: str
    value: float
    text: str = ""
    style: int = 0


@dataclass(frozen=True)
class HBarRow:
    """One row of horizontal bars in pixels."""

    y: float
    text_y: float
    name: str
    text: str
    text_x: float
    width: float
    style: int


@dataclass(frozen=True)
class HBarChart:
    """What `charts/hbars.html` draws."""

    template: ClassVar[str] = "charts/hbars.html"
    width: int
    height: int
    label: str
    heading: str
    caption: str
    left: float
    rows: tuple[HBarRow, ...]
    table: Table


def hbars(
    amounts: Sequence[HBar],
    *,
    label: str,
    heading: str = "",
    caption: str = "",
    width: int = 340,
) -> HBarChart:
    """Return the geometry of labeled bars from a common zero, each with its value behind it.

    An amount below zero, which counts never are, is printed but has no length.
    """
    shown = list(amounts)[:MAX_POINTS]
    names = [shortened(one.name, width * 0.4) for one in shown]
    texts = [shortened(one.text or formats.thousands(one.value), width * 0.35) for one in shown]
    left = max(112.0 if width >= 300 else 60.0, max(map(text_width, names), default=0.0) + 12)
    room = max(20.0, width - left - 8 - max(map(text_width, texts), default=0.0))
    longest = max(finite(one.value for one in shown), default=0.0)
    scale = Scale(0.0, longest if longest > 0 else 1.0, 0.0, room)
    rows = []
    for index, one in enumerate(shown):
        length = scale.at(one.value) if finite([one.value]) else 0.0
        rows.append(
            HBarRow(
                y=7 + _ROW * index,
                text_y=17 + _ROW * index,
                name=names[index],
                text=texts[index],
                text_x=px(left + length + 8),
                width=px(length),
                style=one.style if one.style in range(5) else 0,
            )
        )
    table = Table(
        ("", "Value"),
        tuple((one.name, one.text or formats.thousands(one.value)) for one in shown),
        f"{len(amounts) - len(shown):,} more are not shown." if len(amounts) > len(shown) else "",
    )
    return HBarChart(
        width=width,
        height=max(1, len(shown)) * _ROW,
        label=label,
        heading=heading,
        caption=caption,
        left=px(left),
        rows=tuple(rows),
        table=table,
    )
