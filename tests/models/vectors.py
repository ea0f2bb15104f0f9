"""A backbone for planted worlds: an answer is a list of numbers, and a small network reads them."""

from __future__ import annotations

import numpy as np
import torch

from models.backbones import BACKBONES, FrozenOptions
from models.neural.probe import Probe, ProbeBackbone, as_encoded
from rubrics.registry import Method

METHOD = Method(
    path="tests.models.vectors:VectorBackbone",
    label="Vectors",
    summary="Reads the numbers that an answer consists of.",
    options="models.backbones:FrozenOptions",
)
WIDTH = 8


def as_text(vector):
    return " ".join(f"{value:.6g}" for value in vector)


class VectorBackbone(ProbeBackbone):
    """An MLP on WIDTH numbers."""

    module: Probe
    options: FrozenOptions
    width = WIDTH
    fingerprint = "vectors"
    versions: dict[str, str] = {}

    def __init__(self, options, *, device, outputs=1):
        super().__init__(options, device=device)
        self.outputs = outputs
        self.module = Probe(WIDTH, outputs, layers=options.layers, hidden=options.width)

    @classmethod
    def create(cls, argument, options, *, device, outputs=1):
        return cls(options, device=device, outputs=outputs)

    @classmethod
    def load(cls, folder, options, *, device, outputs=1):
        backbone = cls(options, device=device, outputs=outputs)
        backbone.load_module(folder)
        return backbone

    def save(self, folder):
        self.save_module(folder)

    @property
    def probe(self):
        return self.module

    def standardize(self, vectors):
        self.module.standardize(vectors)

    def encode(self, conversations):
        vectors = np.array([[float(x) for x in text.split()] for _, text in conversations])
        return as_encoded(vectors.astype(np.float32).reshape(-1, WIDTH), {})


def scores_of(scorer, vectors):
    """Raw scores (k, m) by members of many vectors (m, WIDTH), without writing them as text."""
    with torch.no_grad():
        return np.stack(
            [
                member.backbone.module(torch.from_numpy(vectors).float())[:, 0].double().numpy()
                for member in getattr(scorer, "members", [scorer])
            ]
        )


def register(monkeypatch):
    monkeypatch.setitem(BACKBONES, "vectors", METHOD)
