"""How good a reward model is on held-out pairs, beside its baseline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.baselines import longer_wins
from models.intervals import Accuracy, estimate_accuracy
from models.neural.batches import cut
from models.neural.store import Store
from models.neural.team import Team

SEQUENCES_AT_ONCE: Final = 128


def outputs_of_pairs(
    backbone: Any,
    store: Store,
    pairs: NDArray[np.int64],
    check: Callable[[], None],
    *,
    team: Team | None = None,
) -> Tensor:
    """Outputs (2n, d) of both sides of the given pairs in turn; ``check`` may raise."""
    return outputs(backbone, store, store.sequences(pairs), check, together=2, team=team)


@torch.no_grad()
def outputs(
    backbone: Any,
    store: Store,
    sequences: NDArray[np.int64],
    check: Callable[[], None],
    *,
    together: int = 1,
    team: Team | None = None,
) -> Tensor:
    """Outputs (m, d) fp32 on the CPU of the given sequences, computed in order of length.

    So many neighbors stay ``together``: answers to one prompt, which may be read once. A ``team``
    reads in turns, and all of it have all outputs.
    """
    team = team or Team(torch.device("cpu"))
    backbone.module.eval()
    lengths = store.lengths[sequences].reshape(-1, together)  # (n, k)
    order = np.argsort(lengths.max(axis=1), kind="stable")  # neighbors need no padding
    found = torch.zeros(len(sequences), backbone.outputs)
    chunks = cut(order, SEQUENCES_AT_ONCE // together)
    parts = [chunk[part] for chunk in chunks for part in backbone.parts(lengths[chunk])]
    for turn in range(0, len(parts), team.size):
        check()
        place = turn + team.rank
        # As many passes for all: who has nothing left reads the last part again, for nothing.
        rows = parts[min(place, len(parts) - 1)][:, None] * together + np.arange(together)  # (b, k)
        members = rows.reshape(-1)
        read = partial(backbone.forward, store, sequences[members])
        values = team.run(read).cpu()
        if place < len(parts):
            found[members] = values
    return team.add_up(found)


def measure(
    margin: NDArray[np.float64], store: Store, pairs: NDArray[np.int64], *, seed: int
) -> dict[str, Any]:
    """Strict accuracy with interval, and loss, of log-odds (n,) that chosen is better.

    A margin of zero is wrong. Pairs whose own label is a tie (p = .5) cannot be got right: they are
    left out of accuracy and counted in ``ties``; the loss is over all pairs.
    """
    p = store.columns["p"][pairs].astype(float)
    decided = p != 0.5
    correct = np.where(p > 0.5, margin > 0, margin < 0)[decided]
    groups = store.columns["prompt_id"][pairs][decided]
    accuracy = estimate_accuracy(correct, groups, seed=seed, ties=int((~decided).sum()))
    loss = p * np.logaddexp(0, -margin) + (1 - p) * np.logaddexp(0, margin)  # (n,)
    return {
        **_fields(accuracy, ties=int((~decided).sum())),
        "loss": float(loss.mean()) if len(loss) else None,
        "margin": float(np.abs(margin).mean()) if len(loss) else None,
    }


def measure_longer(store: Store, pairs: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """The same for "longer wins", on the same pairs; here ``ties`` are equal lengths, wrong.

    None of it, with a ``reason``, where the answers are pictures.
    """
    p = store.columns["p"][pairs]
    decided = p != 0.5
    length = store.characters[store.sequences(pairs)].reshape(-1, 2)[decided]  # (n, 2)
    if len(length) and not store.characters.any():
        return _fields(None, ties=0) | {"reason": "The answers are pictures: none is longer."}
    better = np.where(p[decided, None] > 0.5, length, length[:, ::-1])
    groups = store.columns["prompt_id"][pairs][decided]
    return _fields(longer_wins(better[:, 0], better[:, 1], groups, seed=seed), ties=0)


def _fields(accuracy: Accuracy | None, *, ties: int) -> dict[str, Any]:
    if accuracy is not None:
        return accuracy.as_dict()
    nothing = dict.fromkeys(("accuracy", "interval", "interval_method"))
    return {**nothing, "n": 0, "groups": 0, "ties": ties}
