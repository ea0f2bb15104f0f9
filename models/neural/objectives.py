"""Objectives: what a reward model's outputs mean, and the loss that teaches them.

A backbone gives d numbers for every sequence; an objective says how many it wants, what they cost
on a batch, what they make of a pair and which one number stands for a response. Everything here
is fp32. The training loop weighs the losses of the rows and averages them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.neural.store import Store
from models.objectives import (
    BradleyTerryOptions,
    MarginOptions,
    RobustOptions,
    ScaledOptions,
)


@dataclass(frozen=True)
class Batch:
    """What is known about b rows with S sequences in all."""

    sizes: Tensor  # (b,) sequences of each row; 2 where rows are pairs
    p: Tensor  # (b,) probability that the first is better
    strength: Tensor  # (b,) 0..3
    ranks: Tensor  # (S,) from 1 within a row
    ratings: Tensor  # (S, a), NaN where not rated
    scale: float | None = None  # mean strength, of at least 1, of the whole update


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own loss, rows and optimizer; most objectives have one.

    ``loss`` gives (b,) of outputs (S, d); ``rows`` says which rows (n,) of a store it can use.
    ``epochs`` and ``rate`` are shares of the backbone's epochs and learning rate.
    """

    name: str
    loss: Callable[[Tensor, Batch], Tensor]
    rows: Callable[[Store], NDArray[np.bool_]]
    epochs: float = 1.0
    rate: float = 1.0


class Objective:
    """One number per response, compared by difference. Others say what differs."""

    reads: ClassVar[Literal["pairs", "lists"]] = "pairs"
    rated: ClassVar[bool] = False  # whether it learns from ratings of attributes
    outputs = 1
    references = 0  # responses of the training data that ``refer`` is shown after training
    extrapolation = 0.0  # how far the last phase may be carried on (phases.kappas)

    def __init__(self, options: Any, *, attributes: Sequence[str] = ()) -> None:
        self.options, self.attributes = options, tuple(attributes)

    def phases(self) -> list[Phase]:
        return [Phase("train", self.loss, self.usable)]

    def usable(self, store: Store) -> NDArray[np.bool_]:
        """Which rows (n,) there is something to learn from."""
        ties: NDArray[np.bool_] = store.columns["p"] == 0.5
        return ~ties if self.options.ties == "drop" else np.ones_like(ties)

    def begin(self, module: nn.Module, ratings: NDArray[np.float32]) -> None:
        """Before the first update: the new model, and the training data's ratings (m, a)."""

    def refer(self, outputs: Tensor) -> None:
        """After the last update: outputs (r, d) of some responses of the training data."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss (b,) of every row; outputs (S, d) fp32, the sequences of a row in turn."""
        raise NotImplementedError

    def scores(self, outputs: Tensor) -> Tensor:
        """One number (m,) for each response; outputs (m, d)."""
        return outputs[:, 0]

    def margins(self, outputs: Tensor) -> Tensor:
        """Log-odds (n,) that the first of each pair is better; outputs (2n, d) in turn."""
        first, second = sides(self.scores(outputs))
        return first - second

    def state(self) -> dict[str, Tensor]:
        """What it has to be given back to score again, such as references. Saved beside a model."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


def sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """The values (2n,) of both sides of n pairs, (n,) each."""
    first, second = values.view(-1, 2).unbind(1)
    return first, second


class BradleyTerry(Objective):
    """-p log σ(Δ) - (1-p) log σ(-Δ) + center (r_chosen + r_rejected)², Δ = r_chosen - r_rejected.

    ``smoothing`` e mixes p with its opposite: p(1-e) + (1-p)e (conservative DPO's form).
    Source: Bradley and Terry 1952; centering as in Eisenstein et al. 2023, arXiv 2312.09244.
    """

    options: BradleyTerryOptions

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        chosen, rejected = sides(outputs[:, 0])  # (b,) each
        e = self.options.smoothing
        p = batch.p * (1 - e) + (1 - batch.p) * e  # (b,)
        return self.pairwise(chosen - rejected, p, batch) + self.centering(chosen, rejected)

    def pairwise(self, margin: Tensor, p: Tensor, batch: Batch) -> Tensor:
        """The loss (b,) of margins (b,) under soft labels p (b,)."""
        return negative_log_likelihood(margin, p)

    def centering(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Keeps rewards around zero, which no comparison can."""
        return self.options.center * (chosen + rejected).square()


class MarginBradleyTerry(BradleyTerry):
    """-log σ(Δ - m scale) with m the strength 1..3, towards the side that is preferred.

    Source: Touvron et al. 2023, arXiv 2307.09288; as a baseline in Wang et al. 2024, arXiv
    2410.01257 (HelpSteer2-Preference).
    """

    options: MarginOptions

    def pairwise(self, margin: Tensor, p: Tensor, batch: Batch) -> Tensor:
        asked = self.options.margin_scale * batch.strength  # (b,)
        return p * softplus(asked - margin) + (1 - p) * softplus(asked + margin)


class ScaledBradleyTerry(BradleyTerry):
    """-m log σ(Δ): a pair counts as often as its preference is strong (strength m of 1..3).

    A tie, of strength 0, counts once. Source: Wang et al. 2024, arXiv 2410.01257.
    """

    options: ScaledOptions

    def pairwise(self, margin: Tensor, p: Tensor, batch: Batch) -> Tensor:
        scale = batch.strength.clamp(min=1)  # (b,)
        if self.options.divide_by_mean:
            # Of the whole update: parts of it, or shares, must not each have a mean of their own.
            scale = scale / (scale.mean() if batch.scale is None else batch.scale)
        return scale * negative_log_likelihood(margin, p)


class RobustBradleyTerry(BradleyTerry):
    """[(1-e) L(Δ) - e L(-Δ)] / (1-2e): unbiased for the clean loss where labels flip at rate e.

    Unbounded below: it needs early stopping or a ridge. Source: Chowdhury et al. 2024, arXiv
    2403.00409.
    """

    options: RobustOptions

    def pairwise(self, margin: Tensor, p: Tensor, batch: Batch) -> Tensor:
        e = self.options.flip_rate
        told = negative_log_likelihood(margin, p)  # (b,)
        other = negative_log_likelihood(margin, 1 - p)  # (b,)
        return ((1 - e) * told - e * other) / (1 - 2 * e)


def negative_log_likelihood(margin: Tensor, p: Tensor) -> Tensor:
    """Of a soft label p under P(chosen better) = σ(margin), (b,). -log σ(x) is softplus(-x)."""
    return p * softplus(-margin) + (1 - p) * softplus(margin)
