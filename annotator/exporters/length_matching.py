"""Length-matched sampling: chosen is the longer answer as often as rejected is, at every size of gap.

Rows are put into bins by how far the lengths of their answers are apart, half an octave wide. In
each bin of a split, of the side that has more rows so many are left out at random that both have
equally many. Which ones depends on nothing but the pair.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters import health_figures as figures
from annotator.exporters.files import Row
from annotator.exporters.recipe import SPLITS
from annotator.exporters.verdicts import Decided
from annotator.queries.pair_texts import PromptText

PER_OCTAVE: Final = 2
MASK: Final = 2**64 - 1
Mask = NDArray[np.bool_]


class LengthMatched:
    """A rule of ``exporters.rules``: 25 bytes a row. Ties, which prefer no side, all stay."""

    reason = "length_matched"

    def __init__(self) -> None:
        self._places, self._prompts = array("i"), array("q")
        self._gaps, self._splits, self._draws = array("i"), array("b"), array("Q")
        self._told: dict[str, Any] = {}

    def note(self, prompt: PromptText, one: Decided, cells: Row) -> None:
        if one.verdict.kind == "tie":
            return
        self._places.append(one.place)
        self._prompts.append(prompt.id)
        self._gaps.append(one.chosen.length - one.rejected.length)
        self._splits.append(SPLITS.index(one.pair.split))
        self._draws.append(_draw(one.pair.a_id, one.pair.b_id))

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        """Places that are left out of those not ``gone``."""
        there = ~gone[np.array(self._places, dtype=np.int64)]
        places, gaps, splits, draws, prompts = (
            np.array(one)[there]
            for one in (self._places, self._gaps, self._splits, self._draws, self._prompts)
        )
        is_out = surplus(gaps, splits, draws)
        groups = np.cumsum(np.diff(prompts, prepend=-1) != 0)
        self._told = {
            "unit": "characters",
            "bins": len(np.unique(_bins(gaps[gaps != 0]))),
            "dropped": int(is_out.sum()),
            "before": _longer(gaps, groups),
            "after": _longer(gaps[~is_out], groups[~is_out]),
        }
        return places[is_out].astype(np.int64)

    def as_dict(self) -> dict[str, Any]:
        return {"length_matching": self._told}


def surplus(
    gaps: NDArray[Any], splits: NDArray[Any], draws: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Which rows (n,) are left out, so that each bin of a split has as many of either sign."""
    out = np.zeros(len(gaps), dtype=bool)
    uneven = np.flatnonzero(gaps)
    if not uneven.size:
        return out
    is_longer = gaps[uneven] > 0
    cells = np.unique(np.stack([splits[uneven], _bins(gaps[uneven])]), axis=1, return_inverse=True)
    cell = cells[1].reshape(-1)
    n = np.stack(
        [np.bincount(cell[is_longer == side], minlength=cell.max() + 1) for side in (0, 1)]
    )
    order = np.lexsort((draws[uneven], is_longer, cell))
    run = (2 * cell + is_longer)[order]
    new = np.concatenate([[True], run[1:] != run[:-1]])
    place = np.arange(len(run)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    out[uneven[order]] = place >= n.min(axis=0)[cell[order]]
    return out


def _bins(gaps: NDArray[Any]) -> NDArray[np.int64]:
    """Half octaves of the size of the gap, which is not 0."""
    return np.floor(PER_OCTAVE * np.log2(np.abs(gaps.astype(np.float64)))).astype(np.int64)


def _longer(gaps: NDArray[Any], groups: NDArray[Any]) -> dict[str, Any]:
    """The share in which chosen is the longer, of rows whose answers differ in length."""
    uneven = gaps != 0
    return figures.share(gaps[uneven] > 0, groups[uneven])


def _draw(a: int, b: int) -> int:
    """A random number that belongs to a pair (splitmix64)."""
    mixed = (a * 0x9E3779B97F4A7C15 + b * 0xD1B54A32D192ED03) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)
