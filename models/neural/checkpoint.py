"""Checkpoints and artifacts: folders that appear whole or not at all.

A checkpoint holds what training changes. Where it trains adapters and a head beside a pretrained
model (LoRA), that model is not copied: it is loaded again, and known by a digest. Several devices
write what one would, and either goes on from what the other wrote.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.neural.team import Team, as_in, whole

KEPT: Final = 2
SAMPLES: Final = 64  # of each weight that is not stored: enough to know another model by
ALONE: Final = Team(torch.device("cpu"))
STATE: Final = "state.pt"
READABLE, READABLE_FOLDER = 0o644, 0o755  # safetensors writes 0600, but the web side reads too
UNREADABLE: Final = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError)
UNREADABLE_FILE: Final = (*UNREADABLE, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass
class Progress:
    """Where a run is. Order of data and learning rate follow from ``step`` alone."""

    fingerprint: str
    step: int = 0  # updates done
    evaluated: int = 0  # step of the last evaluation
    best_step: int = 0  # step of the lowest validation loss
    best_loss: float = float("inf")
    seconds: float = 0.0  # spent in training, over all attempts
    pairs: int = 0  # trained on, over all attempts


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` at the end; on an error nothing is left."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            path.chmod(READABLE_FOLDER if path.is_dir() else READABLE)
            _sync(path)
        replaced = target.with_name(f"{target.name}.{os.getpid()}.replaced")
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        _sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_checkpoint(
    folder: Path,
    progress: Progress,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    frozen: str = "",
    keep: Collection[int] = (),
    team: Team = ALONE,
) -> int:
    """Write ``folder/step-N`` and return its size in bytes; older ones are dropped.

    The last two are kept, the one of the best step, and those of the steps in ``keep``. ``frozen``
    is the digest of what is left out. All of a ``team`` call it; the first one writes.
    """
    state = whole(
        {
            "progress": asdict(progress),
            "model": trained(module),
            "optimizer": optimizer.state_dict(),
            "frozen": frozen,
        },
        keep=team.is_first,
    )
    state |= _random(team)
    target, size = folder / f"step-{progress.step}", 0
    if team.is_first:
        with whole_folder(target) as partial, (partial / STATE).open("wb") as file:
            torch.save(state, file)
        newest = steps(folder)[-KEPT:]
        for step in steps(folder):
            if step not in (*newest, progress.best_step, *keep):
                shutil.rmtree(folder / f"step-{step}")
        size = (target / STATE).stat().st_size
    team.wait()
    return size


def trained(module: nn.Module) -> dict[str, Any]:
    """The weights of a model, less those that it only has on loan."""
    on_loan = borrowed(module)
    return {name: value for name, value in module.state_dict().items() if name not in on_loan}


def borrowed(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a pretrained model that stay as they are, beside adapters of it."""
    if not hasattr(module, "get_base_model"):
        return {}
    return {name: p for name, p in module.named_parameters() if not p.requires_grad}


def digest(module: nn.Module) -> str:
    """Changes with the weights that are on loan, known by samples; empty where there are none."""
    found = hashlib.blake2b(digest_size=16)
    on_loan = borrowed(module)
    for name, value in on_loan.items():
        flat = value.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLES)].float().cpu().numpy()
        found.update(f"{name} {tuple(value.shape)}".encode() + sample.tobytes())
    return found.hexdigest() if on_loan else ""


def put(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put back what ``trained`` gave. Raises RuntimeError where it is of another model."""
    own = module.state_dict()
    given = {name: own[name] for name in borrowed(module)} | weights
    module.load_state_dict({n: as_in(v, own[n]) if n in own else v for n, v in given.items()})


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, ascending."""
    names = [path.name.removeprefix("step-") for path in folder.glob("step-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def load_latest(
    folder: Path,
    fingerprint: str,
    device: torch.device,
    on_damage: Callable[[str], object],
    *,
    frozen: str = "",
) -> dict[str, Any] | None:
    """The newest readable state of this very run, or None.

    ``on_damage(message)`` hears of every checkpoint that was passed over; ``frozen`` is the digest
    of the weights that it does not hold.
    """
    for step in reversed(steps(folder)):
        try:
            state = load_state(folder, step, device)
        except UNREADABLE_FILE as error:
            on_damage(f"Checkpoint step-{step} cannot be read and is passed over: {error}")
            continue
        if state["progress"]["fingerprint"] != fingerprint:
            on_damage(f"Checkpoint step-{step} is of other data or options and is removed.")
        elif state.get("frozen", "") != frozen:
            on_damage(f"Checkpoint step-{step} is beside other pretrained weights and is removed.")
        else:
            return state
        shutil.rmtree(folder / f"step-{step}")  # else it would count among the last two
    return None


def load_state(folder: Path, step: int, device: torch.device) -> dict[str, Any]:
    """The state saved at ``step``. Raises one of UNREADABLE_FILE."""
    state: dict[str, Any] = torch.load(
        folder / f"step-{step}" / STATE, map_location=device, weights_only=True
    )
    return state


def restore(
    state: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    team: Team = ALONE,
) -> Progress:
    """Put model, optimizer and random generators back as they were."""
    put(module, state["model"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, values in state["optimizer"]["state"].items():
        own = parameters[place]
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == own.shape:
                values[name] = as_in(value, own)
    optimizer.load_state_dict(state["optimizer"])
    of_each = state.get("of_each") or [[state["rng"], *state["cuda_rng"]]]
    if len(of_each) == team.size:  # else another number of devices began this: new numbers
        rng, *cuda = (one.cpu() for one in of_each[team.rank])
        torch.set_rng_state(rng)
        if cuda and torch.cuda.is_available():
            _set_cuda(cuda, team)
    return Progress(**state["progress"])


def _random(team: Team) -> dict[str, Any]:
    """Random generators: this one's, or those of each of a team."""
    own, cuda = torch.get_rng_state(), torch.cuda.is_available()
    if team.size == 1:
        return {"rng": own, "cuda_rng": torch.cuda.get_rng_state_all() if cuda else []}
    return {"of_each": team.collect([own, *([torch.cuda.get_rng_state()] if cuda else [])])}


def _set_cuda(states: list[Tensor], team: Team) -> None:
    if team.size == 1:
        torch.cuda.set_rng_state_all(states)
    else:
        torch.cuda.set_rng_state(states[0])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
