"""A judge that is code: the weighted share of criteria that hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubrics.judging.types import Decision, Item, Opinion, Scores
from rubrics.programs import PROGRAMS, find_criterion
from rubrics.programs.evaluate import as_shares, evaluate
from rubrics.programs.options import ProgramOptions

STEEPNESS: Final = 6.0  # a gap of one third of all criteria is a probability of .88
SHOWN: Final = 6  # criteria that a rationale names
SAYS_YES: Final = 0.5  # a share from here on is a yes
CLEAR: Final = 0.25  # gap in score of strength 2
VERY_CLEAR: Final = 0.5  # of strength 3
UNSUPPORTED: Final = "unsupported"  # as judges that ask and local ones call it


class ProgramJudge:
    """Scores every response by itself and ranks by score.

    Of each criterion the share that holds counts (one minus it where it should not hold), by its
    weight; criteria that do not apply to a response are left out of its sum. A ScoringJudge.
    """

    def __init__(self, options: ProgramOptions) -> None:
        self._options = options
        self._keys = [one.removeprefix("-") for one in options.criteria]
        self._should = np.array([not one.startswith("-") for one in options.criteria])
        self._weights = np.array(options.weights or [1.0] * len(self._keys))

    def judge(self, items: Sequence[Item]) -> list[Decision]:
        """One decision per item, in order."""
        return [self._judge(item) for item in items]

    def _judge(self, item: Item) -> Decision:
        if any(one.picture is not None and not one.text.strip() for one in item.candidates):
            return _unsupported(item, "Programs read text, and an answer is a picture alone.")
        if item.kind == "checklist":
            return self._check(item, item.criteria, item.failures)
        if item.kind == "rating":
            return self._rate(item)
        values = self._values(item, self._keys)
        goods = np.where(self._should, values, 1 - values)
        scores = _weighted(goods, self._weights)
        if np.isnan(scores).all():
            return _unsupported(item, "None of the criteria applies to these answers.")
        return self._decision(item, np.nan_to_num(scores), self._why(goods), values)

    def _values(self, item: Item, keys: Sequence[str]) -> NDArray[np.float64]:
        """Shares, shape (candidates, keys)."""
        texts = [one.text for one in item.candidates]
        return as_shares(evaluate([item.messages] * len(texts), texts, keys), keys)

    def _decision(
        self,
        item: Item,
        scores: NDArray[np.float64],
        rationale: str,
        values: NDArray[np.float64] | None = None,
        *,
        ratings: dict[str, list[int | None]] | None = None,
    ) -> Decision:
        ranks = ranked(scores, band=self._options.tie_band)
        best = sorted(scores.tolist(), reverse=True)
        gap = best[0] - best[1] if len(best) > 1 else 0.0
        probability = None
        if len(best) == 2:
            probability = sigmoid(STEEPNESS * float(scores[0] - scores[1]))
        said: Scores = {"score": [round(float(score), 6) for score in scores]}
        if values is not None:
            said |= {
                key: [None if math.isnan(one) else round(float(one), 6) for one in column]
                for key, column in zip(self._keys, values.T, strict=True)
            }
        opinion = Opinion(
            shown_order=tuple(range(len(ranks))),
            ranks=ranks,
            strength=_strength(ranks, scores),
            probability=probability,
            scores=said,
        )
        return Decision(
            ranks=ranks,
            strength=opinion.strength,
            ratings=ratings,
            rationale=rationale,
            confidence=sigmoid(STEEPNESS * gap),
            probability=probability,
            opinions=(opinion,),
        )

    def _why(self, goods: NDArray[np.float64]) -> str:
        """Which criteria decided, the widest apart first."""
        applies = ~np.isnan(goods)
        high, low = np.full(goods.shape[1], np.nan), np.full(goods.shape[1], np.nan)
        for at in np.flatnonzero(applies.any(axis=0)):
            given = goods[applies[:, at], at]
            high[at], low[at] = given.max(), given.min()
        apart = np.nan_to_num((high - low) * self._weights)
        # One that applies to some of the answers only moves their scores too.
        partly = applies.any(axis=0) & ~applies.all(axis=0)
        order = [int(at) for at in np.argsort(-apart, kind="stable") if apart[at] > 0]
        parts = [self._difference(at, goods[:, at]) for at in order[:SHOWN]]
        parts += [f"{len(order) - SHOWN} more differ"] if len(order) > SHOWN else []
        same = int((applies.all(axis=0) & (apart == 0)).sum())
        none = int((~applies.any(axis=0)).sum())
        parts += [f"{same} criteria are equal"] if same else []
        only = int((partly & (apart == 0)).sum())
        parts += [f"{only} apply to some answers only"] if only else []
        parts += [f"{none} do not apply"] if none else []
        return "; ".join(parts) + "."

    def _difference(self, at: int, goods: NDArray[np.float64]) -> str:
        name = PROGRAMS[self._keys[at]].label
        label = f"“{name}”" if self._should[at] else f"not “{name}”"
        given = ", ".join(
            f"answer {place} {'–' if math.isnan(one) else f'{one:.2g}'}"
            for place, one in enumerate(goods, start=1)
        )
        return f"{label}: {given}"

    def _check(self, item: Item, criteria: Sequence[str], failures: Sequence[str]) -> Decision:
        """A checklist: lines that are a program's key or label are answered, others are not."""
        lines = [*criteria, *failures]
        known = {line: found for line in lines if (found := find_criterion(line))}
        if not known:
            return _unsupported(item, "No line of the checklist is the key or label of a program.")
        keys = [key for key, _ in known.values()]
        values = self._values(item, keys)
        ratings: dict[str, list[int | None]] = {
            line: [None] * len(item.candidates) for line in lines
        }
        goods = np.full((len(item.candidates), len(known)), np.nan)
        for at, (line, (_, should)) in enumerate(known.items()):
            for place, share in enumerate(values[:, at].tolist()):
                if not math.isnan(share):
                    holds = (share >= SAYS_YES) == should
                    ratings[line][place] = int(holds)
                    goods[place, at] = holds != (line in failures)
        scores = _weighted(goods, np.ones(len(known)))
        if np.isnan(scores).all():
            return _unsupported(item, "None of the checklist's programs applies to these answers.")
        why = f"{len(known)} of {len(lines)} lines are programs."
        return self._decision(item, np.nan_to_num(scores), why, ratings=ratings)

    def _rate(self, item: Item) -> Decision:
        """A rating: attributes that are a program's key or label, on the task's scale."""
        known = {line: found for line in item.attributes if (found := find_criterion(line))}
        if not known:
            return _unsupported(item, "No attribute is the key or label of a program.")
        values = self._values(item, [key for key, _ in known.values()])
        should = np.array([one for _, one in known.values()])
        goods = np.where(should, values, 1 - values)
        if np.isnan(goods).all():
            return _unsupported(item, "None of the attributes' programs applies to these answers.")
        ratings: dict[str, list[int | None]] = {
            line: [None] * len(item.candidates) for line in item.attributes
        }
        for at, line in enumerate(known):
            ratings[line] = [
                None if math.isnan(one) else round(item.low + one * (item.high - item.low))
                for one in goods[:, at].tolist()
            ]
        scores = np.nan_to_num(_weighted(goods, np.ones(len(known))))
        why = f"{len(known)} of {len(item.attributes)} attributes are programs."
        return self._decision(item, scores, why, ratings=ratings)


