"""The charts of reward models: drawn intervals in the list, baselines on a model's page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from annotator import formats
from annotator.charts import (
    Dot,
    DotChart,
    MiniInterval,
    Reference,
    dots_with_intervals,
    mini_interval,
)
from annotator.queries.evaluations import Headline
from annotator.queries.rewards import Detail, Estimate, Listing, Measured, Row

MINI_WIDTH: Final = 128
CHANCE: Final = 0.5
STEP: Final = 0.05  # the drawn axis begins and ends on a multiple of this
LEAST_END: Final = 0.85
WIDTH: Final = 588


@dataclass(frozen=True)
class Drawn:
    """A row of the list with its accuracy and its baseline drawn on the page's axis."""

    row: Row
    accuracy: MiniInterval | None
    longer: MiniInterval | None
    evaluated: Headline | None = None


@dataclass(frozen=True)
class Table:
    """``axis`` are the shares at the ends of every drawn interval, in percent."""

    axis: tuple[str, str]
    rows: list[Drawn]


def table(found: Listing, evaluated: Mapping[int, Headline]) -> Table:
    """``evaluated``: the newest evaluation by number of model."""
    rows = found.page.rows
    domain = domain_of(one for row in rows for one in row.measured.known)
    drawn = [
        Drawn(
            row,
            mini(row.measured.accuracy, row.measured, domain=domain),
            mini(row.measured.longer, row.measured, domain=domain, style=0),
            evaluated.get(row.number),
        )
        for row in rows
    ]
    low, high = domain
    return Table((f"{100 * low:.0f}", f"{100 * high:.0f}"), drawn)


def domain_of(estimates: Iterable[Estimate]) -> tuple[float, float]:
    """An axis that holds all intervals, and chance; ends on multiples of ``STEP``."""
    known = list(estimates)
    low = min([CHANCE, *(one.low for one in known)])
    high = max([LEAST_END, *(one.high for one in known)])
    return math.floor(low / STEP + 1e-9) * STEP, math.ceil(high / STEP - 1e-9) * STEP


def mini(
    one: Estimate | None, beside: Measured, *, domain: tuple[float, float], style: int = 1
) -> MiniInterval | None:
    """One estimate on the axis with people's agreement as the dotted line."""
    if one is None:
        return None
    people = beside.people.share if beside.people else None
    return mini_interval(
        one.share, one.low, one.high, domain=domain, reference=people, width=MINI_WIDTH, style=style
    )


def baselines(detail: Detail) -> DotChart:
    """The model, "longer wins" and people on the same test pairs."""
    found = detail.measured
    dots = [
        _dot(detail.model.name, found.accuracy, strong=True),
        _dot("Longer answer wins", found.longer, style=0),
        _dot("People with people", found.people, style=3),
    ]
    reference = None
    if found.people is not None:
        text = f"people with people {formats.percent(found.people.share, unit='')}"
        reference = Reference(found.people.share, text)
    return dots_with_intervals(
        [dot for dot in dots if dot.value is not None],
        label=finding(detail.model.name, found),
        reference=reference,
        heading="Accuracy on the test split",
        caption=f"{finding(detail.model.name, found)} The number beside each name is what was counted.",
        width=WIDTH,
        unit="%",
    )


def finding(name: str, found: Measured) -> str:
    """What the comparison says, as far as the intervals let it be said."""
    if found.accuracy is None:
        return f"{name} has no test pair with a preference."
    says = f"{name} is right on {formats.percent(found.accuracy.share)} of test pairs"
    if found.longer is None:
        return f"{says}."
    if found.accuracy.low > found.longer.high:
        return f"{says}, clearly more than the longer answer."
    if found.accuracy.high < found.longer.low:
        return f"{says}, clearly less than the longer answer."
    return f"{says}; its interval overlaps that of the longer answer."


def _dot(name: str, one: Estimate | None, *, style: int = 1, strong: bool = False) -> Dot:
    if one is None:
        return Dot(name, None)
    return Dot(name, one.share, one.low, one.high, style=style, strong=strong, count=one.n)
