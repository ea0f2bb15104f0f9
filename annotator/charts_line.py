"""Line charts: curves with intervals, soft raw values under a smoothed line, reference lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from annotator import formats
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
    thin,
    tick_label,
    tick_values,
    trailing_means,
    widened,
)
from annotator.charts_types import Label, Mark, Reference, Rule, Series, Table

MAX_ROWS: Final = 24
_TOP: Final = 28
_MARGIN: Final = 12
_LINE: Final = 14.0  # height one printed line takes


@dataclass(frozen=True)
class Curve:
    """One series as SVG point lists; a gap in the data starts a new list."""

    style: int
    lines: tuple[str, ...]
    soft: tuple[str, ...]
    bands: tuple[str, ...]
    marks: tuple[Mark, ...]
    whiskers: tuple[tuple[float, float, float], ...] = ()  # x, y of both ends
    dotted: bool = False


@dataclass(frozen=True)
class LineChart:
    """What `charts/line.html` draws."""

    template: ClassVar[str] = "charts/line.html"
    width: int
    height: int
    label: str
    title: str
    heading: str
    caption: str
    x_label: str
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_rules: tuple[Rule, ...]
    y_rules: tuple[Rule, ...]
    curves: tuple[Curve, ...]
    ends: tuple[Label, ...]
    table: Table

    @property
    def y_labels_x(self) -> float | int:
        """Where the labels of the level ticks end."""
        return px(self.left - 8)

    @property
    def x_labels_y(self) -> float | int:
        """The base line of the labels below the axis."""
        return px(self.bottom + 18)

    @property
    def x_label_y(self) -> float | int:
        """The base line of the axis' own name."""
        return px(self.bottom + 32)

    @property
    def empty(self) -> bool:
        """Whether there is no point to draw."""
        return not self.curves

    @property
    def middle(self) -> tuple[float | int, float | int]:
        """The center of the plot, where an empty chart says so."""
        return px((self.left + self.right) / 2), px((self.top + self.bottom) / 2)


