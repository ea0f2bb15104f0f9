"""Charts: geometry that follows the numbers, and SVG that says what it draws."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from django.template import Context, Template
from django.template.loader import render_to_string
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.charts import (
    Bar,
    Dot,
    HBar,
    Reference,
    Series,
    Share,
    bars,
    dots_with_intervals,
    hbars,
    line_chart,
    mini_interval,
    share_chart,
)
from annotator.charts_scale import (
    MAX_POINTS,
    Scale,
    nice_range,
    shortened,
    text_width,
    thin,
    tick_label,
    tick_values,
    trailing_means,
)
from annotator.formats import compact

ANY = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def drawn(chart: object) -> ET.Element:
    """Return a chart's markup parsed as XML; every coordinate in it must be a number."""
    html = render_to_string(chart.template, {"chart": chart, "mini": chart})
    assert "style=" not in html
    root = ET.fromstring(html.strip())
    for element in root.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            if element.get(name) is not None:
                assert math.isfinite(float(element.get(name, ""))), ET.tostring(element)
        assert float(element.get("width", 0)) >= 0
    return root


def points(text: str) -> list[tuple[float, float]]:
    pairs = [tuple(map(float, pair.split(","))) for pair in text.split()]
    return [(x, y) for x, y in pairs]


# Scales ----------------------------------------------------------------------------------------


@given(FINITE, FINITE, st.lists(FINITE, min_size=2))
def test_scale_keeps_order_and_stays_inside(low: float, high: float, values: list[float]) -> None:
    low, high = sorted((low, high))
    if not low < high or high / 2 - low / 2 == 0:
        return
    scale = Scale(low, high, 20.0, 300.0)
    pixels = [scale.at(value) for value in sorted(values)]
    assert pixels == sorted(pixels)
    assert all(20 <= pixel <= 300 for pixel in pixels)


@given(st.lists(FINITE), st.integers(1, 8))
def test_nice_range_encloses_its_values(values: list[float], count: int) -> None:
    low, high, step = nice_range(values, count)
    assert low < high
    assert step > 0
    for value in values:
        held = min(1e300, max(-1e300, value))
        assert low - step * 1e-6 <= held <= high + step * 1e-6
    assert 1 <= len(tick_values(low, high, step)) <= 51


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        ([0.33, 0.77], 5, ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]),
        ([56.9, 78.4], 5, ["55", "60", "65", "70", "75", "80"]),
        ([0, 2070], 5, ["0", "500", "1,000", "1,500", "2,000", "2,500"]),
        ([-0.2, 0.2], 4, ["−0.2", "−0.1", "0.0", "0.1", "0.2"]),
        ([5, 5], 2, ["4.5", "5.0", "5.5"]),
    ],
)
def test_ticks_are_round_numbers(values: list[float], count: int, expected: list[str]) -> None:
    low, high, step = nice_range(values, count)
    assert [tick_label(value, step) for value in tick_values(low, high, step)] == expected


@settings(max_examples=100)
@given(st.lists(FINITE, min_size=1, max_size=2_000), st.integers(4, MAX_POINTS))
def test_thin_keeps_ends_and_extremes(values: list[float], limit: int) -> None:
    kept = thin(range(len(values)), values, limit)
    assert len(kept) <= limit
    assert list(kept) == sorted(set(kept.tolist()))
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    shown = [values[i] for i in kept]
    assert max(shown) == max(values)
    assert min(shown) == min(values)


def test_trailing_means_are_means_of_what_is_known() -> None:
    values = [1.0, math.nan, 3.0, 1e30, 5.0, 7.0]
    assert trailing_means(values, [0, 1, 2], 2) == [1.0, 1.0, 3.0]
    assert trailing_means(values, [5], 2) == [6.0]  # the spike left no rounding error behind
    assert math.isnan(trailing_means([math.nan], [0], 3)[0])


@given(st.text(max_size=900), st.integers(20, 400))
def test_shortened_fits(text: str, width: int) -> None:
    assert text_width(shortened(text, width)) <= width + 1


# Lines -----------------------------------------------------------------------------------------


