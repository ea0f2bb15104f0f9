"""The charts of a judge's report."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any, Final

from annotator import formats
from annotator.charts import (
    Dot,
    DotChart,
    LineChart,
    MiniInterval,
    Reference,
    Series,
    Share,
    ShareChart,
    dots_with_intervals,
    line_chart,
    mini_interval,
    share_chart,
)
from annotator.models import Battery
from annotator.queries.judge_report import (
    Agreement,
    Calibration,
    Estimate,
    Figures,
    Length,
    Measure,
    Position,
    Slice,
)
from annotator.services.battery import tries_to_prove
from models.intervals import wilson

WIDE: Final = 588
THIRD: Final = 372
STYLES: Final = {"people": 1, "this": 2, "judge": 2, "baseline": 0}
RATIOS: Final = ((-2.0, "¼"), (-1.0, "½"), (0.0, "same"), (1.0, "2×"), (2.0, "4×"))
SLICE_TITLES: Final = {
    "kind": "Kind of task",
    "split": "Split",
    "tag": "Tag",
    "generator": "Model that wrote",
    "length": "Length of one over the other",
    "strength": "How clearly people prefer",
}
MOST_SLICES: Final = 14
SHOWN_PROBES: Final = 6


@dataclass(frozen=True)
class Headline:
    """A figure of the head of the page."""

    name: str
    value: str
    mini: MiniInterval | None
    note: str


@dataclass(frozen=True)
class ReportPage:
    """Everything drawn on the page."""

    agreement: DotChart | None
    strict: DotChart | None
    position: ShareChart | None
    calibration: LineChart | None
    length: LineChart | None
    slices: list[DotChart]


def report_page(figures: Figures) -> ReportPage:
    """The charts of a report; a part that cannot be said has none."""
    found, slices = figures["agreement"], figures["slices"]
    return ReportPage(
        agreement=_agreement(found["exact"], "a tie is a verdict") if found else None,
        strict=_agreement(found["strict"], "where people prefer one") if found else None,
        position=_position(figures["position"]) if figures["position"] else None,
        calibration=_calibration(figures["calibration"]) if figures["calibration"] else None,
        length=_length(figures["length"]) if figures["length"] else None,
        slices=[
            _slices(title, slices[key])
            for key, title in SLICE_TITLES.items()
            if len(slices.get(key, [])) > 1
        ],
    )


def headlines(figures: Figures) -> list[Headline]:
    """Agreement, position, calibration: what stands above everything else."""
    return [
        _agrees(figures["agreement"]),
        _same(figures["position"]),
        _error(figures["calibration"]),
    ]


def estimate(one: Estimate | None) -> str:
    """A share with its interval, in words of the page."""
    if one is None or one["value"] is None:
        return formats.MISSING
    return f"{formats.percent(one['value'])} {formats.interval(one['low'], one['high'])}"


def _agrees(found: Agreement | None) -> Headline:
    if found is None or found["exact"]["judge"]["value"] is None:
        return Headline("Agrees with people", formats.MISSING, None, "nobody judged the same pairs")
    one, ceiling = found["exact"]["judge"], found["exact"]["ceiling"]
    top = ceiling["value"] if ceiling else None
    note = formats.interval(one["low"], one["high"])
    if top is not None:
        note += f" ceiling {formats.percent(top, unit='')}"
    return Headline("Agrees with people", formats.percent(one["value"]), _mini(one, top), note)


def _same(found: Position | None) -> Headline:
    name = "Same winner in both orders"
    if found is None or found["same"]["value"] is None:
        return Headline(name, formats.MISSING, None, "no pair was asked in both orders")
    one = found["same"]
    note = f"{formats.interval(one['low'], one['high'])} of {one['n']:,} pairs"
    return Headline(name, formats.percent(one["value"]), _mini(one), note)


def _error(found: Calibration | None) -> Headline:
    if found is None or found["ece"]["value"] is None:
        return Headline("Calibration error", formats.MISSING, None, "no confidence to compare")
    one = found["ece"]
    note = f"{formats.interval(one['low'], one['high'])} ten equal bins"
    value = f"{formats.percent(one['value'], unit='')} pts"
    return Headline("Calibration error", value, _mini(one, domain=(0.0, 0.3)), note)


def _mini(
    one: Estimate, reference: float | None = None, *, domain: tuple[float, float] = (0.4, 1.0)
) -> MiniInterval:
    return mini_interval(
        one["value"], one["low"], one["high"], domain=domain, reference=reference, style=2
    )


def _agreement(measure: Measure, counted: str) -> DotChart | None:
    rows = [row for row in measure["rows"] if row["value"] is not None]
    if not rows:
        return None
    ceiling = measure["ceiling"]
    reference = None
    if ceiling and ceiling["value"] is not None:
        text = f"ceiling {formats.percent(ceiling['value'])}"
        reference = Reference(ceiling["value"], text)
    says = gap_in_words(measure)
    return dots_with_intervals(
        [
            Dot(
                row["label"],
                row["value"],
                row["low"],
                row["high"],
                style=STYLES[row["kind"]],
                strong=row["kind"] in ("people", "this"),
            )
            for row in rows
        ],
        label=says,
        reference=reference,
        heading="Agreement, beside the human ceiling",
        caption=f"{says} Of {measure['judge']['n']:,} pairs; {counted}.",
        width=WIDE,
        unit="%",
    )


def gap_in_words(measure: Measure) -> str:
    """How far the judge is from people agreeing with people."""
    gap = measure["gap"]
    if gap is None:
        return "No pair was judged by two people, so there is no human ceiling."
    points = f"{abs(100 * gap):.1f} points {'below' if gap >= 0 else 'above'} it"
    return f"{points}; the two intervals {'overlap' if measure['overlap'] else 'do not overlap'}."


def _position(found: Position) -> ShareChart:
    parts = (
        ("same winner in both orders", found["same"], 0),
        ("first both times", found["first_both"], 2),
        ("second both times", found["second_both"], 3),
        ("a tie in one order", found["tie_once"], 1),
    )
    says = _favors(found)
    return share_chart(
        [
            Share(
                name,
                one["value"] or 0.0,
                one["low"],
                one["high"],
                count=round((one["value"] or 0.0) * one["n"]),
                style=style,
            )
            for name, one, style in parts
        ],
        label=f"The judge says the same in both orders for {estimate(found['same'])}. {says}",
        title=f"Of {found['pairs']:,} pairs judged in both orders",
        heading="Position",
        caption=says,
        width=WIDE,
    )


def _favors(found: Position) -> str:
    first, second = found["first_both"]["value"] or 0.0, found["second_both"]["value"] or 0.0
    if not first and not second:
        return "It never changed its mind with the order."
    if abs(first - second) < 0.1 * (first + second):
        return "When it flips with the order, it favors neither place."
    place, times = ("first", first / second) if first > second and second else ("", 0.0)
    if not place:
        place, times = ("second", second / first) if first and second > first else ("", 0.0)
    if not place:
        return f"When it flips, it always favors the {'first' if first else 'second'} answer."
    return f"When it flips with the order, it favors the {place} answer {times:.1f} to one."


def _calibration(found: Calibration) -> LineChart:
    bins = [one for one in found["equal_width"] if one["people"]["value"] is not None]
    return line_chart(
        [
            Series([50, 100], [50, 100], name="calibrated", style=0, end="", dotted=True),
            Series(
                [100 * one["says"] for one in bins],
                [100 * (one["people"]["value"] or 0.0) for one in bins],
                name="judge",
                low=[_points(one["people"]["low"]) for one in bins],
                high=[_points(one["people"]["high"]) for one in bins],
                style=2,
                whiskers=True,
                end="",
            ),
        ],
        label=f"{found['message']} Calibration error {estimate(found['ece'])}.",
        title="people agree, %",
        x_label="judge says, %",
        heading="Calibration",
        caption=found["message"],
        width=THIRD,
        height=300,
        x_range=(50, 100),
        y_range=(min(40.0, *(_points(one["people"]["low"]) or 40.0 for one in bins), 40.0), 100),
    )


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _length(found: Length) -> LineChart:
    # log2 of the ratio: a quarter and four times are equally far from the same length
    series = [
        _length_series(found, "people", style=1),
        _length_series(found, "judge", style=2),
    ]
    return line_chart(
        [one for one in series if one is not None],
        label=found["message"],
        title="A wins, %",
        x_label="length of A over B",
        heading="Length",
        caption=found["message"],
        width=THIRD,
        height=300,
        x_range=(-2, 2),
        x_names=RATIOS,
        x_format=lambda at: f"{2**at:.2f}×",
        y_format=lambda share: f"{share:.0f}",
    )


def _length_series(found: Length, who: str, *, style: int) -> Series | None:
    told = [(bucket["ratio"], bucket[who]) for bucket in found["curve"]]  # type: ignore[literal-required]
    known = [(ratio, one) for ratio, one in told if one is not None and one["value"] is not None]
    if not known:
        return None
    return Series(
        [log2(ratio) for ratio, _ in known],
        [_points(one["value"]) for _, one in known],
        name=who,
        low=[_points(one["low"]) for _, one in known],
        high=[_points(one["high"]) for _, one in known],
        style=style,
    )


def _slices(title: str, found: list[Slice]) -> DotChart:
    shown = found[:MOST_SLICES]
    dots = [
        Dot(one["name"], one["value"], one["low"], one["high"], style=2, count=one["n"])
        for one in shown
    ]
    known = [one for one in shown if one["value"] is not None]
    low = min(known, key=lambda one: one["value"] or 0.0, default=None)
    says = f"Lowest on {low['name']}." if low else "Nothing to compare."
    return dots_with_intervals(
        dots, label=f"{title}: {says}", heading=title, caption=says, width=THIRD, unit="%"
    )


@dataclass(frozen=True)
class ProbeRow:
    """One probe of the battery with its rate drawn."""

    label: str
    shown: str
    tries: int
    fooled: int
    unreadable: int
    rate: float | None
    interval: tuple[float, float]
    is_passed: bool
    examples: list[dict[str, Any]]
    mini: MiniInterval


@dataclass(frozen=True)
class BatteryTable:
    """The battery, those that fooled the judge first."""

    rows: list[ProbeRow]
    limit: float
    is_passed: bool
    tries: str
    note: str

    @property
    def shown(self) -> list[ProbeRow]:
        """What fooled it, and a few of the rest."""
        return self.rows[: max(self.failed, SHOWN_PROBES)]

    @property
    def hidden(self) -> list[ProbeRow]:
        return self.rows[max(self.failed, SHOWN_PROBES) :]

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def passed(self) -> int:
        return sum(row.is_passed for row in self.rows)

    @property
    def failed(self) -> int:
        return self.total - self.passed


def battery(found: Battery | None) -> BatteryTable | None:
    """The newest battery as a table."""
    if found is None:
        return None
    ends = [one["interval"][1] for one in found.probes]
    domain = (0.0, max([0.05, *ends]))
    rows = [
        ProbeRow(
            label=one["label"],
            shown=one["shown"],
            tries=one["tries"],
            fooled=one["fooled"],
            unreadable=one["unreadable"],
            rate=one["rate"],
            interval=tuple(one["interval"]),
            is_passed=one["is_passed"],
            examples=one["examples"],
            mini=mini_interval(
                one["rate"],
                *one["interval"],
                domain=domain,
                reference=found.limit,
                width=128,
                style=2,
            ),
        )
        for one in found.probes
    ]
    counts = sorted({row.tries for row in rows}) or [0]
    least, most = counts[0], counts[-1]
    return BatteryTable(
        sorted(rows, key=lambda row: (row.is_passed, -row.fooled)),
        found.limit,
        found.is_passed,
        f"{least:,}" if least == most else f"{least:,} to {most:,}",
        _proves(least, found.limit),
    )


def _proves(tries: int, limit: float) -> str:
    """What so few tries can show, where they cannot show the limit itself."""
    needed = tries_to_prove(limit)
    if tries >= needed:
        return ""
    bound = formats.percent(wilson(0, tries)[1])
    return (
        f"{tries:,} tries without one that fools it show a rate under {bound}; to show one under "
        f"{formats.percent(limit)} takes {needed:,}."
    )
