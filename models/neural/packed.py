"""Packed sequences: texts end to end as one row, without padding, a shared beginning read once.

A decoder's token sees only what stands before it, so the keys and values of a prompt are the same
for every answer to it. Both sides of a pair are laid out as prompt, answer, answer; each answer
attends to the prompt and to itself, and counts its positions on from the prompt. Encoders read
both ways: nothing is shared, but nothing is padded either.

Attention is the only layer that sees more than one token, so a model is packed by one attention
function given to transformers (``layout``, a keyword that models pass down to it). Not every model
does, and some look at less than all that stands before: ``packable`` compares both ways on the very
model, and whatever does not agree is padded as ever.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME: Final = "touchstone"
SHORTEST_SHARED: Final = 8  # tokens; fewer are not worth two segments more
UNREADABLE: Final = ("sliding_window", "softcap", "s_aux", "position_bias")  # not done here
ROUNDED: Final = 0.05  # of the largest number: bf16 is off by less, a wrong token by all of it
CLOSE: Final = 1e-2  # of the spread between texts: rounding is far below, another model far above


@dataclass(frozen=True)
class Layout:
    """Where T packed tokens come from and what they see.

    The queries of segment i, ``queries[i]`` tokens in turn, see ``keys[i]`` tokens, themselves
    last; keys of all segments end to end are the tokens ``taken``, or all in turn where None.
    """

    source: NDArray[np.int64]  # (T,) places in a store's ids
    positions: NDArray[np.int64]  # (T,) from 0 in every sequence
    queries: list[int]  # (s,)
    keys: list[int]  # (s,)
    taken: NDArray[np.int64] | None  # (K,)
    read: NDArray[np.int64]  # (m,) the token whose state stands for each sequence
    causal: bool
    device: torch.device

    @cached_property
    def index(self) -> Tensor | None:
        return None if self.taken is None else self.tensor(self.taken)

    @cached_property
    def masks(self) -> list[Tensor | None]:
        """(q, k) for segments that see more than themselves: key j of query i if j <= i + k - q."""
        return [
            torch.ones(q, k, dtype=torch.bool, device=self.device).tril(k - q) if k > q else None
            for q, k in zip(self.queries, self.keys, strict=True)
        ]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Where segments begin and end among queries and among keys, (s + 1,) int32 each."""
        both = (np.concatenate([[0], np.cumsum(sizes)]) for sizes in (self.queries, self.keys))
        first, second = (self.tensor(bound).int() for bound in both)
        return first, second

    def tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def lay_out(
    ids: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    causal: bool,
    device: torch.device,
) -> Layout:
    """Pack m sequences ids[start:start + length]; where causal, neighbors share what they can."""
    pieces: list[tuple[int, int, int]] = []  # (place in ids, position, tokens) of each segment
    keys, taken, read = [], [], []  # keys of each segment: their number and ranges of tokens
    at = first = 0
    while first < len(starts):
        last, shared = _group(ids, starts, lengths, first) if causal else (first + 1, 0)
        prompt = (at, at + shared)
        if shared:
            pieces.append((int(starts[first]), 0, shared))
            keys.append(shared)
            taken.append([prompt])
            at += shared
        for i in range(first, last):
            own = int(lengths[i]) - shared
            pieces.append((int(starts[i]) + shared, shared, own))
            keys.append(shared + own)
            taken.append([prompt, (at, at + own)])
            read.append(at + own - 1 if causal else at)
            at += own
        first = last
    ranges = [span for spans in taken for span in spans]
    queries = [size for _, _, size in pieces]
    return Layout(
        source=np.concatenate([np.arange(place, place + size) for place, _, size in pieces]),
        positions=np.concatenate([np.arange(begin, begin + size) for _, begin, size in pieces]),
        queries=queries,
        keys=keys,
        taken=np.concatenate([np.arange(*r) for r in ranges]) if queries != keys else None,
        read=np.array(read, dtype=np.int64),
        causal=causal,
        device=device,
    )


