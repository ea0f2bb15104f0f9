"""The kernel that reads packed texts on a GPU is used where it is there and right.

Without a GPU the kernel is stood in for; what is tested is the trial it has to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.neural import packed
from models.neural.packed import Layout, by_segment, has_varlen

CPU = torch.device("cpu")
Kernel = Callable[[Tensor, Tensor, Tensor, Layout, float | None], Tensor]


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    has_varlen.cache_clear()
    yield
    has_varlen.cache_clear()


def rounded(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """A right one, in bf16."""
    return by_segment(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout, scaling, 0.0)


def from_the_first(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """One that counts what a token may see from the first key and not from the last."""
    wrong = replace(layout)
    masks = [None if m is None else torch.ones_like(m).tril(0) for m in layout.masks]
    wrong.__dict__["masks"] = masks
    return by_segment(q, k, v, wrong, scaling, 0.0)


def unmasked(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """One that shows a token what comes after it."""
    return by_segment(q, k, v, replace(layout, causal=False), scaling, 0.0)


def unscaled(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    return by_segment(q, k, v, layout, 1.0, 0.0)


def not_a_number(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    return rounded(q, k, v, layout, scaling) * float("nan")


def without_slope(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """One that works forward alone."""
    return rounded(q, k, v, layout, scaling).detach()


@pytest.mark.parametrize(
    ("kernel", "good"),
    [
        (rounded, True),
        (from_the_first, False),
        (unmasked, False),
        (unscaled, False),
        (not_a_number, False),
        (without_slope, False),
    ],
)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2)])
def test_a_kernel_is_used_where_it_agrees(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, good: bool, heads: int, key_heads: int
) -> None:
    monkeypatch.setattr(packed, "varlen", kernel)

    assert has_varlen(CPU, heads, key_heads, 16) is good


def test_where_there_is_no_kernel_segments_are_read_one_by_one() -> None:
    assert has_varlen(CPU, 4, 4, 16) is False


def test_trying_it_out_draws_nothing_and_is_not_counted_as_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "varlen", rounded)
    before, kept = torch.get_rng_state(), []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert has_varlen(CPU, 4, 4, 16)

    assert torch.equal(before, torch.get_rng_state())
    assert not kept
