"""How alike a causal language model holds two replies to one prompt: products of hidden states.

A reply of L tokens is the mean of the states that predict them: those of the last layer from the
last token of the prompt to the last but one of the reply, the end of its turn included. CHES of a
pair, normalized by length, is ``<h+, h-> - |h+|^2`` of the two means; unnormalized it is told mostly
by length. Identical replies are read once, so that theirs is 0 exactly.

Source: Razin et al. 2024, Unintentional Unalignment: Likelihood Displacement in DPO, 2410.08847.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.neural.causal import CausalModel
from models.neural.likelihood import DEFAULT, Asked, Limits, Splitter, Tokens, pad, require_known
from models.neural.memory import in_batches
from models.pairs import Message

Floats = NDArray[np.float64]


@torch.inference_mode()
def mean_states(
    model: CausalModel, asked: Sequence[Asked], *, limits: Limits = DEFAULT
) -> tuple[Floats, Counter[str]]:
    """The mean state (m, h) of each of m replies, NaN for one without a token, and what was done
    to the texts. Raises OutOfMemory, BadBackbone."""
    splitter = Splitter(model.tokenizer, model.limit(limits.max_length))
    texts, notes = splitter.split(asked, count_end=True)
    require_known(model, texts)
    found: list[Floats | None] = [None] * len(texts)

    def run(batch: list[int]) -> None:
        means = _means(model, [texts[i] for i in batch])
        for i, mean in zip(batch, means, strict=True):
            found[i] = mean

    in_batches(
        range(len(texts)),
        [len(text.ids) for text in texts],
        run,
        tokens=model.tokens_at_once(limits.tokens_per_forward),
        check=limits.check,
    )
    return np.stack([one for one in found if one is not None]), notes


def products(
    model: CausalModel,
    pairs: Sequence[tuple[list[Message], str, str]],
    *,
    limits: Limits = DEFAULT,
) -> tuple[Floats, Counter[str]]:
    """``<a, b>``, ``|a|^2``, ``|b|^2`` (n, 3) of the mean states of n pairs of replies."""
    places: dict[tuple[str, str], int] = {}
    asked: list[Asked] = []
    at = np.empty((len(pairs), 2), np.int64)
    for n, (prompt, *replies) in enumerate(pairs):
        key = repr(prompt)
        for side, reply in enumerate(replies):
            if (key, reply) not in places:
                places[key, reply] = len(asked)
                asked.append((prompt, reply))
            at[n, side] = places[key, reply]
    if not asked:
        return np.empty((0, 3)), Counter()
    states, notes = mean_states(model, asked, limits=limits)
    a, b = states[at[:, 0]], states[at[:, 1]]  # (n, h) each
    return np.stack([(a * b).sum(1), (a * a).sum(1), (b * b).sum(1)], axis=1), notes


def _means(model: CausalModel, batch: list[Tokens]) -> Floats:
    """(b, h). Padding is on the right, where no token of a reply sees it, and is in no mean."""
    ids, mask = pad(batch, model.device)  # (b, t) each
    states = model.states(ids, mask)  # (b, t, h)
    places = torch.arange(ids.shape[1], device=model.device)
    starts = torch.tensor([text.start - 1 for text in batch], device=model.device)
    ends = torch.tensor([len(text.ids) - 1 for text in batch], device=model.device)
    counted = (places >= starts[:, None]) & (places < ends[:, None])  # (b, t)
    total = torch.einsum("bth,bt->bh", states.double(), counted.double())
    means: Floats = (total / counted.sum(1, keepdim=True)).cpu().numpy()  # 0 / 0 is NaN
    return means
