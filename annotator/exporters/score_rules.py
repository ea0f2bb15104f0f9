"""Rules that leave out a share of the rows: those that scores of models put at one end."""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters.cells import beside
from annotator.exporters.ches import is_measured
from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided
from annotator.queries.pair_texts import PromptText
from models.preference_strength import MOST_ACCURATE

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]
PLACES: Final = 6


class _Share:
    """Gathers ``width`` numbers of every candidate; ``share`` is what may go, 0 to 1."""

    reason: str
    with_ties = False

    def __init__(self, percent: float, *, width: int = 1) -> None:
        self.percent, self.width = percent, width
        self._places, self._values = array("q"), array("d")
        self._told: dict[str, Any] = {}

    def note(self, prompt: PromptText, one: Decided, cells: Row) -> None:
        if self.with_ties or one.verdict.kind != "tie":
            self._places.append(one.place)
            self._values.extend(self.values_of(cells))

    def values_of(self, cells: Row) -> list[float]:
        raise NotImplementedError

    def _left(self, gone: Mask) -> tuple[NDArray[np.int64], Values]:
        """Places (n,) that are not gone, and their numbers (n, width)."""
        places = np.frombuffer(self._places, np.int64)
        values = np.frombuffer(self._values, np.float64).reshape(-1, self.width)
        kept = ~gone[places]
        return places[kept], values[kept]

    def as_dict(self) -> dict[str, Any]:
        return {self.reason: {"percent": self.percent} | self._told}


def lowest(values: Values, percent: float) -> Mask:
    """Which of values (n,) are the lowest so many percent, (n,). Of equal ones the earlier."""
    found = np.zeros(len(values), np.bool_)
    found[np.argsort(values, kind="stable")[: int(len(values) * percent / 100)]] = True
    return found


class _Voted(_Share):
    """Gathers the margins of several models."""

    def __init__(self, options: ExportOptions, percent: float) -> None:
        super().__init__(percent, width=len(options.filter_models))
        self._models = [f"rm-{number}" for number in options.filter_models]

    def values_of(self, cells: Row) -> list[float]:
        found: list[float] = beside(cells, "margins")
        return found

    def _facts(self, margins: Values) -> dict[str, Any]:
        """Of margins (n, models): how often each agrees with the labels. Nearly always means that
        it has learned them by heart, and knows nothing of which are wrong."""
        if not len(margins):
            return {"models": self._models, "rows": 0}
        agrees = (margins > 0).mean(axis=0)
        return {
            "models": self._models,
            "rows": len(margins),
            "agrees_with_labels": [round(float(one), PLACES) for one in agrees],
            "by_heart": [
                name for name, one in zip(self._models, agrees, strict=True) if one > MOST_ACCURATE
            ],
        }


class Weakest(_Voted):
    """The lowest mean margins over several models: strength by vote (Wang et al. 2024,
    arXiv 2401.06080, Secrets of RLHF part II)."""

    reason = "filter_strength"

    def __init__(self, options: ExportOptions) -> None:
        super().__init__(options, options.drop_weakest)

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        places, margins = self._left(gone)
        mean = margins.mean(axis=1)
        out = lowest(mean, self.percent)
        self._told = self._facts(margins)
        if len(places):
            self._told |= {
                "cut_at": round(float(mean[~out].min()), PLACES),
                "below_zero": round(float((mean < 0).mean()), PLACES),
                "mean": round(float(mean.mean()), PLACES),
                "mean_sd_over_models": round(float(margins.std(axis=1).mean()), PLACES),
            }
        return places[out]


class HighestLosses(_Voted):
    """Rows among the highest losses of every model: the complement of small-loss agreement
    (collaborative reward modeling, arXiv 2505.10597). A loss falls with the margin, so those are
    the lowest margins of each."""

    reason = "filter_loss"

    def __init__(self, options: ExportOptions) -> None:
        super().__init__(options, options.drop_losses)

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        places, margins = self._left(gone)
        each = [lowest(margins[:, column], self.percent) for column in range(self.width)]
        self._told = self._facts(margins)
        return places[np.logical_and.reduce(each)]


class HighestChes(_Share):
    """The highest length-normalized CHES."""

    reason = "filter_ches"
    with_ties = True

    def __init__(self, options: ExportOptions) -> None:
        super().__init__(options.drop_ches)
        self._model = options.causal_model

    def values_of(self, cells: Row) -> list[float]:
        return [beside(cells, "ches")]

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        places, values = self._left(gone)
        out = lowest(-values[:, 0], self.percent)
        self._told = {"model": self._model, "rows": len(places)}
        if len(places):
            self._told["cut_at"] = float(values[~out].max())
        return places[out]


def score_rules(options: ExportOptions) -> list[Any]:
    """Fresh rules that the recipe asks for."""
    found: list[Any] = []
    if options.drop_weakest:
        found.append(Weakest(options))
    if options.drop_losses:
        found.append(HighestLosses(options))
    if options.drop_ches and is_measured():
        found.append(HighestChes(options))
    return found
