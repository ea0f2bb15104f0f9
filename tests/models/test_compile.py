"""Compiled transformers: traced once for texts of any length, and the same rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.neural.transformer import TransformerBackbone, compile_layers
from models.training import TrainingConfig
from tests.models import tiny

# Dynamo looks at the gradient of what it traces, and torch warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    torch.compiler.reset()


def batches(count: int) -> list[tuple[Any, Any, Any]]:
    """Packed pairs of texts, each pair with a prompt of its own: ids, starts and lengths."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        lengths = np.repeat(rng.integers(12, 60, rng.integers(2, 7)), 2)
        texts = [rng.integers(5, 40, size).astype(np.int32) for size in lengths]
        for first, second in zip(texts[::2], texts[1::2], strict=True):
            second[:10] = first[:10]
        found.append((np.concatenate(texts), np.cumsum(lengths) - lengths, lengths))
    return found


@pytest.mark.parametrize("build", [tiny.bert, tiny.llama], ids=["encoder", "decoder"])
def test_layers_are_traced_once_and_give_the_same(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    options: Any = TrainingConfig(backbone="hf:any").backbone_options
    folder = str(build(tmp_path / "model"))
    backbone = TransformerBackbone.create(folder, options, device=torch.device("cpu"))
    assert backbone.packing is not None
    first, *others = batches(4)
    plain = [backbone.logits(*batch) for batch in (first, *others)]
    traced: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        traced.append(graph)
        return graph

    compile_layers(backbone.module, backend=keep)
    found = [backbone.logits(*first)]
    graphs = len(traced)
    assert graphs
    found += [backbone.logits(*batch) for batch in others]
    assert len(traced) == graphs

    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)


def test_memory_is_estimated_without_compiling(tmp_path: Path) -> None:
    options: Any = TrainingConfig(backbone="hf:any").backbone_options
    folder = str(tiny.bert(tmp_path / "model"))
    backbone = TransformerBackbone.create(folder, options, device=torch.device("cpu"))
    plain = backbone.estimate(1000)
    traced: list[Any] = []
    compile_layers(backbone.module, backend=lambda graph, _: traced.append(graph) or graph)

    assert backbone.estimate(1000).activations == plain.activations > 0
    assert not traced
