"""Arithmetic that training a transformer needs, and what a card can do: for model FLOPs utilization.

A matrix product of (m, k) by (k, n) is 2mkn operations. Per token the forward pass multiplies by
every weight of the layers once, 2N; attention adds two products of the width for every pair of a
query and a key it sees, 4Lh. The backward pass takes both twice: 6NT + 12LhA for T tokens and A
such pairs. Left out are embeddings (looked up), heads (once per text), norms and activations, and
what is computed again where activations are not kept. Padding is not needed, so it is not counted.
Source: Chowdhery et al. 2022, PaLM, appendix B, arXiv 2204.02311; there causal attention counts
in full, here only what is seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# bf16 with fp32 sums, dense, at the boost clock: half of what data sheets print "with sparsity".
# Every word of a name must be among those torch says; of several, that with the most words.
PEAK: Final = {
    "A10": 125e12,
    "A30": 165e12,
    "A100": 312e12,
    "H100": 989.4e12,  # SXM
    "H100 PCIe": 756e12,
    "H100 NVL": 835.5e12,
    "GH200": 989.4e12,
    "H200": 989.4e12,  # SXM
    "H200 NVL": 835.5e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
}


@dataclass(frozen=True)
class Shape:
    """What of a model its arithmetic depends on."""

    weights: int  # N: of the linear maps that every token goes through
    layers: int  # L
    width: int  # h: heads times the size of one
    causal: bool


def shape_of(config: Any) -> Shape:
    """The shape of the sequence classifier that a transformers configuration describes."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        module = AutoModelForSequenceClassification.from_config(config)
    linear = {
        name: part.weight.numel()
        for name, part in module.base_model.named_modules()
        if isinstance(part, torch.nn.Linear) and "pooler" not in name
    }
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        weights=sum(linear.values()),
        layers=config.num_hidden_layers,
        width=config.num_attention_heads * size,
        causal=hasattr(module, "score"),  # how transformers names a decoder's head
    )


def needed(
    shape: Shape, lengths: NDArray[np.int64], shared: NDArray[np.int64] | None = None
) -> float:
    """Operations of one pass forward and back over texts (m,) tokens long.

    Of each the first ``shared`` (m,) tokens were read before, for its neighbor; causal models only.
    """
    size = lengths.astype(float)
    read_before = np.zeros_like(size) if shared is None else shared.astype(float)
    if shape.causal:  # token i, from 1, sees i tokens
        attended = (size * (size + 1) - read_before * (read_before + 1)).sum() / 2
    else:
        attended = (size**2).sum()
    tokens = (size - read_before).sum()
    return float(6 * shape.weights * tokens + 12 * shape.layers * shape.width * attended)


def peak_of(card: str) -> float | None:
    """Dense bf16 operations a second of a card by the name torch gives it; None if not known."""
    words = set(re.split(r"[^A-Za-z0-9]+", card))
    if "MIG" in words:  # a slice of a card
        return None
    known = [name for name in PEAK if words.issuperset(name.split())]
    return PEAK[max(known, key=lambda name: len(name.split()))] if known else None
