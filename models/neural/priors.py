"""Random priors: to a member's head a fixed random one is added, which no data changes.

The trained head learns what the prior leaves unsaid. Where there is data all members come to say
the same; where there is none each goes on saying what its prior does, so their disagreement says
how little is known. Source: Osband, Aslanides and Cassirer 2018, arXiv 1806.03335.

Of a layer that is linear in its weights, trained and random head are one: W x + s W₀ x =
(W + s W₀) x. There the prior is a parametrization of the weight, whose decay pulls to s W₀ instead
of zero, and it is added in for good when a model is saved.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.neural.evaluate import outputs
from models.neural.store import Store

MEASURED: Final = 512  # responses that the size of a prior is taken of
SMALLEST: Final = 1e-6


class FixedPrior(nn.Module):
    """weight -> weight + factor * prior; only the weight is trained."""

    prior: Tensor
    factor: Tensor

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("prior", torch.randn(weight.shape, generator=generator).to(weight))
        self.register_buffer("factor", torch.ones((), device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.factor * self.prior


class RandomHead(nn.Module):
    """factor * net(x) beside a head that is trained, of a ``net`` that is not."""

    factor: Tensor

    def __init__(self, net: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        self.register_buffer("factor", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.factor * self.net(features)
        return found


def attach(layer: nn.Module, generator: torch.Generator) -> Tensor:
    """Give a layer with one ``weight`` a prior. Returns its factor."""
    assert isinstance(layer.weight, Tensor)
    prior = FixedPrior(layer.weight.detach(), generator)
    parametrize.register_parametrization(layer, "weight", prior)
    return prior.factor


def fold(module: nn.Module) -> None:
    """Add priors into the weights for good: a plain module again, with the same outputs."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def add_prior(
    backbone: Any, store: Store, rows: NDArray[np.int64], *, scale: float, seed: int
) -> None:
    """Give a new model a prior whose outputs vary by ``scale`` over the responses of some rows.

    ``scale`` is a standard deviation, in the unit of the outputs: log-odds, for most objectives.
    The same for the same seed, on any device.
    """
    factor = backbone.attach_prior(torch.Generator().manual_seed(seed))
    sequences = store.sequences(rows)
    places = np.unique(np.linspace(0, len(sequences) - 1, MEASURED).astype(np.int64))
    found = []
    for value in (1.0, 0.0):
        factor.fill_(value)
        found.append(outputs(backbone, store, sequences[places], backbone.check))  # (m, d)
    spread = float((found[0] - found[1]).std(correction=0))
    factor.fill_(scale / max(spread, SMALLEST))