def _weighted(goods: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of what applies, by weight; NaN for a row where nothing does."""
    applies = ~np.isnan(goods)
    total = (applies * weights).sum(axis=1)
    held = np.where(applies, goods, 0.0) @ weights
    found: NDArray[np.float64] = np.divide(
        held, total, out=np.full(len(goods), np.nan), where=total > 0
    )
    return found


def ranked(scores: NDArray[np.float64], *, band: float) -> tuple[int, ...]:
    """Places from 1, best first; within ``band`` of the best of a place is the same place."""
    ranks = [0] * len(scores)
    place, top = 0, math.inf
    for at in np.argsort(-scores, kind="stable").tolist():
        score = float(scores[at])
        if top - score > band:
            place, top = place + 1, score
        ranks[at] = place
    return tuple(ranks)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _strength(ranks: tuple[int, ...], scores: NDArray[np.float64]) -> int:
    if max(ranks) == 1:
        return 0
    gap = float(scores.max() - scores.min())
    return 3 if gap >= VERY_CLEAR else 2 if gap >= CLEAR else 1


def _unsupported(item: Item, detail: str) -> Decision:
    order = tuple(range(len(item.candidates)))
    opinion = Opinion(shown_order=order, ranks=None, error=UNSUPPORTED, detail=detail)
    return Decision(ranks=None, error=UNSUPPORTED, detail=detail, opinions=(opinion,))
