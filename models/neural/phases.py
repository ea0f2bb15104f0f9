"""Phases of training laid out in steps, and weights carried on beyond the last of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.errors import BadData
from models.neural.objectives import Phase
from models.neural.store import Store

KAPPAS: Final = 11  # values tried, 0 among them

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """A phase and its steps, ``first`` to before ``last``.

    rows (n,) of the training store; weight (all rows,), of mean one over ``rows``.
    """

    phase: Phase
    rows: NDArray[np.int64]
    weight: NDArray[np.float32]
    first: int
    last: int
    per_epoch: int
    epochs_before: int

    def progress(self, step: int) -> float:
        """Share of the phase that is done in the middle of an update, 0..1."""
        return (step - self.first + 0.5) / (self.last - self.first)

    def epoch(self, step: int) -> tuple[int, int]:
        """(epoch, counted from the start of training; update within it)."""
        epoch, index = divmod(step - self.first, self.per_epoch)
        return self.epochs_before + epoch, index

    def epochs_done(self, step: int) -> float:
        """Passes over the data before ``step``, all phases together."""
        return self.epochs_before + (step - self.first) / self.per_epoch


def lay_out(
    phases: list[Phase],
    store: Store,
    weight: NDArray[np.float32],
    *,
    epochs: int,
    batch_size: int,
) -> list[Plan]:
    """One plan per phase, in turn. weight (n,) of the store's rows. Raises BadData."""
    plans: list[Plan] = []
    first = epoch = 0
    for phase in phases:
        used = (weight > 0) & phase.rows(store)
        rows = np.flatnonzero(used)
        if not len(rows):
            where = "" if len(phases) == 1 else f" in the phase of {phase.name}"
            raise BadData(
                f"There is nothing to train on{where}: {len(used)} training pairs,"
                " none of them usable.",
                advice="Collect more judgments; ties and pairs of weight zero may be left out.",
            )
        per_epoch, passes = -(-len(rows) // batch_size), math.ceil(epochs * phase.epochs)
        scaled = weight / weight[used].mean(dtype=float)
        last = first + per_epoch * passes
        plans.append(Plan(phase, rows, scaled, first, last, per_epoch, epoch))
        first, epoch = last, epoch + passes
    return plans


def plan_at(plans: list[Plan], step: int) -> Plan:
    """The plan that the update after ``step`` belongs to; the last one at the end."""
    return next((plan for plan in plans if step < plan.last), plans[-1])


def kappas(most: float) -> list[float]:
    """What to multiply the last phase's change of weights by and add, from 0 up."""
    return [most * i / (KAPPAS - 1) for i in range(KAPPAS)] if most else [0.0]


def carried_on(before: Weights, after: Weights, kappa: float) -> Weights:
    """after + kappa (after - before), of every weight that is not a count.

    Source: Zheng et al. 2024, arXiv 2404.16792 (ExPO).
    """
    return {
        name: value + kappa * (value - before[name]) if value.is_floating_point() else value
        for name, value in after.items()
    }