@dataclass(frozen=True)
class _Data:
    """A series as arrays, without the points that are not finite."""

    series: Series
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    run: NDArray[np.intp]  # the stretch between gaps that each point belongs to
    lost: int
    kept: NDArray[np.intp] = field(repr=False)


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    title: str = "",
    x_label: str = "",
    heading: str = "",
    caption: str = "",
    width: int = 588,
    height: int = 240,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_references: Sequence[Reference] = (),
    y_references: Sequence[Reference] = (),
    x_names: Sequence[tuple[float, str]] = (),
    y_format: Callable[[float], str] = formats.compact,
    x_format: Callable[[float], str] = formats.compact,
) -> LineChart:
    """Return the geometry of curves over a common x; `x_names` are ticks in words.

    `label` is the sentence that states the finding; `title` names the quantity, on the drawing.
    At most `MAX_POINTS` points of a series are drawn; the first, the last and the extremes stay.
    """
    data = [found for one in series if len((found := _data(one)).x)]
    y_references = [one for one in y_references if finite([one.value])]
    bottom = height - (36 if x_label else 24)
    y_low, y_high, y_step = _y_range(data, y_references, y_range, bottom - _TOP)
    y_scale = Scale(y_low, y_high, bottom, _TOP)
    values = tick_values(y_low, y_high, y_step) if data else []
    y_ticks = tuple(
        Tick(px(y_scale.at(value)), tick_label(value, y_step), "end") for value in values
    )
    left = 8 + 4 * -(-max((text_width(tick.label) for tick in y_ticks), default=0.0) // 4)
    low, high = _x_range(data, x_range)
    ends = [_end_text(one, y_format, named=len(data) > 1) for one in data]
    right = _right(data, ends, (low, high), (left, width))
    x_scale = Scale(low, high, left, right)
    levels = [px(y_scale.at(one.value)) for one in y_references]
    placed = _end_labels(data, ends, x_scale, y_scale, levels)
    return LineChart(
        width=width,
        height=height,
        label=label,
        title=title,
        heading=heading,
        caption=caption,
        x_label=x_label,
        left=px(left),
        right=px(right),
        top=_TOP,
        bottom=px(bottom),
        x_ticks=_x_ticks(x_scale, bool(data), x_names),
        y_ticks=y_ticks,
        x_rules=_x_rules(x_references, x_scale),
        y_rules=_y_rules(y_references, levels, x_scale, y_scale, placed, data),
        curves=tuple(_curve(one, x_scale, y_scale) for one in data),
        ends=placed,
        table=_table(data, series, x_label, (x_format, y_format)),
    )


def _data(series: Series) -> _Data:
    if len(series.x) != len(series.y):
        raise ValueError("x and y of a series differ in length")
    x, y = _floats(series.x), _floats(series.y)
    low = y if series.low is None else _floats(series.low)
    high = y if series.high is None else _floats(series.high)
    if not len(x) == len(low) == len(high):
        raise ValueError("an interval's ends differ in length from the series")
    known = np.isfinite(x) & np.isfinite(y)
    low = np.where(np.isfinite(low), low, y)[known]
    high = np.where(np.isfinite(high), high, y)[known]
    run = np.cumsum((~known).astype(np.intp))[known]
    x, y = x[known], y[known]
    order = np.argsort(x, kind="stable")
    x, y, low, high, run = x[order], y[order], low[order], high[order], run[order]
    kept = thin(x, y) if len(x) else np.array([], dtype=np.intp)
    return _Data(series, x, y, low, high, run, int((~known).sum()), kept)


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.clip(array, -1e300, 1e300, where=np.isfinite(array), out=array)


def _y_range(
    data: Sequence[_Data],
    references: Sequence[Reference],
    given: tuple[float, float] | None,
    pixels: float,
) -> tuple[float, float, float]:
    count = max(2, round(pixels / 36))
    if given is not None and len(finite(given)) == 2:
        low, high = widened(min(given), max(given))
        return low, high, nice_step(high - low, count)
    values = [one.value for one in references] if data else []
    for one in data:
        values += [float(one.low.min()), float(one.high.max()), float(one.y.min())]
        values.append(float(one.y.max()))
    return nice_range(values, count)


def _x_range(data: Sequence[_Data], given: tuple[float, float] | None) -> tuple[float, float]:
    low = min((float(one.x[0]) for one in data), default=0.0)
    high = max((float(one.x[-1]) for one in data), default=1.0)
    if given is not None and len(finite(given)) == 2:
        low, high = min(given), max(given)
    elif 0 < low <= high / 10:
        low = 0.0  # steps start at zero even where the first value was logged later
    return widened(low, high)


def _right(
    data: Sequence[_Data],
    ends: Sequence[str],
    span: tuple[float, float],
    room: tuple[float, int],
) -> float:
    """Return where the plot ends, so that the labels at the curves' ends fit beside it."""
    left, width = room
    right = float(width - _MARGIN)
    for one, text in zip(data, ends, strict=True):
        share = Scale(*span, 0.0, 1.0).share(float(one.x[-1]))
        needed = text_width(text) + 12 if text else 0
        if share > 0.1 and left + share * (right - left) + needed > width:
            right = left + max(width / 4, width - needed - left) / share
    return min(right, float(width - _MARGIN))


def _x_ticks(scale: Scale, drawn: bool, named: Sequence[tuple[float, str]]) -> tuple[Tick, ...]:
    if not drawn:
        return ()
    if named:
        return tuple(Tick(px(scale.at(value)), name) for value, name in named)
    span = scale.high - scale.low
    step = nice_step(span, max(1, int((scale.end - scale.start) // 110)))
    last = Tick(px(scale.end), tick_label(scale.high, _label_step(scale.high, step)), "end")
    limit = scale.end - text_width(last.label) - 20
    ticks = []
    for value in tick_values(scale.low, scale.high, step):
        tick = Tick(px(scale.at(value)), tick_label(value, step))
        if tick.at + text_width(tick.label) / 2 <= limit:
            ticks.append(tick)
    return (*ticks, last)


def _label_step(value: float, step: float) -> float:
    """Return the step whose decimals print an axis' end exactly enough."""
    return step if abs(value / step - round(value / step)) < 1e-6 else step / 10 if step < 10 else 1


def _end_text(data: _Data, y_format: Callable[[float], str], *, named: bool) -> str:
    if data.series.end is not None:
        return shortened(data.series.end, 160)
    name = f"{shortened(data.series.name, 110)} " if named and data.series.name else ""
    return name + y_format(_end_value(data))


def _end_value(data: _Data) -> float:
    """Return where the curve that is drawn ends: the smoothed one where there is one."""
    return trailing_means(data.y, [len(data.y) - 1], data.series.window)[0]


def _end_labels(
    data: Sequence[_Data],
    ends: Sequence[str],
    x_scale: Scale,
    y_scale: Scale,
    levels: Sequence[float],
) -> tuple[Label, ...]:
    """Return the labels at the curves' ends, off the level lines and apart from each other."""
    wanted = []
    for one, text in zip(data, ends, strict=True):
        y = y_scale.at(_end_value(one)) + 4
        clear = (y + by for by in (0, 12, -10) if not _struck(y + by, levels))
        wanted.append((next(clear, y), x_scale.at(float(one.x[-1])) + 8, text))
    placed: list[Label] = []
    lowest = -np.inf
    for y, x, text in sorted(wanted, key=lambda item: item[0]):
        lowest = max(y, lowest + _LINE)
        if text:
            placed.append(Label(px(x), px(lowest), text))
    excess = max(0.0, (placed[-1].y - y_scale.start - 2) if placed else 0.0)
    return tuple(Label(one.x, px(one.y - excess), one.text) for one in placed)


def _struck(y: float, levels: Sequence[float]) -> bool:
    """Whether a level line would run through a text whose base line is at `y`."""
    return any(y - 10 < level < y + 2 for level in levels)


def _x_rules(references: Sequence[Reference], scale: Scale) -> tuple[Rule, ...]:
    rules = []
    for one in references:
        if not finite([one.value]) or not scale.low <= one.value <= scale.high:
            continue
        at = px(scale.at(one.value))
        text = shortened(one.label, 140)
        ahead = at + 6 + text_width(text) <= scale.end + _MARGIN
        rules.append(
            Rule(
                at,
                Label(
                    px(at + 6 if ahead else at - 6), _TOP + 10, text, "start" if ahead else "end"
                ),
            )
        )
    return tuple(rules)


def _y_rules(
    references: Sequence[Reference],
    levels: Sequence[float],
    x_scale: Scale,
    y_scale: Scale,
    taken: Sequence[Label],
    data: Sequence[_Data],
) -> tuple[Rule, ...]:
    """Return the level lines, each label on the first free side of its line."""
    boxes = [label.box for label in taken]
    points = [
        (x_scale.at(float(one.x[i])), y_scale.at(float(one.y[i]))) for one in data for i in one.kept
    ]
    rules = []
    for one, at in zip(references, levels, strict=True):
        text = shortened(one.label, 200)
        right, left = px(x_scale.end), px(x_scale.start + 4)
        choices = [
            Label(x, px(at + shift), text, anchor)
            for x, anchor in ((right, "end"), (left, "start"))
            for shift in (-6, 14)
        ]
        label = min(choices, key=lambda choice: _clutter(choice.box, boxes, points, levels))
        boxes.append(label.box)
        rules.append(Rule(at, label))
    return tuple(rules)


def _clutter(
    box: tuple[float, float, float, float],
    boxes: Sequence[tuple[float, float, float, float]],
    points: Sequence[tuple[float, float]],
    levels: Sequence[float],
) -> int:
    """Return how badly a text there would be read: on a text, on a line, on a curve."""
    left, top, right, bottom = box
    texts = sum(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in boxes
    )
    lines = sum(top < level < bottom for level in levels)
    return (
        1000 * texts
        + 10 * lines
        + sum(left <= x <= right and top <= y <= bottom for x, y in points)
    )


def _curve(data: _Data, x_scale: Scale, y_scale: Scale) -> Curve:
    kept, series = data.kept, data.series
    main, soft = _runs(data, kept), []
    values = data.y
    if series.window:
        even = np.unique(np.linspace(0, len(data.x) - 1, min(MAX_POINTS, len(data.x))).astype(int))
        soft, main = main, _runs(data, even)
        values = np.full(len(data.y), np.nan)
        values[even] = trailing_means(data.y, even.tolist(), series.window)
    bands = []
    if series.low is not None and series.high is not None and not series.whiskers:
        for run in main:
            upper = _points(data.x[run], data.high[run], x_scale, y_scale)
            lower = _points(data.x[run][::-1], data.low[run][::-1], x_scale, y_scale)
            bands.append(f"{upper} {lower}")
    alone = [run for run in main if len(run) == 1]
    marked = main if series.marks or series.whiskers else alone
    marks = [
        Mark(px(x_scale.at(data.x[i])), px(y_scale.at(values[i])), series.style == 2)
        for run in marked
        for i in run
    ]
    return Curve(
        style=series.style if series.style in range(5) else 0,
        lines=()
        if series.whiskers
        else tuple(_points(data.x[run], values[run], x_scale, y_scale) for run in main),
        soft=tuple(_points(data.x[run], data.y[run], x_scale, y_scale) for run in soft),
        bands=tuple(bands),
        marks=tuple(marks),
        whiskers=_whiskers(data, x_scale, y_scale) if series.whiskers else (),
        dotted=series.dotted,
    )


def _whiskers(
    data: _Data, x_scale: Scale, y_scale: Scale
) -> tuple[tuple[float | int, float | int, float | int], ...]:
    ends = zip(data.x[data.kept], data.low[data.kept], data.high[data.kept], strict=True)
    return tuple((px(x_scale.at(x)), px(y_scale.at(a)), px(y_scale.at(b))) for x, a, b in ends)


def _runs(data: _Data, indices: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split indices where the data had a gap."""
    breaks = np.flatnonzero(np.diff(data.run[indices])) + 1
    return [run for run in np.split(indices, breaks) if len(run)]


def _points(x: NDArray[np.float64], y: NDArray[np.float64], x_scale: Scale, y_scale: Scale) -> str:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return " ".join(f"{px(x_scale.at(a))},{px(y_scale.at(b))}" for a, b in pairs)


def _table(
    data: Sequence[_Data],
    series: Sequence[Series],
    x_label: str,
    written: tuple[Callable[[float], str], Callable[[float], str]],
) -> Table:
    """Return up to `MAX_ROWS` rows: evenly chosen points, the first and the last among them."""
    x_format, y_format = written
    named = len(data) > 1
    banded = any(one.series.low is not None for one in data)
    window = max((one.series.window for one in data), default=0)
    columns = [x_label or "x", *(["Series"] if named else []), "Value"]
    columns += [f"Mean of {window:,}"] if window else []
    columns += ["95 % interval"] if banded else []
    rows, most = [], max(2, MAX_ROWS // max(1, len(data)))
    for one in data:
        shown = one.kept[np.unique(np.linspace(0, len(one.kept) - 1, most).astype(int))]
        means = trailing_means(one.y, shown.tolist(), one.series.window)
        for i, mean in zip(shown.tolist(), means, strict=True):
            row = [x_format(float(one.x[i])), *([one.series.name] if named else [])]
            row.append(y_format(float(one.y[i])))
            row += [y_format(mean)] if window else []
            if banded:
                ends = (y_format(float(one.low[i])), y_format(float(one.high[i])))
                row.append(f"[{', '.join(ends)}]" if one.series.low is not None else "")
            rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows), _table_note(data, series, len(rows)))


def _table_note(data: Sequence[_Data], series: Sequence[Series], shown: int) -> str:
    total = sum(len(one.x) for one in data)
    lost = sum(len(one.x) for one in series) - total
    notes = [f"{shown:,} of {total:,} points."] if shown < total else []
    if lost:
        verb = "value is" if lost == 1 else "values are"
        notes.append(f"{lost:,} {verb} missing or not finite and not drawn.")
    return " ".join(notes)
