"""Numbers as the pages print them. Pure functions; a missing or broken number is an en dash."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

MISSING: Final = "–"
SPACE: Final = "\u00a0"  # between a number and its unit: the two never part at a line end
MINUS: Final = "\u2212"
_BYTE_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def number(value: object) -> float | None:
    """Return what can be printed as a finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        converted = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def fixed(value: object, digits: int = 1) -> str:
    """Return a number with a fixed number of decimals, a real minus and no minus zero."""
    found = number(value)
    if found is None:
        return MISSING
    text = f"{found:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.,") else MINUS + text[1:]
    return text


def thousands(value: object) -> str:
    """Return a count with separators: 12,960."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace("-", MINUS)
    found = number(value)
    return fixed(value, 0 if found is None or found.is_integer() else 1)


def percent(share: object, *, digits: int = 1, unit: str = "%") -> str:
    """Return a share of one as a percentage: 0.741 is 74.1 %. An empty unit leaves it off."""
    found = number(share)
    if found is None:
        return MISSING
    return fixed(100 * found, digits) + (f"{SPACE}{unit}" if unit else "")


def interval(low: object, high: object, *, digits: int = 1, scale: float = 100.0) -> str:
    """Return an interval of shares in percent: [69.9, 77.9]. A scale of 1 keeps other units."""
    ends = (number(low), number(high))
    if ends[0] is None or ends[1] is None:
        return "no interval"
    return f"[{fixed(scale * ends[0], digits)},{SPACE}{fixed(scale * ends[1], digits)}]"


def coefficient(value: object, digits: int = 2) -> str:
    """Return a number between -1 and 1 without its leading zero: .61."""
    text = fixed(value, digits)
    return text.replace("0.", ".", 1) if text.lstrip(MINUS).startswith("0.") else text


def compact(value: object) -> str:
    """Return a measured number in three significant digits: 0.393, 7.52, 1,240, 5.3e−05."""
    found = number(value)
    if found is None:
        return MISSING
    size = abs(found)
    if size != 0 and (size < 1e-3 or size >= 1e7):
        return f"{found:.2g}".replace("-", MINUS)
    if found.is_integer() or size >= 100:
        return fixed(found, 0)
    digits = 3 if size < 1 else 2 if size < 10 else 1
    return fixed(found, digits)


def duration(seconds: object) -> str:
    """Return a span of time in its one or two leading units: 4 s, 22 min, 2 h 5 min, 3 days."""
    found = number(seconds)
    if found is None:
        return MISSING
    left = max(0, round(found))
    if 0 < found < 1:
        return f"under{SPACE}1{SPACE}s"
    if left < _MINUTE:
        return f"{left}{SPACE}s"
    if left < _HOUR:
        return f"{round(left / _MINUTE)}{SPACE}min" if left < _HOUR - 30 else f"1{SPACE}h"
    if left < _DAY:
        hours, minutes = divmod(round(left / _MINUTE), 60)
        if hours < 24:
            return f"{hours}{SPACE}h" + (f" {minutes}{SPACE}min" if minutes else "")
    days = round(left / _DAY)
    return f"{days:,}{SPACE}{'day' if days == 1 else 'days'}"


def file_size(count: object) -> str:
    """Return a number of bytes in decimal units: 812 bytes, 48 MB, 1.2 GB."""
    found = number(count)
    if found is None:
        return MISSING
    size, step = max(0.0, found), 0
    # 999,950 is "1.0 MB", not "1,000 kB".
    while step < len(_BYTE_UNITS) - 1 and size >= (999.5 if size >= 10 else 1000):
        size, step = size / 1000, step + 1
    digits = 1 if step and size < 9.95 else 0
    unit = "byte" if step == 0 and round(size) == 1 else _BYTE_UNITS[step]
    return f"{fixed(size, digits)}{SPACE}{unit}"


def ago(moment: datetime | None, *, now: datetime | None = None) -> str:
    """Return how long ago an aware moment was: 2 s ago, 3 days ago; ahead of now: in 5 min."""
    if moment is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    if seconds < 0:
        return f"in {duration(-seconds)}"
    return f"{duration(seconds)} ago"
