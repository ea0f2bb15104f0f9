"""Answers to one prompt in the order in which a reward model puts them, and what people said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from annotator import formats
from annotator.models import Image
from annotator.queries.reward_asks import Votes
from models import transforms
from models.transforms import LOG_ODDS, Reference

NAMES: Final = "ABCDEFGH"


@dataclass(frozen=True)
class Members:
    """Of an ensemble: the variance of each answer over ``count`` members, how their scores were
    combined, in words, and what a difference of 1 is in log-odds."""

    count: int
    variance: Sequence[float | None]
    combined: str
    unit: float


@dataclass(frozen=True)
class Row:
    """One answer. ``better`` and ``people`` compare it with the one below it."""

    place: int
    name: str
    score: str
    raw: str
    bar: int  # percent of the way from the lowest score on the page to the highest
    excerpt: str
    below: str = ""  # name of the next one
    better: str = ""
    people: str = ""
    agrees: bool | None = None
    image: Image | None = None
    spread: str = ""  # standard deviation of an ensemble's members


@dataclass(frozen=True)
class Table:
    rows: list[Row]
    finding: str
    scale: str  # what a score is measured in
    has_chances: bool
    has_people: bool
    has_images: bool
    has_members: bool
    unscored: list[str]


def table(
    texts: Sequence[str],
    raw: Sequence[float | None],
    *,
    objective: str,
    reference: Reference | None,
    ids: Sequence[int | None] = (),
    votes: Mapping[tuple[int, int], Votes] | None = None,
    images: Sequence[Image | None] = (),
    members: Members | None = None,
) -> Table:
    """Answers in order of score; equal scores keep the order in which they were given.

    ``images`` are shown in place of ``texts`` where the answers are pictures.
    """
    known = [n for n, score in enumerate(raw) if score is not None]
    order = sorted(known, key=lambda n: -(raw[n] or 0.0))
    values = np.array([raw[n] for n in order], dtype=np.float64)
    scores = transforms.standardized(values, reference) if reference else values
    span = float(values[0] - values[-1]) if len(values) > 1 else 0.0
    rows = []
    for place, n in enumerate(order):
        after = order[place + 1] if place + 1 < len(order) else None
        said = _said(ids, votes or {}, n, after)
        chance = ""
        if after is not None and objective in LOG_ODDS:
            difference = (members.unit if members else 1.0) * (values[place] - values[place + 1])
            chance = formats.percent(float(transforms.chance(difference)))
        rows.append(
            Row(
                place + 1, NAMES[n], formats.fixed(float(scores[place]), 2),
                formats.compact(float(values[place])),
                round(100 * float(values[place] - values[-1]) / span) if span else 100,
                _excerpt(texts[n]), NAMES[after] if after is not None else "", chance,
                _words(said), said.first > said.second if said and _decided(said) else None,
                images[n] if images else None,
                _spread(members, n, reference),
            )
        )  # fmt: skip
    return Table(
        rows=rows,
        finding=_finding(rows, values),
        scale=_scale(reference, members),
        has_chances=any(row.better for row in rows),
        has_people=any(row.people for row in rows),
        has_images=bool(images),
        has_members=any(row.spread for row in rows),
        unscored=[NAMES[n] for n, score in enumerate(raw) if score is None],
    )


def _said(
    ids: Sequence[int | None], votes: Mapping[tuple[int, int], Votes], n: int, after: int | None
) -> Votes | None:
    if after is None or not ids:
        return None
    one, other = ids[n], ids[after]
    return votes.get((one, other)) if one is not None and other is not None else None


def _decided(said: Votes) -> bool:
    return said.first != said.second


def _words(said: Votes | None) -> str:
    if said is None:
        return ""
    return f"{said.first:,} of {said.total:,} prefer it" + (
        f", {said.ties:,} see no difference" if said.ties else ""
    )


def _finding(rows: Sequence[Row], values: np.ndarray) -> str:
    if not rows:
        return "No answer has a score."
    if len(rows) > 1 and values[0] == values[1]:
        return "No answer comes out first: the best have the same score."
    return f"Answer {rows[0].name} comes out first"


def _spread(members: Members | None, n: int, reference: Reference | None) -> str:
    """How far members lie apart about an answer, in the unit of the score."""
    variance = members.variance[n] if members else None
    if variance is None:
        return ""
    return formats.fixed(variance**0.5 / (reference.scale if reference else 1.0), 2)


def _scale(reference: Reference | None, members: Members | None) -> str:
    what = "what the model gives"
    if members is not None:
        what = f"the mean of what its {members.count} members give"
    if reference is None:
        scale = "Raw scores: no scale has been taken from answers of the project yet."
    else:
        scale = (
            f"Scores are in standard deviations from the mean of {what}"
            f"{' to' if members else ''} {reference.n:,} answers of the project, held-out ones"
            " where there are any."
        )
    if members is None:
        return scale
    return (
        f"{scale} A score is {members.combined}, each in its own standard deviations; ± is the"
        " standard deviation of the members."
    )


def _excerpt(text: str) -> str:
    line = " ".join(text[:400].split())
    return line if len(line) <= 120 else f"{line[:119]}…"
