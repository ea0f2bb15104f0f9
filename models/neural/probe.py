"""A small head on fixed features, and what backbones that train only such a head have in common.

Their store holds one vector per answer: ``values`` (m * d,) fp32, no ids, every length d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.errors import BadArtifact
from models.neural.priors import RandomHead
from models.neural.store import Encoded, Store

MEASURED: Final = 20_000  # vectors that mean and scale are taken of
SMALLEST: Final = 1e-6  # scale of a feature that does not vary
ROWS_AT_ONCE: Final = 65_536
PROBE: Final = "probe.safetensors"


class Probe(nn.Module):
    """y = head(standardized x): linear, or one or two hidden layers with GELU."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self, width: int, outputs: int, *, layers: int = 0, hidden: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.sizes = (width, outputs, layers, hidden)
        self.head = head(*self.sizes, dropout=dropout)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        if not layers:  # from nothing: the l2 prior is around zero
            nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.prior: RandomHead | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (m, d) of features (m, width)."""
        given = (features - self.mean) / self.scale
        found: Tensor = self.head(given)
        return found if self.prior is None else found + self.prior(given)

    def add_prior(self, generator: torch.Generator) -> RandomHead:
        """A random head of the same form beside it, never trained."""
        self.prior = RandomHead(head(*self.sizes), generator).to(self.mean.device)
        return self.prior

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Take mean and scale of features (n, width), so that each weighs the same."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0, correction=0).clamp_min(SMALLEST))


def head(
    width: int, outputs: int, layers: int, hidden: int, *, dropout: float = 0.0
) -> nn.Sequential:
    """Linear, after so many hidden layers."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, outputs))


class ProbeBackbone:
    """What backbones with fixed features share. Subclasses embed, and build ``module``."""

    group_by_length = False
    clip = math.inf
    evaluations = 10
    cpu_threads = 1  # small arrays: sharing them out costs tenfold on a busy machine

    module: nn.Module
    width: int  # of one vector in the store
    outputs: int

    def __init__(self, options: Any, *, device: torch.device) -> None:
        self.options, self.device = options, device
        self.check: Callable[[], None] = lambda: None  # called while embeddings are computed

    def optimizer(self, train_pairs: int) -> torch.optim.Optimizer:
        """Adam on loss + l2 / (2n) |w|²: a Gaussian prior, so n pairs outweigh it as n grows."""
        return torch.optim.Adam(
            [p for p in self.module.parameters() if p.requires_grad],
            lr=self.options.learning_rate,
            weight_decay=self.options.l2 / train_pairs,
            fused=True,
        )

    def schedule(self, progress: float) -> float:
        """Share of the peak learning rate at ``progress`` in 0..1: straight down to zero."""
        return 1 - progress

    def parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """How to split a batch for memory: vectors are small, so hardly ever."""
        rows = np.arange(len(lengths))
        return [rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE)]

    def fit(self, store: Store, rows: NDArray[np.int64], *, seed: int) -> None:
        """What is measured before training: mean and scale of the features of some rows."""
        sequences = store.sequences(rows)
        if len(sequences) > MEASURED:
            rng = np.random.default_rng(seed)
            sequences = np.sort(rng.choice(sequences, MEASURED, replace=False))
        self.standardize(self.vectors(store, sequences))

    def standardize(self, vectors: Tensor) -> None:
        raise NotImplementedError

    @property
    def probe(self) -> Probe:
        """The head that is trained."""
        raise NotImplementedError

    def attach_prior(self, generator: torch.Generator) -> RandomHead:
        """Add a random prior (models.neural.priors)."""
        return self.probe.add_prior(generator)

    def vectors(self, store: Store, sequences: NDArray[np.int64]) -> Tensor:
        """Vectors (m, width) of the given sequences of a store."""
        assert store.values is not None
        table = store.values.reshape(-1, self.width)
        return torch.from_numpy(np.ascontiguousarray(table[sequences])).to(self.device)

    def forward(self, store: Store, sequences: NDArray[np.int64]) -> Tensor:
        """Outputs (m, d) fp32 of the given sequences of a store."""
        found: Tensor = self.module(self.vectors(store, sequences))
        return found

    def save_module(self, folder: Path) -> None:
        state = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        save_file({name: value.contiguous() for name, value in state.items()}, folder / PROBE)

    def load_module(self, folder: Path) -> None:
        """Raises BadArtifact."""
        try:
            state = load_file(folder / PROBE)
            if any("prior." in name for name in state):
                self.attach_prior(torch.Generator())  # its numbers are those of the file
            self.module.load_state_dict(state)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise BadArtifact(f"{folder.name}: the weights cannot be read ({error}).") from error


def as_encoded(vectors: NDArray[np.float32], notes: Any) -> Encoded:
    """Vectors (m, d) as a store keeps them."""
    return Encoded(
        ids=np.zeros(0, np.int32),
        values=vectors.reshape(-1),
        lengths=np.full(len(vectors), vectors.shape[1], np.int64),
        notes=notes,
    )
