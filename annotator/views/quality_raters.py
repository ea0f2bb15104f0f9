"""The raters' table as the page shows it: cells with drawn intervals, sentences, charts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from annotator import formats
from annotator.charts import Dot, DotChart, MiniInterval, dots_with_intervals, mini_interval
from annotator.charts_heat import HeatMap, heat_map
from annotator.models import Rater

WORDS: Final = {
    "fast": "fast",
    "first": "prefers first",
    "last": "prefers last",
    "golds": "misses golds",
    "unreliable": "disagrees",
    "inconsistent": "inconsistent",
    "wide": "wide interval",
}
SENTENCES: Final = {
    "fast": "answers much faster than the others",
    "first": "prefers what is shown first",
    "last": "prefers what is shown last",
    "golds": "misses tasks with known answers",
    "unreliable": "rarely says what the others say",
    "inconsistent": "says something else when the same two come again",
}
NAMED: Final = 8  # warnings in sentences
MOST_SPEEDS: Final = 16
KNOWN: Final = 0.5  # an interval of CrowdBT wider than this says nothing
AGREES_WIDTH: Final = 88
RELIABLE_WIDTH: Final = 104


@dataclass(frozen=True)
class Cell:
    """An estimate, drawn and printed."""

    text: str
    interval: str
    mini: MiniInterval | None


@dataclass(frozen=True)
class RaterRow:
    id: int
    name: str
    tag: str
    judgments: int
    others: Cell
    reliability: Cell
    scale: Cell
    first: Cell
    ties: str
    median: str
    gold: str
    again: str
    marks: str
    is_excluded: bool
    is_paused: bool
    can_pause: bool


@dataclass(frozen=True)
class Warning:
    row: RaterRow
    text: str


@dataclass(frozen=True)
class Axis:
    low: str
    high: str
    width: int
    end: int


@dataclass(frozen=True)
class RatersPage:
    rows: list[RaterRow]
    warnings: list[Warning]
    more_warnings: int
    left_out: int  # raters beyond the table
    axes: dict[str, Axis]
    headline: dict[str, Cell]
    heat: HeatMap | None
    speed: DotChart | None
    has_scale: bool
    has_again: bool


def raters_page(found: dict[str, Any], now: dict[int, Rater]) -> RatersPage:
    """The figures of a report beside what the raters are now: paused, left out."""
    rows = sorted(
        (row for row in found["raters"] if row["id"] in now),
        key=lambda row: (
            row["kind"] == Rater.Kind.JUDGE,
            now[row["id"]].is_excluded,
            row["others"]["value"] is None,
            -(row["others"]["value"] or 0),
        ),
    )
    domains = {name: _domain(row[name] for row in rows) for name in ("others", "reliability")}
    domains["first"] = _domain((row["first"] for row in rows), around=0.5)
    typical = found["headline"]["percent"]["value"]
    shown = [_row(row, now[row["id"]], domains, typical) for row in rows]
    flagged = [
        Warning(drawn, text)
        for row, drawn in zip(rows, shown, strict=True)
        if (text := _sentence(row)) and not drawn.is_excluded
    ]
    return RatersPage(
        rows=shown,
        warnings=flagged[:NAMED],
        more_warnings=max(0, len(flagged) - NAMED),
        left_out=found["n_raters"] - len(found["raters"]),
        axes={name: _axis(name, domain) for name, domain in domains.items()},
        headline=_headline(found["headline"]),
        heat=_heat(found, [now[row["id"]] for row in rows]),
        speed=_speed(rows),
        has_scale=2 * sum(bool(one.scale.interval) for one in shown) > len(shown),
        has_again=any(row["again"]["n"] for row in rows),
    )


def _domain(
    estimates: Iterable[dict[str, Any]], *, around: float | None = None
) -> tuple[float, float]:
    """Shares from a multiple of .05 to another, so that all estimates fit."""
    ends = [one[name] for one in estimates if one["value"] is not None for name in ("low", "high")]
    ends += [around - 0.05, around + 0.05] if around is not None else []
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    steps = int(low * 20), -int(-high * 20 // 1)
    return steps[0] / 20, max(steps[1], steps[0] + 2) / 20


def _axis(name: str, domain: tuple[float, float]) -> Axis:
    if name == "reliability":
        low, high = map(formats.coefficient, domain)
        return Axis(low, high, RELIABLE_WIDTH, RELIABLE_WIDTH - 1)
    low, high = (formats.fixed(100 * end, 0) for end in domain)
    return Axis(low, f"{high}{formats.SPACE}%", AGREES_WIDTH, AGREES_WIDTH - 1)


def cell(
    one: dict[str, Any] | None,
    domain: tuple[float, float],
    *,
    width: int = AGREES_WIDTH,
    reference: float | None = None,
    digits: int = 0,
    style: int = 1,
) -> Cell:
    """A share in percent with its interval."""
    if one is None or one["value"] is None:
        return Cell(formats.MISSING, "", None)
    mini = mini_interval(
        one["value"], one["low"], one["high"], domain=domain, width=width, reference=reference,
        style=style,
    )  # fmt: skip
    text = formats.percent(one["value"], digits=digits)
    return Cell(text, formats.interval(one["low"], one["high"], digits=digits), mini)


def _row(
    row: dict[str, Any], now: Rater, domains: dict[str, tuple[float, float]], typical: float | None
) -> RaterRow:
    style = 2 if row["kind"] == Rater.Kind.JUDGE else 1
    scale = row["scale"]
    if scale is not None and scale["high"] - scale["low"] > KNOWN:
        scale = None
    gold, again = row["gold"], row["again"]
    tags = [] if row["kind"] == Rater.Kind.HUMAN else [now.get_kind_display().lower()]
    return RaterRow(
        id=row["id"],
        name=now.name,
        tag=", ".join(tags),
        judgments=row["judgments"],
        others=cell(row["others"], domains["others"], reference=typical, digits=1, style=style),
        reliability=coefficient(
            row["reliability"], domains["reliability"], width=RELIABLE_WIDTH, style=style
        ),
        scale=coefficient(scale),
        first=cell(row["first"], domains["first"], reference=0.5, style=style),
        ties=formats.percent(row["ties"]["value"], digits=0),
        median=seconds(row["median_ms"]["value"]),
        gold=f"{gold['hits']}/{gold['n']}" if gold["n"] else formats.MISSING,
        again=f"{formats.percent(again['value'], digits=0)} of {again['n']}" if again["n"] else "",
        marks=", ".join(WORDS[flag] for flag in row["flags"] if flag in WORDS),
        is_excluded=now.is_excluded,
        is_paused=now.paused_at is not None,
        can_pause=now.kind != Rater.Kind.IMPORTED,
    )


def seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return formats.MISSING
    value = milliseconds / 1000
    return f"{formats.fixed(value, 1 if value < 10 else 0)}{formats.SPACE}s"


def _sentence(row: dict[str, Any]) -> str:
    said = [SENTENCES[flag] for flag in row["flags"] if flag in SENTENCES]
    if not said:
        return ""
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _headline(found: dict[str, Any]) -> dict[str, Cell]:
    shares = {
        name: cell(found[name], (0.0, 1.0), width=72, digits=1,
                   reference=0.5 if name == "first" else None)
        for name in ("percent", "first", "gold")
    }  # fmt: skip
    return {**shares, "alpha": coefficient(found["alpha"])}


def coefficient(
    one: dict[str, Any] | None,
    domain: tuple[float, float] = (0.0, 1.0),
    *,
    width: int = 72,
    digits: int = 2,
    style: int = 1,
) -> Cell:
    """A coefficient such as .86 with its interval."""
    if one is None or one["value"] is None:
        return Cell(formats.MISSING, "", None)
    mini = mini_interval(
        one["value"], one["low"], one["high"], domain=domain, width=width, style=style
    )
    ends = [formats.coefficient(one[end], digits) for end in ("low", "high")]
    known = one["low"] is not None
    interval = f"[{ends[0]},{formats.SPACE}{ends[1]}]" if known else "no interval"
    return Cell(formats.coefficient(one["value"], digits), interval, mini)


def _heat(found: dict[str, Any], order: list[Rater]) -> HeatMap | None:
    """Who agrees with whom, in the order of the table."""
    matrix = found["matrix"]
    place = {pk: at for at, pk in enumerate(matrix["raters"])}
    raters = [one for one in order if one.pk in place]
    if len(raters) < 2:
        return None
    known = [place[one.pk] for one in raters]
    shares = [[matrix["share"][i][j] for j in known] for i in known]
    told = [share for row in shares for share in row if share is not None]
    label = "No two raters share twenty items."
    if told:
        label = (
            f"Pairs of raters agree on {formats.percent(min(told), digits=0)} to "
            f"{formats.percent(max(told), digits=0)} of the items both judged."
        )
    return heat_map(
        [one.name for one in raters],
        shares,
        label=label,
        heading="Who agrees with whom",
        caption="Percent of shared items; a tie is a verdict. A dash: fewer than 20 shared items.",
        groups=[int(one.kind == Rater.Kind.JUDGE) for one in raters],
        counts=[[matrix["shared"][i][j] for j in known] for i in known],
    )


def _speed(rows: list[dict[str, Any]]) -> DotChart | None:
    timed = [row for row in rows if row["median_ms"]["value"] is not None]
    if not timed:
        return None
    busiest = sorted(timed, key=lambda row: -row["judgments"])[:MOST_SPEEDS]
    fast = [row["name"] for row in busiest if "fast" in row["flags"]]
    finding = (
        f"{fast[0]} answers much faster than the others."
        if len(fast) == 1
        else f"{len(fast)} raters answer much faster than the others."
        if fast
        else "Nobody is much faster than the others."
    )
    return dots_with_intervals(
        [
            Dot(
                row["name"],
                row["median_ms"]["value"] / 1000,
                _scaled(row["median_ms"]["low"]),
                _scaled(row["median_ms"]["high"]),
                style=2 if "fast" in row["flags"] else 1,
            )
            for row in busiest
        ],
        label=finding,
        heading="Speed",
        caption=f"{finding} Seconds of active time: median with its 95 % interval.",
        width=560,
        scale=1.0,
        unit="s",
    )


def _scaled(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
