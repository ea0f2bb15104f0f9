"""Objectives on ratings of single responses: regression, and the HelpSteer2 recipe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import BadData
from models.neural.objectives import Batch, Objective, Phase, negative_log_likelihood, sides
from models.neural.store import Store
from models.objectives import HelpSteerOptions, ScoreOptions, read_mix


class Regression(Objective):
    """Mean of (o_a - z_a)² over the attributes a that a row's responses were rated on.

    z are ratings less their mean, divided by their standard deviation, both of the training data:
    attributes on unlike scales count alike, and 0 is an average response. The score is a mix of
    the outputs, so it is in standard deviations of ratings.
    Source: Wang et al. 2024, arXiv 2410.01257, where ratings are not standardized.
    """

    options: ScoreOptions
    rated = True

    def __init__(self, options: ScoreOptions, *, attributes: Sequence[str] = ()) -> None:
        super().__init__(options, attributes=attributes)
        if not self.attributes:
            raise BadData(
                "There are no ratings to learn from.",
                advice="Rate responses, import ratings, or choose an objective on preferences.",
            )
        self.outputs = len(self.attributes)
        mix = read_mix(options.score) or dict.fromkeys(attributes, 1 / len(self.attributes))
        if unknown := [name for name in mix if name not in self.attributes]:
            known = ", ".join(self.attributes)
            raise BadData(
                f"Nothing is rated on {', '.join(unknown)}; there is: {known}.",
                advice="Change the option score.",
            )
        self.mix = torch.tensor([mix.get(name, 0.0) for name in self.attributes])  # (a,)
        self.mean, self.deviation = torch.zeros(self.outputs), torch.ones(self.outputs)  # (a,)

    def usable(self, store: Store) -> NDArray[np.bool_]:
        """Rows with any rating."""
        rated = np.concatenate([[0], np.cumsum(~np.isnan(store.ratings).all(axis=1))])
        found: NDArray[np.bool_] = np.diff(rated[store.rows]) > 0
        return found

    def begin(self, module: nn.Module, ratings: NDArray[np.float32]) -> None:
        known = ~np.isnan(ratings)  # (m, a)
        count = known.sum(axis=0)
        if missing := [self.attributes[i] for i in np.flatnonzero(count == 0)]:
            raise BadData(f"No response of the training split is rated on {', '.join(missing)}.")
        values = np.where(known, ratings, 0).astype(float)
        mean = values.sum(axis=0) / count
        spread = np.sqrt((known * (values - mean) ** 2).sum(axis=0) / count)
        self.mean = torch.from_numpy(mean).float()
        self.deviation = torch.from_numpy(np.where(spread > 0, spread, 1)).float()

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        mean, deviation = self.mean.to(outputs.device), self.deviation.to(outputs.device)
        asked = (batch.ratings - mean) / deviation  # (S, a), NaN where not rated
        known = ~asked.isnan()
        errors = torch.where(known, outputs - asked.nan_to_num(), 0).square()  # (S, a)
        rows = len(batch.sizes)  # all of one size
        count = known.view(rows, -1).sum(1).clamp(min=1)
        return errors.view(rows, -1).sum(1) / count

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs @ self.mix.to(outputs.device)

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "deviation": self.deviation}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]


class HelpSteer(Regression):
    """Regression; from there -m log σ(Δ) with the same outputs; then θ₂ + κ (θ₂ - θ₁).

    Only the attributes of the score are learned. Ties are left out of the second phase: their
    strength is 0. Source: Wang et al. 2024, arXiv 2410.01257 (HelpSteer2-Preference).
    """

    options: HelpSteerOptions

    def __init__(self, options: HelpSteerOptions, *, attributes: Sequence[str] = ()) -> None:
        mix = read_mix(options.score)
        unknown = [name for name in mix if name not in attributes]
        chosen = attributes if unknown or not mix else tuple(mix)
        super().__init__(options, attributes=chosen)
        self.extrapolation = options.extrapolation

    def phases(self) -> list[Phase]:
        o = self.options
        return [
            Phase("ratings", self.loss, self.usable),
            Phase("preferences", self.compare, self.decided, o.second_epochs, o.second_rate),
        ]

    def decided(self, store: Store) -> NDArray[np.bool_]:
        """Rows that are no tie."""
        found: NDArray[np.bool_] = store.columns["p"] != 0.5
        return found

    def compare(self, outputs: Tensor, batch: Batch) -> Tensor:
        first, second = sides(self.scores(outputs))  # (b,) each
        strength = batch.strength.clamp(min=1)
        return strength * negative_log_likelihood(first - second, batch.p)
