"""One bar cut into shares, each named and numbered below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from annotator import formats
from annotator.charts_scale import finite, px, text_width
from annotator.charts_types import Mark, Table

_ROW: Final = 24
_FIRST: Final = 72
_GAP: Final = 2.0


@dataclass(frozen=True)
class Share:
    """A part of the whole with its interval; shares of one bar add up to 1 at most."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    style: int = 0


@dataclass(frozen=True)
class ShareRow:
    """One share in pixels: its piece of the bar and its line below."""

    x: float
    width: float
    text_y: float
    mark: Mark
    square: bool
    style: int
    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class ShareChart:
    """What `charts/shares.html` draws."""

    template: ClassVar[str] = "charts/shares.html"
    width: int
    height: int
    label: str
    title: str
    heading: str
    caption: str
    values_x: float
    rows: tuple[ShareRow, ...]
    table: Table


def share_chart(
    shares: Sequence[Share],
    *,
    label: str,
    title: str = "",
    heading: str = "",
    caption: str = "",
    width: int = 588,
) -> ShareChart:
    """Return the geometry of a bar cut into shares, in their order, from the left.

    What is missing or negative has no length and is printed all the same.
    """
    room = width - 2 - _GAP * max(0, len(shares) - 1)
    rows, x = [], 0.0
    for index, one in enumerate(shares):
        known = finite([one.value])
        length = max(0.0, min(1.0, known[0])) * room if known else 0.0
        y = float(_FIRST + _ROW * index)
        rows.append(
            ShareRow(
                x=px(x),
                width=px(length),
                text_y=px(y + 4),
                mark=Mark(5, y, one.style == 2),
                square=one.style == 3,
                style=one.style if one.style in range(5) else 0,
                name=one.name,
                value=formats.percent(one.value),
                interval=_interval(one),
            )
        )
        x += length + (_GAP if length else 0.0)
    widest = max((text_width(one.name) for one in shares), default=0.0)
    return ShareChart(
        width=width,
        height=_FIRST + _ROW * max(1, len(shares)) - 8,
        label=label,
        title=title,
        heading=heading,
        caption=caption,
        values_x=px(20 + widest + 24),
        rows=tuple(rows),
        table=_table(shares),
    )


def _interval(one: Share) -> str:
    return "" if one.low is None else formats.interval(one.low, one.high)


def _table(shares: Sequence[Share]) -> Table:
    rows = tuple(
        (
            one.name,
            formats.MISSING if one.count is None else formats.thousands(one.count),
            formats.percent(one.value),
            _interval(one),
        )
        for one in shares
    )
    return Table(("Outcome", "Count", "Share", "95 % interval"), rows)
