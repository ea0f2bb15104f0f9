"""Train one reward model: ``python -m models.neural.train WORKDIR``.

Says what it does as JSON lines on stdout, and ends with one of the codes of models.supervision.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

from models.errors import ModelsError
from models.neural.ensemble import Ensemble
from models.neural.loop import Trainer, versions
from models.neural.process import LOCK_WAIT, Events, Stop, Stopped, lock, take_stdout
from models.pairs import data_sha256
from models.supervision import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, MEMORY_ADVICE
from models.training import TrainingConfig
from models.workdir import CACHE, CHECKPOINTS, METRICS, read_metrics

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_WORDS: Final = ("no space left", "file too large", "quota exceeded")
NO_MEMORY_WORDS: Final = ("not enough memory", "out of memory", "bad_alloc", "cannot allocate")


def main() -> int:
    """Run the child process and return its exit code."""
    parser = argparse.ArgumentParser(description="Train a reward model in a prepared folder.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--supervised", action="store_true", help="end when stdin closes")
    arguments = parser.parse_args()
    stop, emit = Stop(), Events(take_stdout())
    stop.on_sigterm()
    if arguments.supervised:
        stop.on_orphaned()
    return work(arguments.workdir, emit=emit, stop=stop)


def work(workdir: Path, *, emit: Events, stop: Stop, lock_wait: float = LOCK_WAIT) -> int:
    """Take the folder, train, tell how it ended and return the exit code. Raises nothing."""
    try:
        with lock(workdir, stop.check, lock_wait), emit.keep(workdir):
            return attempt(workdir, emit=emit, stop=stop)
    except Stopped:
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - a boundary: the folder could not be taken
        tell(error, emit)
        return EXIT_FAILED


def attempt(workdir: Path, *, emit: Events, stop: Stop) -> int:
    try:
        emit("done", **train(workdir, emit=emit, stop=stop))
        return EXIT_DONE
    except Stopped:
        emit("stopped")
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - the boundary: whatever went wrong is told
        tell(error, emit)
        return EXIT_FAILED


def train(workdir: Path, *, emit: Events, stop: Stop) -> dict[str, Any]:
    """Train what ``workdir`` describes, or continue, or answer at once if it is done."""
    config = TrainingConfig.read(workdir)
    metrics = read_metrics(workdir)
    if metrics is not None:
        if metrics["fingerprint"] == config.fingerprint(data_sha256(workdir)):
            return metrics
        (workdir / METRICS).unlink()
    sweep(workdir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    emit("started", pid=os.getpid(), versions=versions(device))
    kind = Trainer if config.members == 1 else Ensemble
    return kind(workdir, config, device=device, emit=emit, stop=stop).run()


def sweep(workdir: Path) -> None:
    """Remove what a killed attempt left half-made."""
    for folder in (workdir, workdir / CHECKPOINTS, workdir / CACHE):
        for leftover in [*folder.glob("*.partial"), *folder.glob("*.replaced")]:
            if leftover.is_dir():
                shutil.rmtree(leftover)


def tell(error: Exception, emit: Events) -> None:
    """Say why on stdout first: where the disk is full, neither file nor log takes another line."""
    kind, reason, advice = explain(error)
    with suppress(OSError):
        emit("failed", kind=kind, reason=reason, advice=advice)
    with suppress(OSError):
        traceback.print_exception(error)


def explain(error: Exception) -> tuple[str, str, str]:
    """(kind, reason, advice) of a failure, for the user."""
    if isinstance(error, ModelsError):
        return error.kind, error.message, error.advice
    text = str(error).strip()
    first = text.split("\n")[0]
    words = text.lower()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(w in words for w in NO_MEMORY_WORDS)
    ):
        return "out-of-memory", f"Memory ran out. {first}".strip(), MEMORY_ADVICE
    if any(isinstance(e, OSError) and e.errno in NO_ROOM for e in causes(error)) or any(
        word in words for word in NO_ROOM_WORDS
    ):
        return "disk-full", f"The disk is full. {first}", "Free some space, then run it again."
    return "error", f"{type(error).__name__}: {first}", "See the end of the log."


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: torch hides a failed write behind an error of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main())