def test_line_chart_is_drawn_at_the_values() -> None:
    chart = line_chart(
        [Series([0, 10, 20], [0, 5, 10], low=[0, 4, 8], high=[1, 6, 10])],
        label="It rises from 0 to 10.",
        title="Level",
        x_label="step",
        x_range=(0, 40),
    )
    (curve,) = chart.curves
    (line,) = map(points, curve.lines)
    assert line[0] == (chart.left, chart.bottom)
    assert line[-1][1] == chart.top
    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.11)
    (band,) = map(points, curve.bands)
    assert len(band) == 6
    assert [tick.label for tick in chart.y_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert chart.x_ticks[0].at == chart.left
    assert (chart.x_ticks[-1].at, chart.x_ticks[-1].label) == (chart.right, "40")
    assert chart.ends[0].text == "10"
    assert chart.table.columns == ("step", "Value", "95 % interval")
    assert chart.table.rows[1] == ("10", "5", "[4, 6]")


def test_line_chart_markup_follows_the_stylesheet() -> None:
    chart = line_chart(
        [Series([1, 2, 3], [1, 2, 3], low=[0, 1, 2], high=[2, 3, 4], marks=True)],
        label='Rose, "<b>" & all',
        y_references=[Reference(3.5, "people <3.5>")],
        x_references=[Reference(2, "epoch 2")],
        heading="Heading",
        caption="The finding.",
    )
    root = drawn(chart)
    svg = root.find("svg")
    assert svg is not None
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == 'Rose, "<b>" & all'
    assert svg.get("viewBox") == "0 0 588 240"
    assert len(svg.findall("polyline[@class='line s1']")) == 1
    assert len(svg.findall("polygon[@class='band s1']")) == 1
    assert len(svg.findall("circle[@class='mark s1']")) == 3
    assert len(svg.findall("line[@class='ref']")) == 2
    assert "people <3.5>" in [text.text for text in svg.findall("text[@class='label']")]
    assert [part.text for part in root.iter("summary")] == ["Numbers"]
    assert root.findtext("figcaption/b") == "Heading"


def test_line_chart_draws_raw_values_softly_under_their_mean() -> None:
    x = list(range(1_000))
    chart = line_chart([Series(x, [value % 2 for value in x], window=100)], label="Flat.")
    (curve,) = chart.curves
    soft, line = points(curve.soft[0]), points(curve.lines[0])
    assert len(soft) <= MAX_POINTS
    assert len(line) <= MAX_POINTS
    assert max(y for _, y in soft) - min(y for _, y in soft) > 100
    late = [y for _, y in line[20:]]
    assert max(late) - min(late) < 1
    assert chart.ends[0].text == "0.500"
    assert chart.table.columns == ("x", "Value", "Mean of 100")
    assert 'class="line thin s1 soft"' in render_to_string(chart.template, {"chart": chart})


def test_line_chart_thins_a_million_points_and_says_so() -> None:
    y = np.zeros(1_000_000)
    y[123_456] = 9.0
    chart = line_chart([Series(np.arange(1_000_000), y)], label="One spike.")
    (line,) = map(points, chart.curves[0].lines)
    assert len(line) <= MAX_POINTS
    assert min(py for _, py in line) < 50  # the spike is still there
    assert "24 of 1,000,000 points." in chart.table.note


def test_line_chart_breaks_where_values_are_missing_and_counts_them() -> None:
    chart = line_chart(
        [Series([1, 2, 3, 4, 5, 6], [1, 2, math.nan, 4, math.inf, None])], label="Gaps."
    )
    (curve,) = chart.curves
    assert [len(points(line)) for line in curve.lines] == [2, 1]
    assert len(curve.marks) == 1  # a point alone would have no length
    assert chart.table.note == "3 values are missing or not finite and not drawn."
    drawn(chart)


@pytest.mark.parametrize("y", [[], [math.nan], [math.inf, -math.inf], [None]])
def test_line_chart_without_values_says_so(y: list[float | None]) -> None:
    chart = line_chart([Series(range(len(y)), y)], label="Nothing yet.")
    assert chart.empty
    assert "No values yet" in render_to_string(chart.template, {"chart": chart})
    drawn(chart)


def test_line_chart_of_one_point_marks_it() -> None:
    chart = line_chart([Series([100], [0.6])], label="One.")
    (mark,) = chart.curves[0].marks
    assert chart.left < mark.x < chart.right
    assert chart.top < mark.y < chart.bottom


def test_line_chart_keeps_end_labels_apart_and_inside() -> None:
    x = list(range(100))
    chart = line_chart(
        [Series(x, [5 + k * 0.001] * 100, name=f"model {k}", style=k) for k in range(4)],
        label="All the same.",
    )
    heights = [label.y for label in chart.ends]
    assert all(later - earlier >= 14 for earlier, later in pairwise(heights))
    assert all(label.x + text_width(label.text) <= chart.width for label in chart.ends)
    assert {label.text for label in chart.ends} == {
        f"model {k} {compact(5 + k * 0.001)}" for k in range(4)
    }


def test_line_chart_includes_its_references_in_the_range() -> None:
    chart = line_chart(
        [Series([1, 2], [60, 62])], label="x", y_references=[Reference(90, "people")]
    )
    (rule,) = chart.y_rules
    assert chart.top <= rule.at <= chart.bottom
    assert rule.label.text == "people"


def test_line_chart_keeps_reference_labels_off_each_other() -> None:
    chart = line_chart(
        [Series([0, 1], [60, 74], end="rm-7")],
        label="x",
        x_range=(0, 2),
        y_references=[Reference(78.4, "people"), Reference(78.0, "rm-6"), Reference(77.8, "rm-5")],
    )
    boxes = [rule.label.box for rule in chart.y_rules]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_line_chart_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        line_chart([Series([1, 2], [1])], label="x")
    with pytest.raises(ValueError, match="differ in length"):
        line_chart([Series([1, 2], [1, 2], low=[1], high=[2, 3])], label="x")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ANY, ANY, ANY, ANY), max_size=30),
    st.integers(0, 5),
    st.lists(ANY, max_size=2),
    st.text(max_size=30),
    st.integers(-1, 9),
)
def test_line_chart_of_any_numbers_is_finite(rows, window, references, name, style) -> None:
    x, y, low, high = zip(*rows, strict=True) if rows else ((), (), (), ())
    text = "".join(char for char in name if char.isprintable())
    chart = line_chart(
        [Series(x, y, name=text, low=low, high=high, window=window, style=style), Series(x, low)],
        label=text,
        title=text,
        x_references=[Reference(value, text) for value in references],
        y_references=[Reference(value, text) for value in references],
    )
    root = drawn(chart)
    for line in root.iter("polyline"):
        for px_, py in points(line.get("points", "")):
            assert 0 <= px_ <= chart.width
            assert chart.top <= py <= chart.bottom


