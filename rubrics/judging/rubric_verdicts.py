"""What was said of every criterion of one item, put together: the part before a decision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubrics.judging.rubric_options import RubricLine
from rubrics.judging.types import Decision, Item, Opinion, Scores
from rubrics.llm.types import Call, CallFailed, Reply, Request
from rubrics.programs.evaluate import as_shares, evaluate

# The model's own fault, asked again or not: others are the endpoint's, and a later run asks again.
SAID_NOTHING: Final = frozenset({"unreadable", "cut"})
MOST_UNREAD: Final = 0.5  # of the weight: with more than that unread there is no decision
Array = NDArray[np.float64]


class Told:
    """What is known of one item: ``values`` (answers, lines) in 0..1, NaN where nothing is."""

    def __init__(
        self, item: Item, lines: list[RubricLine], opinions: list[Opinion], programs: Array
    ) -> None:
        self.item, self.lines, self.opinions = item, lines, opinions
        self._programs = programs
        self.values, self._unread = programs.copy(), np.zeros(len(lines), dtype=bool)
        heard: dict[tuple[int, int], list[Opinion]] = {}
        for one in opinions:
            heard.setdefault((one.shown_order[0], one.repeat), []).append(one)
        for (place, at), said in heard.items():
            told = [one for one in said if not one.error]
            if 2 * len(told) <= len(said):
                self._unread[at] = True  # of all answers: they are compared by the same criteria
            given = [value for one in told for value in (_value(one, place),) if value is not None]
            self.values[place, at] = fmean(given) if given else math.nan
        self.values[:, self._unread] = math.nan

    def unread(self, weights: Array) -> Decision | None:
        """The decision that there is none, where too little could be read."""
        sizes = np.abs(weights)
        if sizes[self._unread].sum() <= MOST_UNREAD * sizes.sum():
            return None
        (error, _), *_ = Counter(one.error for one in self.opinions if one.error).most_common(1)
        return self.undecided(error, f"{self._unread.sum()} of {len(self.lines)} criteria unread")

    def undecided(self, error: str, detail: str) -> Decision:
        return Decision(None, opinions=tuple(self.opinions), error=error, detail=detail)

    def left_out(self) -> str:
        n = int(self._unread.sum())
        return f"{n} of {len(self.lines)} criteria could not be read and are left out." if n else ""

    def by_program(self) -> Scores:
        return {
            line.text: [None if math.isnan(one) else round(one, 6) for one in column]
            for line, column in zip(self.lines, self._programs.T.tolist(), strict=True)
            if line.verifier == "program"
        }


class Heard:
    """A Call that remembers the last reply's key, and why there was none."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.key: bytes | None = None
        self.detail = ""

    async def __call__(self, request: Request) -> Reply:
        try:
            reply = await self._call(request)
        except CallFailed as failed:
            self.detail = failed.detail
            raise
        self.key = reply.key
        return reply


def only(value: float, place: int, k: int) -> list[float | None]:
    """One answer's value among k."""
    given = None if math.isnan(value) else round(value, 6)
    return [given if at == place else None for at in range(k)]


def _value(opinion: Opinion, place: int) -> float | None:
    return next(iter((opinion.scores or {}).values()), [None] * (place + 1))[place]


def plain(score: float, neither: float) -> float:
    """P(yes) among yes and no; NaN where n/a is the likeliest. ``score`` counts n/a half."""
    yes = score - neither / 2
    no = 1 - yes - neither
    return math.nan if neither >= max(yes, no) else yes / (yes + no)


def failed(opinions: Sequence[Opinion]) -> Decision | None:
    """No decision where the endpoint failed at a call: what was answered is not paid for again."""
    failed = [one for one in opinions if one.error and one.error not in SAID_NOTHING]
    if not failed:
        return None
    error, _ = Counter(one.error for one in failed).most_common(1)[0]
    detail = next(one.detail for one in failed if one.error == error)
    return Decision(
        None,
        opinions=tuple(opinions),
        error=error,
        detail=f"{len(failed)} of {len(opinions)} calls failed: {detail}",
    )


def programs(item: Item, lines: Sequence[RubricLine]) -> Array:
    """What programs say, (answers, lines), NaN elsewhere and of a picture alone."""
    values = np.full((len(item.candidates), len(lines)), np.nan)
    columns = [at for at, line in enumerate(lines) if line.verifier == "program"]
    rows = [at for at, one in enumerate(item.candidates) if one.picture is None or one.text.strip()]
    if columns and rows:
        keys = [lines[at].program for at in columns]
        texts = [item.candidates[at].text for at in rows]
        found = as_shares(evaluate([item.messages] * len(rows), texts, keys), keys)
        values[np.ix_(rows, columns)] = found
    return values
