"""Heat maps: a square table of shares, darker where there is more, the number in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from annotator import formats
from annotator.charts_scale import finite, px, shortened, text_width
from annotator.charts_types import Label, Table

SHADES: Final = 6  # h0 to h6 of app.css
_CELL: Final = 40
# Cells shrink where there are many names, so that a column of the page holds them.
_SIZES: Final = ((13, 30), (9, 34), (0, _CELL))
_GAP: Final = 2
_BREAK: Final = 8  # between groups


@dataclass(frozen=True)
class HeatCell:
    """A cell in pixels; `shade` is None where there is nothing to tell."""

    x: float
    y: float
    size: int
    text_x: float
    text_y: float
    text: str
    shade: int | None


@dataclass(frozen=True)
class HeatMap:
    """What `charts/heat.html` draws."""

    template: ClassVar[str] = "charts/heat.html"
    width: int
    height: int
    label: str
    heading: str
    caption: str
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: tuple[HeatCell, ...]
    table: Table


def heat_map(
    names: Sequence[str],
    shares: Sequence[Sequence[float | None]],
    *,
    label: str,
    heading: str = "",
    caption: str = "",
    groups: Sequence[int] = (),
    counts: Sequence[Sequence[int]] = (),
    width: int = 574,
) -> HeatMap:
    """Return the geometry of a square table of shares between 0 and 1, rows and columns alike.

    The diagonal stays empty; a share of None is a dash. A new group number in `groups` leaves a
    gap. `counts` are printed in the table of numbers, beside the shares.
    """
    number = [str(place) for place in range(1, len(names) + 1)]
    size = next(size for least, size in _SIZES if len(names) >= least)
    room = max(96.0, width - 24 - len(names) * (size + _GAP))
    short = [shortened(f"{at} {name}", room) for at, name in zip(number, names, strict=True)]
    left = max((text_width(name) for name in short), default=0.0) + 12
    offsets = _offsets(len(names), groups, size)
    known = finite(share for row in shares for share in row)
    low, high = min(known, default=0.0), max(known, default=1.0)
    cells = tuple(
        _cell(left + offsets[j], 22 + offsets[i], shares[i][j], (low, high), size)
        for i in range(len(names))
        for j in range(len(names))
        if i != j
    )
    end = (offsets[-1] + size) if offsets else 0.0
    return HeatMap(
        width=int(left + end) + 1,
        height=int(22 + end) + 1,
        label=label,
        heading=heading,
        caption=caption,
        rows=tuple(
            Label(0, px(22 + offset + size / 2 + 4), name)
            for offset, name in zip(offsets, short, strict=True)
        ),
        columns=tuple(
            Label(px(left + offset + size / 2), 14, at, "middle")
            for offset, at in zip(offsets, number, strict=True)
        ),
        cells=cells,
        table=_table(names, shares, counts),
    )


def _offsets(count: int, groups: Sequence[int], size: int) -> list[float]:
    at, found = 0.0, []
    for place in range(count):
        if place and groups and groups[place] != groups[place - 1]:
            at += _BREAK
        found.append(at)
        at += size + _GAP
    return found


def _cell(
    x: float, y: float, share: float | None, ends: tuple[float, float], size: int
) -> HeatCell:
    drawn = finite([share])
    shade = None
    if drawn:
        low, high = ends
        span = high - low
        shade = round(SHADES * (drawn[0] - low) / span) if span > 0 else SHADES // 2
    text = formats.fixed(100 * drawn[0], 0) if drawn else formats.MISSING
    middle = size / 2
    return HeatCell(px(x), px(y), size, px(x + middle), px(y + middle + 4), text, shade)


def _table(
    names: Sequence[str],
    shares: Sequence[Sequence[float | None]],
    counts: Sequence[Sequence[int]],
) -> Table:
    rows = []
    for i, one in enumerate(names):
        for j in range(i + 1, len(names)):
            n = (formats.thousands(counts[i][j]),) if counts else ()
            rows.append((f"{one}, {names[j]}", formats.percent(shares[i][j]), *n))
    return Table(("Two raters", "Agree", *(("Shared",) if counts else ())), tuple(rows))
