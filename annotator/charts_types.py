"""What charts share: the data they take and the texts, marks and numbers they place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annotator.charts_scale import px, text_width


@dataclass(frozen=True)
class Series:
    """A curve. `low` and `high` draw an interval band; with `window` the raw values are drawn
    softly under their trailing mean over that many points.

    `style` is the color 0 to 4 (0 is gray, for baselines); `end` is what stands at the last
    point instead of its value. With `whiskers` points stand alone, each with its interval; a
    `dotted` line is what the others are held against.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    name: str = ""
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    window: int = 0
    style: int = 1
    marks: bool = False
    whiskers: bool = False
    dotted: bool = False
    end: str | None = None


@dataclass(frozen=True)
class Reference:
    """A dotted line at a value, with its name: the human ceiling, an epoch's end."""

    value: float
    label: str


@dataclass(frozen=True)
class Label:
    """A text at a place on the drawing."""

    x: float
    y: float
    text: str
    anchor: str = "start"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the text covers, about."""
        width = text_width(self.text)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - 11, left + width, self.y + 3


@dataclass(frozen=True)
class Rule:
    """A reference line: its pixel and its label."""

    at: float
    label: Label


@dataclass(frozen=True)
class Mark:
    """A disc, or a diamond for series 2; `tip` is the diamond's upper end."""

    x: float
    y: float
    diamond: bool

    @property
    def tip(self) -> float | int:
        return px(self.y - 5)


@dataclass(frozen=True)
class Table:
    """The numbers of a chart for its "Numbers" table; the first column heads each row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
