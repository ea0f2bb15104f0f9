"""Numbers as the pages print them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from annotator import formats


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (12960, "12,960"),
        (-5, "−5"),
        (1240.0, "1,240"),
        (7.5, "7.5"),
        (10**30, f"{10**30:,}"),
    ],
)
def test_thousands_separates_digits(value: float, shown: str) -> None:
    assert formats.thousands(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.741, "74.1\u00a0%"), (0, "0.0\u00a0%"), (1, "100.0\u00a0%"), (-0.0001, "0.0\u00a0%"),
     (-0.022, "−2.2\u00a0%")],
)  # fmt: skip
def test_percent_prints_one_decimal(share: float, shown: str) -> None:
    assert formats.percent(share) == shown


def test_interval_prints_both_ends_in_percent() -> None:
    assert formats.interval(0.699, 0.779) == "[69.9,\u00a077.9]"
    assert formats.interval(-1.1, 5, scale=1) == "[−1.1,\u00a05.0]"
    assert formats.interval(None, 0.5) == "no interval"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.61, ".61"), (-0.4, "−.40"), (1, "1.00"), (0, ".00"), (10.0, "10.00")]
)
def test_coefficient_drops_the_leading_zero(value: float, shown: str) -> None:
    assert formats.coefficient(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.39312, "0.393"), (7.519, "7.52"), (74.13, "74.1"), (1240, "1,240"), (1240.4, "1,240"),
     (5.3e-05, "5.3e−05"), (0, "0"), (-0.5, "−0.500"), (2.5e9, "2.5e+09")],
)  # fmt: skip
def test_compact_prints_what_can_be_read(value: float, shown: str) -> None:
    assert formats.compact(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.2, "under 1 s"), (4, "4 s"), (59.4, "59 s"), (59.6, "1 min"), (1320, "22 min"),
     (3599, "1 h"), (3600, "1 h"), (7500, "2 h 5 min"), (86_390, "1 day"), (3 * 86_400, "3 days"),
     (-3, "0 s")],
)  # fmt: skip
def test_duration_prints_leading_units(seconds: float, shown: str) -> None:
    assert formats.duration(seconds).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (812, "812 bytes"), (1000, "1.0 kB"), (48_000_000, "48 MB"),
     (1_240_000_000, "1.2 GB"), (999_950, "1.0 MB"), (9_960, "10 kB"), (10**21, "1,000,000 PB")],
)  # fmt: skip
def test_file_size_prints_decimal_units(count: int, shown: str) -> None:
    assert formats.file_size(count).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"),
        (2, "2 s ago"),
        (180, "3 min ago"),
        (2 * 86_400, "2 days ago"),
        (-300, "in 5 min"),
    ],
)
def test_ago_counts_from_now(seconds: int, shown: str) -> None:
    now = datetime(2026, 9, 15, 14, 4, tzinfo=UTC)
    assert formats.ago(now - timedelta(seconds=seconds), now=now).replace("\u00a0", " ") == shown


def test_ago_of_nothing_is_never() -> None:
    assert formats.ago(None) == "never"


PRINTERS = [
    formats.thousands, formats.percent, formats.coefficient, formats.compact, formats.duration,
    formats.file_size,
]  # fmt: skip


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "x", object(), True])
def test_formats_print_a_dash_for_what_is_no_number(printer, value) -> None:
    assert printer(value) == formats.MISSING


@given(st.floats())
def test_formats_print_any_number_without_an_ascii_minus(value: float) -> None:
    for printer in PRINTERS:
        shown = printer(value)
        assert shown
        assert "-" not in shown


def test_filters_print_in_templates() -> None:
    shown = Template(
        "{{ n|thousands }}|{{ p|percent }}|{{ p|percent:'' }}|{{ pair|interval }}|{{ lo|interval:hi }}|"
        "{{ n|duration }}|{{ n|bytes }}|{{ r|coefficient }}|{{ none|interval }}|{{ t|markdown }}|"
        "{{ wrapped|markdown:'document' }}|{{ raw|source }}"
    ).render(
        Context(
            {"n": 1320, "p": 0.741, "pair": (0.699, 0.779), "lo": 0.1, "hi": 0.2, "r": 0.61,
             "none": None, "t": "*a* <b>", "wrapped": "a\nb", "raw": "<b>"}
        )
    )  # fmt: skip
    assert shown.replace("\u00a0", " ") == (
        "1,320|74.1 %|74.1|[69.9, 77.9]|[10.0, 20.0]|22 min|1.3 kB|.61|no interval|"
        '<p dir="auto"><em>a</em> &lt;b&gt;</p>\n|<p dir="auto">a\nb</p>\n|'
        '<pre class="source" dir="auto" tabindex="0">\n&lt;b&gt;</pre>'
    )