# Estimates -------------------------------------------------------------------------------------


def test_dots_are_drawn_in_order_with_their_intervals() -> None:
    chart = dots_with_intervals(
        [
            Dot("v3 in use", 0.738, 0.696, 0.776),
            Dot("v4 proposed", 0.764, 0.723, 0.801, strong=True),
            Dot("length only", 0.541, 0.496, 0.586, style=0),
        ],
        label="v4 is ahead.",
        reference=Reference(0.784, "people 78.4 %"),
        unit="%",
    )
    first, second, third = chart.rows
    assert third.x < first.x < second.x < chart.reference.at
    for row in chart.rows:
        assert row.low < row.x < row.high
    assert [row.y for row in chart.rows] == [35, 61, 87]
    assert (chart.height, chart.bottom) == (126, 100)  # the size of the design for three rows
    assert second.value == "76.4"
    assert second.interval == "[72.3,\u00a080.1]"
    assert [tick.label for tick in chart.ticks] == ["50", "60", "70", "80\u00a0%"]
    widest = max(text_width(f"{row.value} {row.interval}") for row in chart.rows)
    assert chart.values_x + widest <= chart.width
    root = drawn(chart)
    assert len(root.findall("svg/circle[@class='mark s1']")) == 2
    assert len(root.findall("svg/line[@class='whisker s0']")) == 1
    assert len(root.findall("svg/text/tspan[@class='label strong']")) == 2


