"""How much memory a training run will take, known before its first update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
import torch
from torch import Tensor, nn

from models.neural.team import Team
from models.workdir import write_json

ADAM_STATES: Final = 2  # numbers kept for every trained one
FEW: Final = 4  # tokens that a model is measured on
MORE: Final = 16  # any model reads as many
NOTE: Final = "room.json"  # in a run's folder: how much there was room for


@dataclass(frozen=True)
class Room:
    """Bytes. ``activations`` are those of the largest forward pass, of ``tokens``."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    tokens: int
    free: int  # before gradients, optimizer and activations

    @property
    def fits(self) -> bool:
        return self.gradients + self.optimizer + self.activations <= self.free

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            f"activations of {self.tokens:,} tokens": self.activations,
        }
        told = ", ".join(f"{name} {amount / 1e6:,.0f} MB" for name, amount in parts.items())
        total = sum(parts.values()) / 1e6
        return f"Memory, estimated: {total:,.0f} MB ({told}); {self.free / 1e6:,.0f} MB are free."

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def estimate(
    module: nn.Module, *, per_token: float, tokens: int, device: torch.device, shares: int = 1
) -> Room:
    """For AdamW on ``module`` as it is: loaded, nothing trained yet, later in so many shares."""
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    own, own_trained = size // shares, trained // shares
    return Room(
        weights=own,
        gradients=own_trained,
        optimizer=ADAM_STATES * own_trained,
        activations=int(per_token * tokens),
        tokens=tokens,
        free=free(device) + size - own,
    )


def free(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def bytes_per_token(module: nn.Module, run: Callable[[int], Tensor]) -> float:
    """What autograd keeps for each token of ``run(tokens)``: the slope between two lengths.

    Counted, not derived, so it holds for any model, with checkpointing and in any precision.
    """
    module.train()  # checkpointing is off outside of it
    with torch.random.fork_rng():  # dropout draws nothing from the run's numbers
        few, more = (_kept(module, run, tokens) for tokens in (FEW, MORE))
    return max(more - few, 0) / (MORE - FEW)


def _kept(module: nn.Module, run: Callable[[int], Tensor], tokens: int) -> int:
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage  # held, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run(tokens)
    return sum(storage.nbytes() for storage in seen.values())


def note(workdir: Path, backbone: Any) -> None:
    """Write down how much a team's processes shall read at a time when they are started again."""
    tokens = backbone.options.tokens_per_forward
    write_json(workdir / NOTE, {"tokens": tokens, "recomputes": backbone.recomputes})


def level(workdir: Path, backbone: Any, team: Team) -> None:
    """Let all of a team read as much at a time as the one with the least room, or as was noted."""
    options = backbone.options
    noted = {"tokens": options.tokens_per_forward, "recomputes": False}
    if (workdir / NOTE).exists():
        noted = orjson.loads((workdir / NOTE).read_bytes())
    tokens = min(int(noted["tokens"]), options.tokens_per_forward)
    options.tokens_per_forward = team.least(tokens)
    if team.any(bool(noted["recomputes"]) or backbone.recomputes)[0]:
        backbone.recompute()
