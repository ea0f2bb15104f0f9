"""Scores as verdicts: ranks with a band of ties, probabilities, strengths.

A pair's probability is σ((s_0 - s_1) / temperature), as Bradley and Terry have it; its strength is
1 below .75, 2 below .95, else 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rubrics.judging.types import Decision, Item, Opinion, Scores

STEPS: Final = (0.75, 0.95)  # of the winner's probability: much better, very much better
STRONGEST: Final = 3
UNSUPPORTED: Final = "unsupported"  # as rubrics.judging.llm has it: nothing was asked
UNFIT: Final = "unfit"
UNREADABLE: Final = "unreadable"
Order = tuple[tuple[int, ...], Sequence[float]]  # shown_order, scores in canonical order


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def refuse(why: str, error: str = UNSUPPORTED) -> Decision:
    """No decision, on purpose. ``why`` is fit for a page."""
    return Decision(None, error=error, detail=why)


def decide(
    item: Item,
    scores: Sequence[float | None],
    *,
    temperature: float,
    tie_band: float,
    orders: Sequence[Order] = (),
) -> Decision:
    """The verdict that scores (k,) give, higher being better; None is a reply without a score.

    Two replies whose probability lies within ``tie_band`` of one half tie where ties are allowed.
    ``orders``: what was said in each order of showing, where there were several. ``confidence`` is
    the best one's share of Σ exp(score / temperature), for a pair the winner's probability.
    """
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if len(known) < len(scores) or not known:
        return refuse("A reply has nothing to score: it is empty for this model.", UNREADABLE)
    band = tie_band if item.allow_tie else 0.0
    ranks = rank(item, known, temperature=temperature, band=band)
    if ranks is None:
        return refuse("Replies score exactly the same, and this task has no tie.", UNFIT)
    order = tuple(range(len(known)))
    given = orders or [(order, known)]
    opinions = tuple(
        _opinion(item, shown, values, temperature=temperature, band=band) for shown, values in given
    )
    tops = {max(order, key=lambda i: values[i]) for _, values in given}
    return Decision(
        ranks,
        strength=strength(ranks, _pair(known, temperature)),
        confidence=_share_of_best(known, temperature),
        probability=_pair(known, temperature),
        is_consistent=len(tops) == 1 if len(orders) > 1 else None,
        opinions=opinions,
    )


def rank(
    item: Item, scores: Sequence[float], *, temperature: float, band: float
) -> tuple[int, ...] | None:
    """Places from 1; None where equal scores would need a tie that there is not.

    Going down, a place holds all that lie within the band of the best one in it. Of kind
    best-worst the places are 1, 2 for all between, and 3.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    if item.kind == "best-worst":
        if scores[order[0]] == scores[order[1]] or scores[order[-1]] == scores[order[-2]]:
            return None
        return tuple({order[0]: 1, order[-1]: 3}.get(i, 2) for i in range(len(scores)))
    ranks, place, top = [0] * len(scores), 0, math.inf
    for i in order:
        if top == math.inf or sigmoid((top - scores[i]) / temperature) - 0.5 > band:
            place, top = place + 1, scores[i]
        ranks[i] = place
    return tuple(ranks) if item.allow_tie or place == len(scores) else None


def strength(ranks: Sequence[int], probability: float | None) -> int:
    """0 where all tie; of a pair by its probability; of more the largest gap in places, up to 3."""
    if max(ranks) == 1:
        return 0
    if probability is None:
        return min(max(ranks) - 1, STRONGEST)
    return 1 + sum(max(probability, 1 - probability) >= step for step in STEPS)


def decide_checklist(item: Item, told: Mapping[str, Sequence[float | None]]) -> Decision:
    """The verdict on a checklist from the probability of yes (k,) per line.

    Replies rank by the share of lines they pass: a criterion by yes, a failure by no. ``confidence``
    is the mean probability of the answers given.
    """
    flat = [p for line in told.values() for p in line]
    if not flat or any(p is None for p in flat):
        return refuse("There is no answer to every line.", UNREADABLE)
    sure = {line: [p for p in values if p is not None] for line, values in told.items()}
    ratings: dict[str, list[int | None]] = {
        line: [int(p > 0.5) for p in values] for line, values in sure.items()
    }
    k = len(item.candidates)
    passed = [
        sum(values[i] == (line not in item.failures) for line, values in ratings.items())
        for i in range(k)
    ]
    places = sorted(set(passed), reverse=True)
    ranks = tuple(places.index(count) + 1 for count in passed)
    scores: Scores = {line: [*values] for line, values in told.items()}
    return Decision(
        ranks,
        strength=min(len(places) - 1, STRONGEST),
        ratings=ratings,
        confidence=sum(max(p, 1 - p) for values in sure.values() for p in values) / len(flat),
        opinions=(Opinion(tuple(range(k)), ranks, scores=scores),),
    )


def _opinion(
    item: Item, shown: tuple[int, ...], scores: Sequence[float], *, temperature: float, band: float
) -> Opinion:
    ranks = rank(item, scores, temperature=temperature, band=band)
    return Opinion(
        shown,
        ranks,
        strength=strength(ranks, _pair(scores, temperature)) if ranks else 0,
        probability=_pair(scores, temperature),
        scores={"score": [*scores]},
        error="" if ranks else UNFIT,
    )


def _pair(scores: Sequence[float], temperature: float) -> float | None:
    return sigmoid((scores[0] - scores[1]) / temperature) if len(scores) == 2 else None


def _share_of_best(scores: Sequence[float], temperature: float) -> float:
    best = max(scores)
    return 1 / sum(math.exp((score - best) / temperature) for score in scores)
