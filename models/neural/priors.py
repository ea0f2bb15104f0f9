"""Random priors: to a member's head a fixed random one is added, which no data changes.

The trained head learns what the prior leaves unsaid. Where there is data all members come to say
the same; where there is none each goes on saying what its prior does, so their disagreement says
how little is known. Source: Osband, Aslanides and Cassirer 2018, arXiv 1806.03335.

Of a layer that is linear in its weights, trained and random head are one: W x + s W₀ x =
(W + s W₀) x. There the prior is a parametrization of the weight, whose decay pulls to s W₀ instead
of zero, and it is added in for good when a model is saved. Hidden states of language models have a
large part in common; W₀ is made to overlook their mean, else the prior would be one large constant.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.neural.batches import cut
from models.neural.evaluate import SEQUENCES_AT_ONCE, outputs
from models.neural.store import Store

MEASURED: Final = 512  # responses that the size of a prior is taken of
SMALLEST: Final = 1e-6
LEVER: Final = 0.1  # of the size of what inputs have in common: what differs less is not blown up


class FixedPrior(nn.Module):
    """weight -> weight + factor * prior; only the weight is trained."""

    prior: Tensor
    factor: Tensor

    def __init__(self, weight: Tensor, generator: torch.Generator, *, features: int) -> None:
        """``features`` is the dimension of the weight that inputs are summed over."""
        super().__init__()
        self.features = features
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


Prior = FixedPrior | RandomHead


def attach(layer: nn.Linear | nn.EmbeddingBag, generator: torch.Generator) -> FixedPrior:
    """Give a linear layer a prior."""
    features = 1 if isinstance(layer, nn.Linear) else 0
    prior = FixedPrior(layer.weight.detach(), generator, features=features)
    parametrize.register_parametrization(layer, "weight", prior)
    return prior


def fold(module: nn.Module) -> None:
    """Add priors into the weights for good: a plain module again, with the same outputs."""
    for layer in list(module.modules()):
        if "parametrizations" in layer._modules:  # peft's wrappers claim what they wrap has
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def add_prior(
    backbone: Any, store: Store, rows: NDArray[np.int64], *, scale: float, seed: int
) -> None:
    """Give a new model a prior whose outputs vary by ``scale`` over the responses of some rows.

    ``scale`` is a standard deviation, in the unit of the outputs: log-odds, for most objectives.
    Where the layer's inputs hardly differ, it is less: a prior blown up over them would magnify
    whatever training does to them.
    """
    prior: Prior = backbone.attach_prior(torch.Generator().manual_seed(seed))
    sequences = store.sequences(rows)
    places = np.unique(np.linspace(0, len(sequences) - 1, MEASURED).astype(np.int64))
    some = sequences[places]
    least = SMALLEST
    if isinstance(prior, FixedPrior):
        least = LEVER * float(said_by(prior, backbone, store, some).square().mean().sqrt())
        overlook_mean(prior, backbone, store, some)
    spread = float(said_by(prior, backbone, store, some).std(correction=0))
    prior.factor.fill_(scale / max(spread, least, SMALLEST))


def said_by(prior: Prior, backbone: Any, store: Store, sequences: NDArray[np.int64]) -> Tensor:
    """Outputs (m, d) of the prior alone, with a factor of 1."""
    found = []
    for value in (1.0, 0.0):
        prior.factor.fill_(value)
        found.append(outputs(backbone, store, sequences, backbone.check))
    return found[0] - found[1]


def overlook_mean(
    prior: FixedPrior, backbone: Any, store: Store, sequences: NDArray[np.int64]
) -> None:
    """Turn the prior at a right angle to the mean of what its layer is given."""
    module, given = backbone.module, prior.prior
    trained = [p for p in module.parameters() if p.requires_grad]
    module.eval()
    module.requires_grad_(False)
    given.requires_grad_(True)  # alone, so that nothing before the layer is kept for a gradient
    total = torch.zeros_like(given)
    try:
        for chunk in cut(np.argsort(store.lengths[sequences], kind="stable"), SEQUENCES_AT_ONCE):
            for part in backbone.parts(store.lengths[sequences[chunk]][:, None]):
                backbone.check()
                found = backbone.forward(store, sequences[chunk[part]])  # (b, d)
                # Of W₀ x summed over inputs x the gradient in W₀ is their sum, in every row.
                total += torch.autograd.grad(found.sum(), given)[0]
    finally:
        given.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
    size = total.square().sum(prior.features, keepdim=True).clamp_min(SMALLEST**2)
    overlap = (given * total).sum(prior.features, keepdim=True) / size
    given -= overlap * total
