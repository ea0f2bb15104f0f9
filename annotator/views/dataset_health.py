"""What the rows of a dataset look like, drawn: checks with their figures, and three charts.

Read from a manifest's health, or from that of a build without files. What an older version did
not measure is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from annotator import formats
from annotator.charts import (
    Dot,
    DotChart,
    HBar,
    HBarChart,
    LineChart,
    MiniInterval,
    Series,
    dots_with_intervals,
    hbars,
    line_chart,
    mini_interval,
)

Json = dict[str, Any]

WIDTH: Final = 360
MINI_DOMAIN: Final = (0.2, 0.8)
STRENGTHS: Final = {"1": "slight, 1", "2": "clear, 2", "3": "strong, 3"}
NOISE_FROM: Final = 0.1  # of labels wrong: worth a warning
MOST_GENERATORS: Final = 8


@dataclass(frozen=True)
class Check:
    """One line: how it is marked ("done", "warn" or ""), what it says, and what stands under it."""

    state: str
    text: str
    note: str = ""
    mini: MiniInterval | None = None
    how: str = ""  # at length, opened on request


@dataclass(frozen=True)
class Drawn:
    """What stands beside a recipe or a version."""

    checks: list[Check]
    lengths: LineChart | None
    strengths: HBarChart | None
    generators: DotChart | None


def of_rows(health: Json, *, noun: str = "rows") -> Drawn:
    """Facts of rows alone: what a recipe that is being filled in can show.

    ``noun``: what the figures count, "pairs" where a row holds several or parts of them.
    """
    return Drawn(
        checks=list(_row_checks(health, noun)),
        lengths=_lengths(health.get("lengths")),
        strengths=_strengths(health.get("rows_by_strength")),
        generators=_generators(health.get("generators")),
    )


def of_version(facts: Json, *, noun: str = "rows") -> Drawn:
    """Everything a manifest tells; ``facts`` is the manifest of a format of pairs."""
    health = facts["health"]
    checks = [*_promises(facts), *_row_checks(health, noun), *_vote_checks(health)]
    drawn = of_rows(health)
    return Drawn(checks, drawn.lengths, drawn.strengths, drawn.generators)


def _promises(facts: Json) -> Iterator[Check]:
    for one in facts.get("checked", []):
        if one["ok"]:
            of = "" if one["rows"] == one["of"] else f" of {one['of']:,}"
            yield Check("done", _capital(one["what"]), f"{one['rows']:,}{of} rows, {one['with']}")
        else:
            yield Check("", _capital(one["what"]), one["note"])
    if not facts.get("checked"):
        yield Check("done", "Every file read back from the disk")
    splits = facts["health"].get("splits")
    yield Check("done", "No prompt in two files")
    if splits and splits["compared"]:
        moved = sum(one["prompts"] for one in splits["earlier"])
        versions = ", ".join(f"v{one['version']}" for one in splits["earlier"])
        if moved:
            yield Check("warn", f"{moved:,} prompts stood in another split of {versions}")
        else:
            text = f"No prompt changed its split since {splits['compared']:,} earlier versions"
            yield Check("done", text.replace("1 earlier versions", "1 earlier version"))
    yield Check("done", "Every pair is a row or counted with its reason")


def _row_checks(health: Json, noun: str) -> Iterator[Check]:
    if (longer := health.get("chosen_longer")) is not None and not _is_even(health):
        yield Check(
            _state(longer),
            f"Chosen is longer in {formats.percent(longer['share'])} of {noun}",
            formats.interval(*longer["interval"]),
            _mini(longer),
        )
    if (gap := (health.get("lengths") or {}).get("gap")) and not _is_even(health):
        longer_or = "longer" if gap["mean"] >= 0 else "shorter"
        span = formats.interval(*gap["interval"], digits=0, scale=1) if gap["interval"] else ""
        yield Check(
            "",
            f"Chosen is {longer_or} by {abs(gap['mean']):,.0f} characters on average",
            f"{span} {gap['rows']:,} {noun}".strip(),
        )
    if (over := health.get("prompts_over")) and over["prompts"]:
        yield Check(
            "warn",
            f"{_prompts(over['prompts'])} more than {over['limit']} {noun} each",
            f"one gives {health['most_rows_of_one_prompt']:,}; the recipe can cap them",
        )
    if health.get("empty_chosen") or health.get("empty_rejected"):
        note = f"{health['empty_chosen']:,} chosen, {health['empty_rejected']:,} rejected"
        yield Check("warn", "Answers without text", f"{note}; the recipe can leave them out")
    if (leaks := health.get("leaks")) and leaks["rows"]:
        yield Check(
            "warn",
            f"An answer names its model in {leaks['rows']:,} {noun}",
            f"{formats.percent(leaks['share'])} {formats.interval(*leaks['interval'])}",
        )
    if (copies := health.get("duplicates")) and (copies["repeats"] or copies["elsewhere"]):
        yield Check(
            "warn",
            f"{copies['repeats'] + copies['elsewhere']:,} {noun} repeat answers",
            f"{copies['repeats']:,} of the same prompt, {copies['elsewhere']:,} of another",
        )


def _vote_checks(health: Json) -> Iterator[Check]:
    if sides := health.get("shown_first_wins"):
        share = formats.percent(sides["share"])
        text = f"The answer shown first won {share} of {sides['votes']:,} votes"
        yield Check(_state(sides), text, formats.interval(*sides["interval"]), _mini(sides))
    if noise := health.get("noise"):
        yield _noise(noise)
    if agreement := health.get("agreement"):
        yield _agreement(agreement["rows"])
    if (skips := health.get("skips")) and skips["skips"]:
        yield Check(
            "", f"{skips['skips']:,} skips on {skips['tasks']:,} tasks", "no row counts them"
        )


def _noise(noise: Json) -> Check:
    if noise["value"] is None:
        return Check("", "How many labels are wrong cannot be told", noise["reason"])
    bad = noise["interval"] is not None and noise["interval"][0] > NOISE_FROM
    span = formats.interval(*noise["interval"]) if noise["interval"] else ""
    return Check(
        "warn" if bad else "",
        f"About {formats.percent(noise['value'])} of labels are wrong",
        f"{span} from {noise['n']:,} {noise['unit']}".strip(),
        how=noise["how"],
    )


def _agreement(found: Json) -> Check:
    alpha, percent = found["alpha"], found["percent"]
    if alpha is None or alpha["value"] is None:
        return Check("", "Agreement cannot be told", found["reason"])
    low, high = alpha["interval"] or (None, None)
    span = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
    agree = ""
    if percent is not None and percent["value"] is not None:
        agree = f"; two votes agree in {formats.percent(percent['value'])}"
    return Check(
        "",
        f"Krippendorff’s alpha {alpha['value']:.2f}{span}",
        f"{found['pairs']:,} pairs with two votes or more{agree}",
    )


def _prompts(count: int) -> str:
    return f"{count:,} prompts give" if count != 1 else "One prompt gives"


def _is_even(health: Json) -> bool:
    """Whether all answers are of one length, as pictures are."""
    longer = health["chosen_longer"]
    return bool(longer["rows"] == longer.get("equal"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _mini(share: Json) -> MiniInterval:
    low, high = share["interval"]
    return mini_interval(
        share["share"], low, high, domain=MINI_DOMAIN, reference=0.5, width=112, style=2
    )


def _state(share: Json) -> str:
    """A warning where the interval leaves out one half."""
    low, high = share["interval"]
    return "done" if low <= 0.5 <= high else "warn"


def _strengths(rows: dict[str, int] | None) -> HBarChart | None:
    rows = {key: count for key, count in (rows or {}).items() if key in STRENGTHS}
    if not rows:
        return None
    bars = [HBar(STRENGTHS[key], rows[key], style=1) for key in sorted(rows)]
    said = ", ".join(f"{bar.value:,} {bar.name.partition(',')[0]}" for bar in bars)
    return hbars(
        bars,
        label=f"Rows by strength of preference: {said}.",
        heading="Strength of preference",
        caption="Mean of the winner’s votes.",
        width=WIDTH,
    )


def _lengths(found: Json | None) -> LineChart | None:
    if not found or sum(found["chosen"]) == 0 or found["edges"][-1] <= 1:
        return None
    edges, median = found["edges"], found["median"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    names = ("chosen", "rejected")
    series = [
        Series(middles, [float(n) for n in found[name]], name=name, style=style, end=name)
        for style, name in enumerate(names, 1)
    ]
    said = f"median {median['chosen']:,} {found['unit']} chosen, {median['rejected']:,} rejected"
    return line_chart(
        series,
        label=f"Rows by length of the answer: {said}.",
        heading="Length of the answers",
        title=f"rows by {found['unit']}",
        caption=f"{_capital(said)}; the last point holds all longer ones.",
        width=WIDTH,
        height=168,
        y_range=(0, max(*found["chosen"], *found["rejected"], 1)),
    )


def _generators(found: Json | None) -> DotChart | None:
    if not found or len(found["list"]) < 2:
        return None
    dots = [
        Dot(one["generator"] or "not named", one["share"], *one["interval"], count=one["rows"])
        for one in found["list"][:MOST_GENERATORS]
    ]
    best = max(found["list"], key=lambda one: one["share"])
    return dots_with_intervals(
        dots,
        label=f"Share of rows won by generator; {best['generator']} wins most.",
        heading="Who wins",
        caption="Share of its rows in which a generator’s answer is chosen.",
        width=WIDTH,
    )
