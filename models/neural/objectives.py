"""Losses on reward pairs.

An objective is ``(chosen, rejected, labels, options) -> loss``: fp32 rewards (b,) of both sides,
the labels of the pairs, and the loss of every pair (b,). The training loop weighs and averages.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus

from models.objectives import BradleyTerryOptions


class Labels(NamedTuple):
    """What is known about b pairs."""

    p: Tensor  # (b,) probability that chosen is better
    strength: Tensor  # (b,) 0..3


def bradley_terry(
    chosen: Tensor, rejected: Tensor, labels: Labels, options: BradleyTerryOptions
) -> Tensor:
    """-p log σ(Δ) - (1-p) log σ(-Δ) + center (r_chosen + r_rejected)², Δ = r_chosen - r_rejected.

    Source: Bradley and Terry 1952; centering as in Eisenstein et al. 2023, arXiv 2312.09244.
    """
    loss = negative_log_likelihood(chosen - rejected, labels.p)  # (b,)
    if options.center:
        loss = loss + options.center * (chosen + rejected).square()
    return loss


def negative_log_likelihood(margin: Tensor, p: Tensor) -> Tensor:
    """Of a soft label p under P(chosen better) = σ(margin), (b,). -log σ(x) is softplus(-x)."""
    return p * softplus(-margin) + (1 - p) * softplus(margin)
