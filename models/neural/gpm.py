"""The general preference model: preferences that may go in circles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from models.errors import BadArtifact
from models.neural.objectives import Batch, Objective, negative_log_likelihood
from models.objectives import GpmOptions

SPREAD: Final = 0.01  # of new weights that were zero
RESPONSES_AT_ONCE: Final = 64  # compared with all references together


class GeneralPreference(Objective):
    """Log-odds that i beats j: v_i R v_j / τ, R of skew-symmetric blocks [[0, 1], [-1, 0]].

    s(i, j) = -s(j, i) and s(i, i) = 0, exactly. v = (r, τ, u): r is a Bradley-Terry score beside a
    constant, since no backbone has to have one, and u (dim,) what makes circles. Where there are
    none, u stays at its beginning, a saddle. A response's score is its mean chance of winning
    against ``references``, which are saved with the model.
    Source: Zhang et al. 2024, arXiv 2410.02197, where v is the backbone's alone.
    """

    options: GpmOptions

    def __init__(self, options: GpmOptions, *, attributes: Sequence[str] = ()) -> None:
        super().__init__(options, attributes=attributes)
        self.outputs, self.references = 1 + options.dim, options.references
        self.kept: Tensor | None = None  # (r, d)

    def begin(self, module: nn.Module, ratings: object) -> None:
        """Blocks that are alike get the same gradient for ever: what is zero is made unlike."""
        for weight in module.parameters():
            if weight.ndim > 1 and not weight.any():
                nn.init.normal_(weight, std=SPREAD)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        e = self.options.smoothing
        p = batch.p * (1 - e) + (1 - batch.p) * e  # (b,)
        circles = outputs[:, 1:].square().sum(1).view(-1, 2).sum(1)  # (b,)
        centering = outputs[:, 0].view(-1, 2).sum(1).square()  # (b,)
        pull = self.options.damping * circles + self.options.center * centering
        return negative_log_likelihood(self.margins(outputs), p) + pull

    def margins(self, outputs: Tensor) -> Tensor:
        first, second = outputs.view(-1, 2, self.outputs).unbind(1)  # (n, 1 + dim) each
        return self.compare(first, second)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Log-odds (...) that the first is better; outputs (..., 1 + dim) that broadcast."""
        u, v = (side[..., 1:].unflatten(-1, (-1, 2)) for side in (first, second))
        circles = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]).sum(-1)  # (...)
        return first[..., 0] - second[..., 0] + circles / self.options.tau

    def refer(self, outputs: Tensor) -> None:
        self.kept = outputs.detach().cpu()

    def scores(self, outputs: Tensor) -> Tensor:
        """Mean chance (m,) of winning against the references."""
        if self.kept is None:
            raise BadArtifact(
                "The model lacks the references that its scores are chances against.",
                advice="Train it again, or take a whole copy of its folder.",
            )
        kept = self.kept.to(outputs.device)
        chunks = outputs[:, None].split(RESPONSES_AT_ONCE)  # (<= 64, 1, d)
        return torch.cat([self.compare(chunk, kept).sigmoid().mean(1) for chunk in chunks])

    def state(self) -> dict[str, Tensor]:
        return {} if self.kept is None else {"references": self.kept.contiguous()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.kept = state["references"]