def test_dots_say_when_a_number_or_an_interval_is_missing() -> None:
    chart = dots_with_intervals(
        [Dot("a", 0.6), Dot("b", None, 0.1, 0.2), Dot("c", math.nan), Dot("d", 0.7, 0.6, math.inf)],
        label="x",
    )
    assert [(row.value, row.interval) for row in chart.rows] == [
        ("60.0", "no interval"),
        ("–", "no value"),
        ("–", "no value"),
        ("70.0", "no interval"),
    ]
    assert [row.x is None for row in chart.rows] == [False, True, True, False]
    assert all(row.low is None for row in chart.rows)
    drawn(chart)


def test_dots_of_nothing_say_so() -> None:
    chart = dots_with_intervals([], label="x")
    assert "Nothing to compare yet" in render_to_string(chart.template, {"chart": chart})


def test_dots_escape_and_shorten_names() -> None:
    chart = dots_with_intervals(
        [Dot("<script>" + "long " * 100, 0.5, 0.4, 0.6, count=12)], label="<x>"
    )
    html = render_to_string(chart.template, {"chart": chart})
    assert "<script>" not in html
    assert chart.rows[0].name.endswith("…")
    assert chart.rows[0].count == "12"
    drawn(chart)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=8), ANY)
def test_dots_of_any_numbers_are_finite(rows, reference) -> None:
    chart = dots_with_intervals(
        [Dot("name", *row) for row in rows], label="x", reference=Reference(reference, "people")
    )
    drawn(chart)


# Counts ----------------------------------------------------------------------------------------


def test_bars_are_as_high_as_their_counts() -> None:
    chart = bars([Bar(f"{day} Aug", day) for day in range(1, 29)], label="Rising.", title="A day")
    heights = [bar.height for bar in chart.bars]
    assert heights == sorted(heights)
    assert heights[-1] == pytest.approx(chart.bottom - 28)
    assert heights[13] == pytest.approx(heights[-1] / 2, abs=0.1)
    assert [bar.soft for bar in chart.bars] == [True] * 21 + [False] * 7
    assert [tick.label for tick in chart.x_ticks] == ["1 Aug", "8 Aug", "15 Aug", "22 Aug"]
    assert (chart.bars[0].x, chart.bars[1].x, chart.bars[0].width) == (1.5, 11.5, 7)
    root = drawn(chart)
    assert len(root.findall("svg/rect[@class='bar s1 soft']")) == 21
    assert len(root.findall("svg/rect[@class='bar s1']")) == 7


def test_bars_over_the_limit_add_up_neighbors_and_lose_no_count() -> None:
    chart = bars([Bar(f"d{n}", 1) for n in range(1_000)], label="Flat.")
    assert len(chart.bars) == 200
    assert chart.table.note.startswith("Each bar adds up 5 values.")
    assert all(row[1] == "5" for row in chart.table.rows)


@pytest.mark.parametrize("counts", [[], [0, 0], [math.nan, 3], [-4, 2], [math.inf]])
def test_bars_of_odd_counts_are_drawn(counts: list[float]) -> None:
    chart = bars([Bar(str(n), value) for n, value in enumerate(counts)], label="x")
    assert all(bar.height >= 0 for bar in chart.bars)
    drawn(chart)


def test_hbars_share_a_zero_and_print_their_values() -> None:
    chart = hbars(
        [
            HBar("v4, 28 Aug", 1206, "1,206 rows"),
            HBar("v6, if built now", 2412, style=1),
            HBar("none", 0),
            HBar("lost", math.nan),
        ],
        label="v6 would hold twice as many.",
    )
    a, b, none, lost = chart.rows
    assert b.width == pytest.approx(2 * a.width, abs=0.2)
    assert none.width == lost.width == 0
    assert (a.text, b.text, lost.text) == ("1,206 rows", "2,412", "–")
    assert a.text_x == pytest.approx(chart.left + a.width + 8, abs=0.1)
    assert all(row.text_x + text_width(row.text) <= chart.width for row in chart.rows)
    drawn(chart)


# The small interval beside a number ------------------------------------------------------------


