"""The list of judges with its drawn intervals, all on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from annotator import formats
from annotator.charts import MiniInterval, mini_interval
from annotator.queries.judges import Row

MINI_WIDTH: Final = 128
DOMAIN: Final = (0.4, 1.0)


@dataclass(frozen=True)
class Cell:
    text: str
    interval: str
    mini: MiniInterval | None


@dataclass(frozen=True)
class Drawn:
    row: Row
    agreement: Cell
    same: Cell
    ece: Cell


@dataclass(frozen=True)
class Table:
    """``axis`` are the ends of the drawn intervals in percent."""

    axis: tuple[str, str]
    rows: list[Drawn]


def table(rows: Sequence[Row]) -> Table:
    low, high = DOMAIN
    drawn = [
        Drawn(row, cell(row.agreement, row.ceiling), cell(row.same), _points(row.ece))
        for row in rows
    ]
    return Table((f"{100 * low:.0f}", f"{100 * high:.0f}"), drawn)


def cell(
    one: dict[str, Any] | None, beside: dict[str, Any] | None = None, *, style: int = 2
) -> Cell:
    """A share in percent with its interval, drawn on the list's axis."""
    if not one or one["value"] is None:
        return Cell(formats.MISSING, "", None)
    mini = mini_interval(
        one["value"],
        one["low"],
        one["high"],
        domain=DOMAIN,
        reference=beside["value"] if beside else None,
        width=MINI_WIDTH,
        style=style,
    )
    text = formats.percent(one["value"], unit="")
    return Cell(text, formats.interval(one["low"], one["high"]), mini)


def _points(one: dict[str, Any] | None) -> Cell:
    if not one or one["value"] is None:
        return Cell(formats.MISSING, "", None)
    text = formats.percent(one["value"], unit="")
    return Cell(text, formats.interval(one["low"], one["high"]), None)
