"""Checkpoints and artifacts: folders that appear whole or not at all."""

from __future__ import annotations

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
from torch import nn

KEPT: Final = 2
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
    keep: Collection[int] = (),
) -> int:
    """Write ``folder/step-N`` and return its size in bytes; older ones are dropped.

    The last two are kept, the one of the best step, and those of the steps in ``keep``.
    """
    state = {
        "progress": asdict(progress),
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    target = folder / f"step-{progress.step}"
    with whole_folder(target) as partial, (partial / STATE).open("wb") as file:
        torch.save(state, file)
    newest = steps(folder)[-KEPT:]
    for step in steps(folder):
        if step not in (*newest, progress.best_step, *keep):
            shutil.rmtree(folder / f"step-{step}")
    return (target / STATE).stat().st_size


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, ascending."""
    names = [path.name.removeprefix("step-") for path in folder.glob("step-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def load_latest(
    folder: Path, fingerprint: str, device: torch.device, on_damage: Callable[[str], object]
) -> dict[str, Any] | None:
    """The newest readable state of this very run, or None.

    ``on_damage(message)`` hears of every checkpoint that was passed over.
    """
    for step in reversed(steps(folder)):
        try:
            state = load_state(folder, step, device)
        except UNREADABLE_FILE as error:
            on_damage(f"Checkpoint step-{step} cannot be read and is passed over: {error}")
            continue
        if state["progress"]["fingerprint"] == fingerprint:
            return state
        on_damage(f"Checkpoint step-{step} is of other data or options and is removed.")
        shutil.rmtree(folder / f"step-{step}")  # else it would count among the last two
    return None


def load_state(folder: Path, step: int, device: torch.device) -> dict[str, Any]:
    """The state saved at ``step``. Raises one of UNREADABLE_FILE."""
    state: dict[str, Any] = torch.load(
        folder / f"step-{step}" / STATE, map_location=device, weights_only=True
    )
    return state


def restore(state: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put model, optimizer and random generators back as they were."""
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"].cpu())
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
    return Progress(**state["progress"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
