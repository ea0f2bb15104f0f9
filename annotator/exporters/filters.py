"""Filters that drop a row by the cells beside its texts."""

from __future__ import annotations

from typing import Any, Protocol

import psycopg

from annotator.exporters.cells import beside
from annotator.exporters.ches import is_measured
from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided
from annotator.models import Project


class Filter(Protocol):
    """``fate`` is a key of REASONS, or "" where the row passes."""

    def fate(self, one: Decided, cells: Row) -> str: ...

    def as_dict(self) -> dict[str, Any]:
        """For the manifest, under a key of its own."""
        ...


class MarginBand:
    """The margin of the row's standardized rewards, signed, between two bounds."""

    def __init__(self, options: ExportOptions) -> None:
        self._least, self._most = options.least_margin, options.most_margin

    def fate(self, one: Decided, cells: Row) -> str:
        if one.verdict.kind == "tie":
            return ""
        chosen, rejected = cells["chosen_reward"], cells["rejected_reward"]
        if chosen is None or rejected is None:
            return "no_score"
        return "" if self._least <= chosen - rejected <= self._most else "filter_margin"

    def as_dict(self) -> dict[str, Any]:
        return {"filter_margin": {"least": self._least, "most": self._most}}


class AllVoters:
    """Every model that votes has scored both answers; with ``contradicts`` not all of them prefer
    the rejected one."""

    def __init__(self, options: ExportOptions) -> None:
        self._contradicts = options.drop_contradicted == "all"
        self._models = [f"rm-{number}" for number in options.filter_models]

    def fate(self, one: Decided, cells: Row) -> str:
        if one.verdict.kind == "tie":
            return ""
        margins = beside(cells, "margins")
        if any(margin is None for margin in margins):
            return "no_score"
        if self._contradicts and all(margin < 0 for margin in margins):
            return "filter_agreement"
        return ""

    def as_dict(self) -> dict[str, Any]:
        if not self._contradicts:
            return {}
        told = {"models": self._models, "rule": "every model prefers the rejected answer"}
        return {"filter_agreement": told}


class Drawn:
    """Both answers are among those that a draw by reward accepted (RSO)."""

    def __init__(self, options: ExportOptions) -> None:
        self._options = options

    def fate(self, one: Decided, cells: Row) -> str:
        is_drawn = beside(cells, "drawn")
        if is_drawn is None:
            return "no_score"
        return "" if is_drawn else "filter_drawn"

    def as_dict(self) -> dict[str, Any]:
        options = self._options
        return {
            "filter_drawn": {
                "model": f"rm-{options.reward_model}",
                "answers": options.draw_answers,
                "beta": options.draw_beta,
                "beta_in": "standard deviations of the reward",
                "seed": options.draw_seed,
            }
        }


class HasChes:
    """The language model has read both answers."""

    def fate(self, one: Decided, cells: Row) -> str:
        return "no_score" if beside(cells, "ches") is None else ""

    def as_dict(self) -> dict[str, Any]:
        return {}


def filters_of(
    project: Project, options: ExportOptions, *, connection: psycopg.Connection
) -> list[Filter]:
    """What the recipe asks for, in the order in which it is tried. Raises Invalid."""
    found: list[Filter] = []
    if options.has_band:
        found.append(MarginBand(options))
    if options.asks_models:
        found.append(AllVoters(options))
    if options.draw_answers:
        found.append(Drawn(options))
    if options.drop_ches and is_measured():  # a preview has nothing to go by
        found.append(HasChes())
    return found