def _group(
    ids: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64], first: int
) -> tuple[int, int]:
    """(last, shared): sequences first to before last begin with the same tokens, ``shared``.

    Every sequence keeps a token of its own, whose state stands for it.
    """

    def text(i: int) -> NDArray[np.int32]:
        return ids[starts[i] : starts[i] + lengths[i] - 1]

    shared, last = int(lengths[first]) - 1, first + 1
    while last < len(starts):
        size = min(shared, int(lengths[last]) - 1)
        differ = np.flatnonzero(text(first)[:size] != text(last)[:size])
        size = int(differ[0]) if len(differ) else size
        if size < max(SHORTEST_SHARED, shared // 2 if last > first + 1 else 0):
            break
        shared, last = size, last + 1
    return (last, shared) if last > first + 1 else (last, 0)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: q (1, h, T, c), k and v (1, h', T, c) -> (1, T, h, c)."""
    if layout is None:
        plain: Any = sdpa_attention_forward
        found: tuple[Tensor, None] = plain(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **more
        )
        return found
    if unknown := [name for name in UNREADABLE if more.get(name) is not None]:
        raise ValueError(f"Packed attention does not know {unknown[0]}.")
    if layout.index is not None:
        key, value = key.index_select(2, layout.index), value.index_select(2, layout.index)
    if use_varlen(query, key, dropout):
        return varlen(query, key, value, layout, scaling), None
    return by_segment(query, key, value, layout, scaling, dropout), None


def by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """One segment after the other: q (1, h, T, c), k and v (1, h', K, c) -> (1, T, h, c)."""
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    parts = zip(
        query.split(layout.queries, 2),
        key.split(layout.keys, 2),
        value.split(layout.keys, 2),
        layout.masks if layout.causal else [None] * len(layout.keys),
        strict=True,
    )
    states = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            is_causal=layout.causal and mask is None,
        )
        for q, k, v, mask in parts
    ]
    return torch.cat(states, 2).transpose(1, 2)


def use_varlen(query: Tensor, key: Tensor, dropout: float) -> bool:
    """One kernel for all segments: on CUDA, in half precision, as training there is by default."""
    if query.device.type != "cuda" or dropout or not torch.is_autocast_enabled("cuda"):
        return False
    return has_varlen(query.device, query.shape[1], key.shape[1], query.shape[3])


@lru_cache
def has_varlen(device: torch.device, heads: int, key_heads: int, size: int) -> bool:
    """Whether that kernel, tried once on random numbers, agrees with segments taken one by one.

    Older cards have none, it knows few sizes of heads, and ``agrees`` below is in fp32, without it.
    """
    rng = torch.Generator(device).manual_seed(0)
    ids = np.concatenate([np.arange(12), np.arange(9), np.arange(50, 70)]).astype(np.int32)
    lengths = np.array([12, 9, 20])  # the first two begin alike

    def numbers(heads: int, tokens: int) -> Tensor:
        shape = 1, heads, tokens, size
        return torch.randn(shape, generator=rng, device=device, requires_grad=True)

    # Autograd keeps what it needs here and tells nobody who counts it.
    with torch.enable_grad(), saved_tensors_hooks(lambda x: x, lambda x: x):
        for causal in (True, False):
            layout = lay_out(
                ids, np.cumsum(lengths) - lengths, lengths, causal=causal, device=device
            )
            q = numbers(heads, sum(layout.queries))
            k, v = (numbers(key_heads, sum(layout.keys)) for _ in range(2))
            try:
                found = varlen(q, k, v, layout, None).float()
                (slope,) = torch.autograd.grad(found.square().sum(), q)
            except (RuntimeError, ValueError, TypeError, ImportError):
                return False  # not on this card or not for this size: segments one by one, then
            wanted = by_segment(q, k, v, layout, None, 0.0)
            (right,) = torch.autograd.grad(wanted.square().sum(), q)
            for one, other in ((found, wanted), (slope, right)):
                if not bool((one - other).abs().max() <= ROUNDED * other.abs().max()):
                    return False
    return True


