"""Decisions out of answers that were judged one by one: scores, ratings, checklists."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from rubrics.judging.combine import MAX_STRENGTH, places, readable, widest
from rubrics.judging.rationale import joined
from rubrics.judging.schemas import SCORE_HIGH, SCORE_LOW
from rubrics.judging.types import Decision, Item, Opinion

SCORE: Final = "score"
Means = dict[str, list[float | None]]


def of_scores(item: Item, opinions: Sequence[Opinion], *, tie_band: float) -> Decision:
    """Pointwise: candidates by their mean score.

    A gap of the whole scale is a probability of 1, none is one half, linear between: the judge's
    own measure, and what the tie band is of. Strength of two: 1 to 3 by thirds of the scale.
    """
    span = SCORE_HIGH - SCORE_LOW
    means, failed = _means(opinions, len(item.candidates))
    if failed:
        return failed
    scores = [value for value in means[SCORE] if value is not None]
    ranks = places(scores, band=2 * tie_band * span if item.allow_tie else 0.0)
    strength = widest(ranks)
    if len(ranks) == 2 and strength:
        strength = min(1 + int(3 * abs(scores[0] - scores[1]) / span), MAX_STRENGTH)
    return _decision(opinions, ranks, scores, span=span, strength=strength)


def of_ratings(item: Item, opinions: Sequence[Opinion]) -> Decision:
    """Ratings, the mean of all opinions as a whole number; the first attribute gives the places."""
    means, failed = _means(opinions, len(item.candidates))
    if failed:
        return failed
    ratings = {
        name: [None if value is None else math.floor(value + 0.5) for value in means[name]]
        for name in item.attributes
    }
    first = item.attributes[0]
    whole = [value for value in ratings[first] if value is not None]
    ranks = places(whole, band=0.0)
    raw = [value for value in means[first] if value is not None]
    gap = min(max(whole) - min(whole), MAX_STRENGTH)
    span = item.high - item.low
    return _decision(opinions, ranks, raw, span=span, strength=gap, ratings=ratings)


def of_checks(item: Item, opinions: Sequence[Opinion], lines: Sequence[str]) -> Decision:
    """Per line a yes where more than half of those say yes that say it applies, else a no.

    Candidates by the share of lines they pass, of those that apply; a fault is passed by a no.
    """
    means, failed = _means(opinions, len(item.candidates), applying=True)
    if failed:
        return failed
    checks = {
        line: [None if value is None else int(value > 0.5) for value in means[line]]
        for line in lines
    }
    return of_checked(item, opinions, checks)


def of_checked(
    item: Item, opinions: Sequence[Opinion], checks: dict[str, list[int | None]]
) -> Decision:
    """The decision of a checklist that is filled in: line to 1, 0 or None per candidate."""
    faults = set(item.failures)
    shares: list[float | None] = []
    for at in range(len(item.candidates)):
        passed = [
            value == (0 if line in faults else 1)
            for line, values in checks.items()
            if (value := values[at]) is not None
        ]
        shares.append(fmean(passed) if passed else None)
    known = [share for share in shares if share is not None]
    told = iter(places(known, band=0.0))
    ranks = tuple(0 if share is None else next(told) for share in shares)
    strength = widest([rank for rank in ranks if rank] or [0])
    return _decision(opinions, ranks, known, span=1, strength=strength, ratings=checks)


def _means(
    opinions: Sequence[Opinion], k: int, *, applying: bool = False
) -> tuple[Means, Decision | None]:
    """Mean per name and candidate over repeats, then models; or the decision that there is none.

    ``applying``: a value is None where at least half of the opinions have none; else it is None
    only where all have.
    """
    members, error, detail = readable(opinions, by_order=True)
    if error:
        return {}, Decision(None, opinions=tuple(opinions), error=error, detail=detail)
    heard: dict[str, list[list[list[float | None]]]] = defaultdict(lambda: [[] for _ in range(k)])
    for orders in members:
        for said in orders:
            at = said[0].shown_order[0]
            names = (said[0].scores or {}).keys()
            for name in names:
                heard[name][at].append([(one.scores or {})[name][at] for one in said])
    return {
        name: [_mean(of_one, applying=applying) for of_one in by_candidate]
        for name, by_candidate in heard.items()
    }, None


def _mean(by_model: list[list[float | None]], *, applying: bool) -> float | None:
    everything = [value for said in by_model for value in said]
    told = [[value for value in said if value is not None] for said in by_model]
    count = sum(map(len, told))
    if not count or (applying and 2 * count <= len(everything)):
        return None
    return fmean(fmean(said) for said in told if said)


def _decision(
    opinions: Sequence[Opinion],
    ranks: tuple[int, ...],
    values: Sequence[float],
    *,
    span: float,
    strength: int,
    ratings: dict[str, list[int | None]] | None = None,
) -> Decision:
    """``values`` of the ranked candidates; their gap over ``span`` is how sure the judge is."""
    ordered = sorted(values, reverse=True)
    probability = 0.5 + (values[0] - values[1]) / (2 * span) if len(values) == 2 else None
    is_pair = len(ranks) == 2
    return Decision(
        ranks,
        strength=strength,
        ratings=ratings,
        rationale=joined(_reasons(opinions, len(ranks))),
        confidence=0.5 + (ordered[0] - fmean(ordered[1:])) / (2 * span) if ordered[1:] else None,
        probability=probability if is_pair else None,
        opinions=tuple(opinions),
    )


def _reasons(opinions: Sequence[Opinion], k: int) -> list[str]:
    """The first reasons given for each candidate."""
    return [
        next((one.reasoning for one in opinions if one.shown_order == (at,) and one.reasoning), "")
        for at in range(k)
    ]
