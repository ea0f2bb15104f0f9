"""Scales, ticks, thinning and text widths for charts: numbers in, pixels out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_POINTS: Final = 200
# Widths of the 12 px interface font, measured in Chromium; wide enough for the fallback fonts.
_DIGIT: Final = 6.7
_NARROW: Final = frozenset(" .,:;'|!ijl[]()·")
_WIDE: Final = frozenset("mwMW%@—…")


def px(value: float) -> float | int:
    """Round a coordinate to a tenth of a pixel, whole numbers without a decimal point."""
    rounded = round(float(value), 1)
    return int(rounded) if rounded.is_integer() else rounded


def text_width(text: str) -> float:
    """Estimate the width in pixels of a text in the charts' 12 px font."""
    return sum(
        3.4 if char in _NARROW else 10.0 if char in _WIDE or ord(char) > 0x2E7F else _DIGIT
        for char in text
    )


def shortened(text: str, width: float) -> str:
    """Return a text cut with an ellipsis so that it fits in `width` pixels."""
    text = " ".join(text.split())
    if text_width(text[:400]) <= width and len(text) <= 400:
        return text
    kept = text[:400]
    while kept and text_width(kept) + 10 > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the finite numbers among some values."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class Scale:
    """A straight line from data to pixels. `low` may lie below or above on the page."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a value, held inside the scale."""
        return self.start + self.share(value) * (self.end - self.start)

    def share(self, value: float) -> float:
        """Return how far along the scale a value lies, from 0 to 1."""
        span = self.high / 2 - self.low / 2  # halved: the difference may be beyond a float
        return min(1.0, max(0.0, float(value / 2 - self.low / 2) / span)) if span > 0 else 0.0


@dataclass(frozen=True)
class Tick:
    """A value on an axis: where it stands and what it says."""

    at: float
    label: str
    anchor: str = "middle"

    @property
    def text_y(self) -> float | int:
        """The base line of the label of a level tick."""
        return px(self.at + 4)


def nice_step(span: float, count: int) -> float:
    """Return 1, 2 or 5 times a power of ten that cuts `span` into about `count` parts."""
    raw = 0.8 * span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= raw), 10 * power)


def widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that has room for a scale, around it where it is one value."""
    if high - low > max(abs(low), abs(high)) * 1e-9 and high - low > 1e-300:
        return low, high
    pad = max(abs(low), abs(high)) * 0.1
    pad = pad if pad > 1e-300 else 0.5
    return low - pad, high + pad


def nice_range(values: Sequence[float], count: int) -> tuple[float, float, float]:
    """Return low, high and step of an axis that starts and ends on a tick around the values.

    Empty values give 0 to 1; equal ones a range around them. Values beyond 1e300 are held there:
    a chart of them says nothing, but must not divide by infinity.
    """
    held = [min(1e300, max(-1e300, value)) for value in values] or [0.0, 1.0]
    low, high = widened(min(held), max(held))
    step = nice_step(high - low, count)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step, step


def tick_values(low: float, high: float, step: float) -> list[float]:
    """Return the multiples of `step` in a range, zero printed as zero."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, min(last, first + 50) + 1)]


def decimals(step: float) -> int:
    """Return how many decimals the ticks of a step need."""
    return min(6, max(0, -math.floor(math.log10(step) + 1e-9)))


def tick_label(value: float, step: float) -> str:
    """Print a tick with the decimals its step needs; very large and small ones in powers."""
    if abs(value) >= 1e7 or (0 < step < 1e-6):
        return f"{value:.3g}".replace("-", "\u2212")
    text = f"{value:,.{decimals(step)}f}"
    return text.replace("-", "\u2212") if float(text.replace(",", "")) else text.lstrip("-")


def thin(x: ArrayLike, y: ArrayLike, limit: int = MAX_POINTS) -> NDArray[np.intp]:
    """Return at most `limit` increasing indices of points that keep the shape of a curve.

    The first and last point stay, and the lowest and highest of each stretch between them, so
    that no spike disappears. `y` must be finite; `x` only gives the length.
    """
    values = np.asarray(y, dtype=float)
    size = len(values)
    if len(np.asarray(x)) != size:
        raise ValueError("x and y differ in length")
    if size <= limit:
        return np.arange(size)
    parts = np.array_split(np.arange(1, size - 1), max(1, (limit - 2) // 2))
    kept = {0, size - 1}
    for part in parts:
        if len(part):
            kept.add(int(part[np.argmin(values[part])]))
            kept.add(int(part[np.argmax(values[part])]))
    return np.array(sorted(kept), dtype=np.intp)


def trailing_means(values: ArrayLike, at: Iterable[int], window: int) -> list[float]:
    """Return the mean of the finite ones among the `window` values up to each index, or NaN."""
    array = np.asarray(values, dtype=float)
    means = []
    for index in at:
        part = array[max(0, index - max(1, window) + 1) : index + 1]
        part = part[np.isfinite(part)]
        means.append(float(np.mean(part)) if len(part) else math.nan)
    return means