def varlen(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """The same by torch's FlashAttention for segments of any length; causal from the end, as here."""
    from torch.nn.attention.varlen import varlen_attn  # nothing else needs it

    half = torch.get_autocast_dtype("cuda")
    q, k, v = (x[0].transpose(0, 1).to(half) for x in (q, k, v))  # (T, h, c), (K, h', c) twice
    found: Any = varlen_attn(
        q,
        k,
        v,
        *layout.bounds,
        max(layout.queries),
        max(layout.keys),
        scale=scaling,
        window_size=(-1, 0) if layout.causal else (-1, -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    states: Tensor = found[None]  # a tensor, as no logsumexp is asked for
    return states


# Segments are of other sizes every time: it would be compiled anew for each.
AttentionInterface.register(NAME, torch.compiler.disable(attention))
AttentionMaskInterface.register(NAME, sdpa_mask)


class Packing:
    """Runs a sequence classifier on packed tokens."""

    def __init__(self, module: Any, *, offset: int) -> None:
        self.inner = module.get_base_model() if hasattr(module, "get_base_model") else module
        self.base, self.offset = self.inner.base_model, offset
        self.causal = hasattr(self.inner, "score")  # how transformers names a decoder's head
        accepted = inspect.signature(self.base.forward).parameters
        self.can_place = "position_ids" in accepted
        self.has_types = "token_type_ids" in accepted

    def __call__(
        self, ids: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Tensor:
        """Logits (m, d) of m sequences ids[start:start + length]."""
        device = self.inner.device
        layout = lay_out(ids, starts, lengths, causal=self.causal, device=device)
        tokens = layout.tensor(ids[layout.source].astype(np.int64))[None]  # (1, T)
        given = {
            "input_ids": tokens,
            "position_ids": layout.tensor(layout.positions + self.offset)[None],
            # One that is ready is passed on as it is, and ours looks at the layout alone.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            "layout": layout,
        }
        read = layout.tensor(layout.read)
        if self.causal:
            states = self.base(**given, use_cache=False).last_hidden_state  # (1, T, h)
            logits: Tensor = self.inner.score(states[0, read])
            return logits
        if self.has_types:
            given["token_type_ids"] = torch.zeros_like(tokens)
        return self.encode(given, read)

    def encode(self, given: dict[str, Any], read: Tensor) -> Tensor:
        """Logits (m, d): the head is given every sequence's first token as a sequence of one."""

        def unpack(module: nn.Module, inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[0, read][:, None]  # (m, 1, h)
            return output

        names = [name for name in ("encoder", "transformer") if hasattr(self.base, name)]
        layers = getattr(self.base, names[0]) if names else self.base
        hook = layers.register_forward_hook(unpack)
        try:
            logits: Tensor = self.inner(**given).logits
        finally:
            hook.remove()
        return logits


def prepare(module: Any, *, offset: int) -> Packing | None:
    """A Packing where this very model gives the same packed as padded, else None."""
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    if inner.config._attn_implementation != "sdpa":
        return None
    inner.set_attn_implementation(NAME)
    packing = Packing(module, offset=offset)
    if packing.can_place and agrees(packing):
        return packing
    inner.set_attn_implementation("sdpa")
    return None


@torch.no_grad()
def agrees(packing: Packing) -> bool:
    """Compare both ways on a few made-up texts, some of which begin alike; fp32."""
    inner, rng = packing.inner, np.random.default_rng(0)
    pad = inner.config.pad_token_id
    tokens = [i for i in rng.permutation(min(inner.config.vocab_size, 10_000)) if i != pad]
    prompt, others = np.resize(tokens, 10), np.resize(tokens[::-1], 60)
    sides = np.concatenate([prompt, others[:3]]), np.concatenate([prompt, others[3:9]])
    texts = [*sides, others[:12], others[20:25]]
    lengths = np.array([len(text) for text in texts])
    ids = np.concatenate(texts).astype(np.int32)
    padded = np.full((len(texts), lengths.max()), pad, dtype=np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded[mask] = ids
    was_training = inner.training
    inner.eval()
    try:
        given = [torch.from_numpy(x).to(inner.device) for x in (padded, mask.astype(np.int64))]
        plain = inner(input_ids=given[0], attention_mask=given[1]).logits.float()
        found = packing(ids, np.cumsum(lengths) - lengths, lengths).float()
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        return False  # it does not take what packing needs: padded, it will do
    finally:
        inner.train(was_training)
    same_shape = found.shape == plain.shape
    return same_shape and bool((found - plain).abs().max() <= CLOSE * (plain.std(0).min()))