def test_mini_interval_matches_the_design() -> None:
    mini = mini_interval(74.1, 69.9, 77.9, domain=(55, 90), reference=78.4)
    assert (mini.low, mini.span, mini.value, mini.reference) == (27.4, 14.2, 34.8, 42.5)
    html = render_to_string(mini.template, {"mini": mini})
    assert html.strip() == (
        '<svg class="mini s1" width="64" height="20" viewBox="0 0 64 20" aria-hidden="true">'
        '<line class="grid" x1="0" y1="10" x2="64" y2="10"/>'
        '<line class="ref" x1="42.5" y1="1" x2="42.5" y2="19"/>'
        '<rect x="27.4" y="6" width="14.2" height="8"/>'
        '<line class="tick" x1="34.8" y1="4" x2="34.8" y2="16"/></svg>'
    )


def test_mini_interval_draws_what_there_is_inside_its_domain() -> None:
    assert mini_interval(None, None, None, domain=(0, 1)).value is None
    held = mini_interval(2.0, -1.0, 3.0, domain=(0, 1))
    assert (held.value, held.low, held.span) == (63, 1, 62)
    assert mini_interval(0.5, 0.4, math.nan, domain=(0, 1)).low is None


@pytest.mark.parametrize("domain", [(1, 0), (1, 1), (math.nan, 1), (0, math.inf)])
def test_mini_interval_refuses_a_domain_that_is_none(domain: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="domain"):
        mini_interval(0.5, 0.4, 0.6, domain=domain)


def test_draw_tag_picks_the_template() -> None:
    chart = hbars([HBar("a", 1)], label="x")
    mini = mini_interval(0.5, 0.4, 0.6, domain=(0, 1))
    html = Template("{% draw chart %}{% draw mini %}").render(
        Context({"chart": chart, "mini": mini})
    )
    assert re.findall(r"<svg class=.mini|<figure class=.chart", html) == [
        '<figure class="chart',
        '<svg class="mini',
    ]


def test_charts_print_coordinates_with_points_in_every_language(settings) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = "de"
    chart = line_chart([Series([0, 1, 2], [0.5, 1.25, 3])], label="x", width=1_234)
    root = drawn(chart)
    assert root.find("svg").get("width") == "1234"


def test_whiskers_stand_alone_with_their_intervals() -> None:
    chart = line_chart(
        [Series([60, 80], [50, 90], low=[40, 85], high=[60, 95], style=2, whiskers=True, end="")],
        label="x",
        y_range=(40, 100),
    )
    curve = chart.curves[0]
    assert not curve.lines
    assert not curve.bands
    assert len(curve.marks) == len(curve.whiskers) == 2
    (x, low, high), mark = curve.whiskers[0], curve.marks[0]
    assert x == mark.x
    assert high < mark.y < low == chart.bottom
    root = drawn(chart)
    assert len(root.findall(".//line[@class='whisker s2']")) == 2


def test_named_ticks_stand_where_their_values_are() -> None:
    chart = line_chart(
        [Series([-2, 2], [1, 2])],
        label="x",
        x_range=(-2, 2),
        x_names=((-2.0, "quarter"), (0.0, "same"), (2.0, "four times")),
        x_format=lambda at: f"{2**at:g} times",
    )
    assert [tick.label for tick in chart.x_ticks] == ["quarter", "same", "four times"]
    assert chart.x_ticks[0].at == chart.left
    assert chart.x_ticks[1].at == pytest.approx((chart.left + chart.right) / 2, abs=0.1)
    assert chart.table.rows[0][0] == "0.25 times"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_shares_fill_the_bar_in_proportion(values: list[float]) -> None:
    total = max(sum(values), 1.0)
    chart = share_chart(
        [Share(str(n), value / total, 0.0, 1.0, count=n) for n, value in enumerate(values)],
        label="x",
    )
    drawn(chart)
    assert all(row.width >= 0 for row in chart.rows)
    last = max(row.x + row.width for row in chart.rows)
    assert last <= chart.width + 0.1
    one, two = chart.rows[0], chart.rows[-1]
    assert one.width * values[-1] == pytest.approx(two.width * values[0], abs=0.2 * total)


def test_a_share_that_is_missing_has_no_length() -> None:
    chart = share_chart([Share("gone", math.nan), Share("here", 1.0)], label="x")
    assert chart.rows[0].width == 0
    assert chart.table.rows[0][1] == "–"
