"""Template filters for numbers, times and hostile text, and a tag that draws a chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from annotator import formats, rendering

register = template.Library()


@register.filter
def thousands(value: Any) -> str:
    """12960 -> 12,960"""
    return formats.thousands(value)


@register.filter
def percent(value: Any, unit: str = "%") -> str:
    """0.741 -> 74.1 %; `share|percent:""` leaves the unit off"""
    return formats.percent(value, unit=unit)


@register.filter
def interval(low: Any, high: Any = None) -> str:
    """A pair of shares, or two: `pair|interval`, `low|interval:high` -> [69.9, 77.9]"""
    if high is None:
        if not isinstance(low, tuple | list) or len(low) != 2:
            return formats.interval(None, None)
        low, high = low
    return formats.interval(low, high)


@register.filter
def coefficient(value: Any) -> str:
    """0.61 -> .61"""
    return formats.coefficient(value)


@register.filter
def compact(value: Any) -> str:
    """0.39312 -> 0.393"""
    return formats.compact(value)


@register.filter
def duration(seconds: Any) -> str:
    """1320 -> 22 min"""
    return formats.duration(seconds)


@register.filter(name="bytes")
def file_size(count: Any) -> str:
    """48000000 -> 48 MB"""
    return formats.file_size(count)


@register.filter
def ago(moment: datetime | None) -> str:
    """A moment -> 2 s ago"""
    return formats.ago(moment)


@register.filter
def markdown(text: Any, kind: str = "chat") -> SafeString:
    """Hostile Markdown as safe HTML; `text|markdown:"document"` joins wrapped lines"""
    return rendering.render_markdown("" if text is None else str(text), breaks=kind == "chat")


@register.filter
def source(text: Any) -> SafeString:
    """A text as it was written, for the raw view"""
    return rendering.render_plain("" if text is None else str(text))


@register.filter
def at(values: Sequence[Any], index: int) -> Any:
    """``desk.answers|at:slot``: the item at that place."""
    return values[index]


@register.simple_tag
def draw(chart: Any) -> SafeString:
    """Draw a chart of `annotator.charts` with the template it names."""
    return render_to_string(chart.template, {"chart": chart, "mini": chart})


@register.filter
def moment(at: datetime | None) -> SafeString:
    """A moment as a <time>, which page.js shows in the reader's time zone; "" for None."""
    if at is None:
        return SafeString("")
    shown = f"{at.day} {at:%b %H:%M}"
    return format_html('<time datetime="{}" data-time>{}</time>', at.isoformat(), shown)
