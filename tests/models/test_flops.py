"""The arithmetic that benchmarks divide by: counted by torch on small models, and what cards do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from tests.bench.flops import PEAK, Shape, needed, peak_of, shape_of

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_labels": 1,
    "attn_implementation": "eager",  # products that torch counts; all of them, seen or not
}
MODELS = {
    "bert": BertConfig(**SIZE),
    "qwen2": Qwen2Config(**SIZE, num_key_value_heads=2),
    "llama": LlamaConfig(**SIZE, num_key_value_heads=1, head_dim=16),
}


def count(config: PreTrainedConfig, texts: int, tokens: int) -> int:
    """Operations of one pass forward and back, as torch counts them."""
    module = AutoModelForSequenceClassification.from_config(config)
    ids = torch.randint(1, 50, (texts, tokens))
    with FlopCounterMode(display=False) as counter:
        module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    return int(counter.get_total_flops())


def heads(config: PreTrainedConfig, texts: int, tokens: int) -> int:
    """What the formula leaves out: a decoder's head on all tokens, an encoder's pooler and head."""
    if config.model_type == "bert":
        return 6 * texts * (32 * 32 + 32)
    return 6 * texts * tokens * 32


@pytest.mark.parametrize("name", sorted(MODELS))
def test_needed_operations_are_those_torch_counts(name: str) -> None:
    config, texts, tokens = MODELS[name], 3, 11
    shape = shape_of(config)
    assert shape.causal == (name != "bert")
    all_seen = Shape(shape.weights, shape.layers, shape.width, causal=False)

    found = needed(all_seen, np.full(texts, tokens)) + heads(config, texts, tokens)

    assert found == count(config, texts, tokens)


def test_a_causal_token_sees_itself_and_those_before() -> None:
    shape = Shape(weights=0, layers=1, width=1, causal=True)

    assert needed(shape, np.array([1, 4])) == 12 * (1 + (1 + 2 + 3 + 4))


def test_what_was_read_before_is_not_needed_again() -> None:
    shape = Shape(weights=10, layers=2, width=3, causal=True)
    lengths = np.array([7, 9])

    together = needed(shape, lengths, shared=np.array([0, 5]))

    seen = sum(range(1, 8)) + (6 + 7 + 8 + 9)
    assert together == 6 * 10 * (7 + 4) + 12 * 2 * 3 * seen


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 3060", None),
        ("cpu", None),
    ],
)
def test_a_card_is_known_by_all_words_of_its_name(card: str, peak: float | None) -> None:
    assert peak_of(card) == peak


@pytest.mark.parametrize(
    ("card", "units", "per_clock", "boost"),
    [("A100", 108, 2048, 1410e6), ("H100", 132, 4096, 1830e6), ("L4", 58, 1024, 2040e6)],
)
def test_peaks_are_dense(card: str, units: int, per_clock: int, boost: float) -> None:
    """Multiprocessors, operations of each per clock (a multiplication and an addition), clock."""
    assert PEAK[card] == pytest.approx(units * per_clock * boost, rel=0.01)
