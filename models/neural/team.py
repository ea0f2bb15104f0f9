"""Several processes that train one model, each on a device of its own.

``accelerate launch`` starts them (models.launching); here is what they say to each other. Either
each holds the whole model, and gradients are averaged (DDP), or each holds a share of weights,
gradients and optimizer, and a layer's weights are put together when it is read (FSDP2).

Everything that talks is called by all of them in the same order, and waits for all. What is to be
done next is therefore computed alike by all of them, or agreed on. One process alone is a team too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor

# One may encode texts for hours while others wait. That one is lost is noticed by the launcher.
PATIENCE: Final = timedelta(days=7)
SHARDED: Final = "ACCELERATE_USE_FSDP"  # of the environment, by accelerate launch
LOST_WORDS: Final = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")

Result = TypeVar("Result")


class Team:
    """This process alone."""

    rank, size = 0, 1
    is_sharded = False  # whether each holds a share of the weights only

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and tells how it goes."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is set for any of them."""
        return list(flags)

    def least(self, number: int) -> int:
        """The least of their numbers."""
        return number

    def tell(self, value: Result) -> Result:
        """What the first one says; it has to be small."""
        return value

    def collect(self, value: Result) -> list[Result]:
        """What each says, in order; it has to be small."""
        return [value]

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of their tensors, on the device of ``values``."""
        return values

    def wait(self) -> None:
        """Go on when all are here."""

    def share(self, module: nn.Module) -> None:
        """Train ``module`` together from now on. In place: its weights may become shares."""

    def run(self, work: Callable[[], Result]) -> Result:
        """``work``, which is one forward pass of the shared module."""
        return work()

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a part of an update; gradients are of all parts
        and, divided by ``size``, of all processes after the last."""
        return nullcontext()

    def leave(self) -> None:
        """Say goodbye; the last thing that is said."""


class Launched(Team):
    """This process and those that accelerate launched with it."""

    def __init__(self, *, rank: int, size: int, device: torch.device, is_sharded: bool) -> None:
        super().__init__(device)
        self.rank, self.size, self.is_sharded = rank, size, is_sharded
        self.reader: Any = None

    def any(self, *flags: bool) -> list[bool]:
        found = torch.tensor(flags, dtype=torch.int32, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def least(self, number: int) -> int:
        found = torch.tensor(number, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MIN)
        return int(found)

    def tell(self, value: Result) -> Result:
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def collect(self, value: Result) -> list[Result]:
        boxes: list[Any] = [None] * self.size
        distributed.all_gather_object(boxes, value)
        return boxes

    def add_up(self, values: Tensor) -> Tensor:
        found = values.to(self.device)
        distributed.all_reduce(found)
        return found.to(values.device)

    def wait(self) -> None:
        self.any(False)

    def share(self, module: nn.Module) -> None:
        reader = Reader(module)
        if not self.is_sharded:
            on = [self.device.index] if self.device.type == "cuda" else None
            self.reader = nn.parallel.DistributedDataParallel(
                reader, device_ids=on, broadcast_buffers=False, find_unused_parameters=True
            )
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        for layer in layers(module):
            fully_shard(layer, mesh=mesh)
        self.reader = fully_shard(reader, mesh=mesh)

    def run(self, work: Callable[[], Result]) -> Result:
        if self.reader is None or not (self.is_sharded or torch.is_grad_enabled()):
            return work()  # whole weights: nobody else is needed to read with them
        found: Result = self.reader(work)
        if self.is_sharded and not torch.is_grad_enabled():
            self.reader.reshard()  # which a backward pass does by itself
        return found

    @contextmanager
    def accumulate(self, *, is_last: bool) -> Iterator[None]:
        # Shares are sent off after every part: whole gradients are what they save the room of.
        with nullcontext() if is_last or self.is_sharded else self.reader.no_sync():
            yield

    def leave(self) -> None:
        distributed.destroy_process_group()


class Reader(nn.Module):
    """Does whatever is asked of it: DDP and FSDP see by it where a forward pass begins and ends."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], Result]) -> Result:
        return work()


def join() -> Team:
    """The processes that accelerate launched together with this one."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    is_sharded = os.environ.get(SHARDED, "").lower() == "true"
    device = torch.device(state.device.type) if state.device.type == "cpu" else state.device
    return Launched(
        rank=state.process_index, size=state.num_processes, device=device, is_sharded=is_sharded
    )


def layers(module: Any) -> list[nn.Module]:
    """The parts of a transformer that are read one after another, as it names them itself."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    names = getattr(base, "_no_split_modules", None) or ()
    return [part for part in base.modules() if type(part).__name__ in names]


def whole(value: Any, *, keep: bool) -> Any:
    """Tensors put together from the shares of all, in dicts and lists; ``keep`` them, or only
    take part, which gives None for each."""
    if isinstance(value, DTensor):
        found = value.full_tensor()
        return found.cpu() if keep else None
    if isinstance(value, dict):
        return {name: whole(one, keep=keep) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one, keep=keep) for one in value]
    return value


def as_in(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which all have, cut into shares where ``other`` is."""
    if not isinstance(other, DTensor) or isinstance(value, DTensor):
        return value
    moved = value.to(other.device)
    return distribute_tensor(moved, other.device_mesh, other.placements, src_data_rank=None)


def clip(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Clip the gradients to a norm; returns the norm () that they had."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def is_lost(error: BaseException) -> bool:
    """Whether this is how torch says that another process is gone."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in LOST_WORDS)
