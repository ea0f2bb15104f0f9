"""Why a judge that checks criteria one by one prefers an answer: the criteria that tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubrics.judging.rationale import bounded, ordinal
from rubrics.judging.rubric_options import RubricLine

SHOWN: Final = 8  # criteria that are named
SURE: Final = 0.9  # a likelier yes is a yes
APART: Final = 0.005  # goods that differ by less do not tell two answers apart
Array = NDArray[np.float64]


def rationale(
    lines: Sequence[RubricLine], values: Array, goods: Array, sizes: Array, totals: Array
) -> str:
    """The totals, then the criteria by how far they pull the answers apart.

    ``values`` and ``goods`` (answers, lines), NaN where nothing is known; ``sizes`` (lines,) the
    weights' sizes; ``totals`` (answers,).
    """
    head = ", ".join(f"{ordinal(at)} answer {one:.2f}" for at, one in enumerate(totals))
    pulls = _pulls(goods, sizes)
    order = [int(at) for at in np.argsort(-pulls, kind="stable") if pulls[at] > 0]
    rows = [_row(lines[at], values[:, at], goods[:, at], pulls[at]) for at in order[:SHOWN]]
    rest = [f"{len(order) - SHOWN} more tell them apart by less."] if len(order) > SHOWN else []
    alike = int((~np.isnan(goods)).any(axis=0).sum()) - len(order)
    rest += [f"On {alike} they are alike."] if alike else []
    unknown = int(np.isnan(goods).all(axis=0).sum())
    rest += [f"{unknown} say nothing of these answers."] if unknown else []
    return bounded("\n".join([f"{head[:1].upper()}{head[1:]}.", *rows, " ".join(rest)]).strip())


def _pulls(goods: Array, sizes: Array) -> Array:
    """The widest gap that each criterion makes between two totals, (lines,), in parts of one."""
    whole = sizes[(~np.isnan(goods)).any(axis=0)].sum()
    pulls = np.zeros(goods.shape[1])
    for at, column in enumerate(goods.T):
        given = column[~np.isnan(column)]
        if len(given) > 1 and np.ptp(given) > APART:
            pulls[at] = np.ptp(given) * sizes[at] / whole
    return pulls


def _row(line: RubricLine, values: Array, goods: Array, pull: float) -> str:
    best = int(np.nanargmax(goods))
    against = "against an answer: " if line.sign < 0 else ""
    said = ", ".join(_word(float(one)) for one in values)
    return f"{against}“{line.text}”: {said} → {ordinal(best)} answer +{pull:.2f}"


def _word(value: float) -> str:
    if math.isnan(value):
        return "does not apply"
    if value >= SURE:
        return "yes"
    return "no" if value <= 1 - SURE else f"{value:.2f}"
