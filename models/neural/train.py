"""Train one reward model: ``python -m models.neural.train WORKDIR``.

Says what it does as JSON lines on stdout, and ends with one of the codes of models.supervision.
Of several processes (``--launched``, models.neural.team) the first one speaks and writes; the
others say only why they failed.
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
from models.neural.account import versions
from models.neural.ensemble import Ensemble
from models.neural.loop import Trainer
from models.neural.process import (
    LOCK_WAIT,
    Events,
    StartAgain,
    Stop,
    Stopped,
    lock,
    take_stdout,
)
from models.neural.team import Team, is_lost, join
from models.pairs import data_sha256
from models.supervision import EXIT_AGAIN, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, MEMORY_ADVICE
from models.training import TrainingConfig
from models.workdir import CACHE, CHECKPOINTS, METRICS, read_metrics

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_WORDS: Final = ("no space left", "file too large", "quota exceeded")
FAILURES: Final = frozenset({"failed", "again"})
LOST: Final = "One of the processes that trained together was lost."
LESS: Final = f"Most often memory ran out there: {MEMORY_ADVICE[0].lower()}{MEMORY_ADVICE[1:]}"
NO_MEMORY_WORDS: Final = ("not enough memory", "out of memory", "bad_alloc", "cannot allocate")


def main() -> int:
    """Run the child process and return its exit code."""
    parser = argparse.ArgumentParser(description="Train a reward model in a prepared folder.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--supervised", action="store_true", help="end when stdin closes")
    parser.add_argument("--launched", action="store_true", help="one of several processes")
    arguments = parser.parse_args()
    stop, emit = Stop(), Events(take_stdout())
    stop.on_sigterm()
    if arguments.supervised:
        stop.on_orphaned()
    if arguments.launched:
        return together(arguments.workdir, emit=emit, stop=stop)
    return work(arguments.workdir, emit=emit, stop=stop)


def together(workdir: Path, *, emit: Events, stop: Stop) -> int:
    """Take part in a training by several processes, of which this is one.

    After an error it ends at once: waiting for others who wait for this one would take for ever,
    and the launcher ends them.
    """
    team = join()
    if not team.is_first:
        emit.only = FAILURES
    code = work(workdir, emit=emit, stop=stop, team=team)
    if code not in (EXIT_DONE, EXIT_STOPPED):
        sys.stderr.flush()
        os._exit(code)
    # Nobody hangs up on one who still speaks; and the threads behind the group are not waited for
    # at the interpreter's end, which some of them answer by aborting.
    team.wait()
    team.leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_DONE)  # stopped too: to the launcher any other code is a failure


def work(
    workdir: Path,
    *,
    emit: Events,
    stop: Stop,
    lock_wait: float = LOCK_WAIT,
    team: Team | None = None,
) -> int:
    """Take the folder, train, tell how it ended and return the exit code. Raises nothing."""
    try:
        if team and not team.is_first:
            return attempt(workdir, emit=emit, stop=stop, team=team)
        with lock(workdir, stop.check, lock_wait), emit.keep(workdir):
            return attempt(workdir, emit=emit, stop=stop, team=team)
    except Stopped:
        emit("stopped")
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - a boundary: the folder could not be taken
        tell(error, emit)
        return EXIT_FAILED


def attempt(workdir: Path, *, emit: Events, stop: Stop, team: Team | None) -> int:
    try:
        emit("done", **train(workdir, emit=emit, stop=stop, team=team))
        return EXIT_DONE
    except Stopped:
        emit("stopped")
        return EXIT_STOPPED
    except StartAgain:
        emit("again")
        return EXIT_AGAIN
    except Exception as error:  # noqa: BLE001 - the boundary: whatever went wrong is told
        tell(error, emit)
        return EXIT_FAILED


def train(workdir: Path, *, emit: Events, stop: Stop, team: Team | None = None) -> dict[str, Any]:
    """Train what ``workdir`` describes, or continue, or answer at once if it is done."""
    alone = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    team = team or Team(alone)
    config = TrainingConfig.read(workdir)
    metrics = team.tell(prepared(workdir, config) if team.is_first else None)
    if metrics is not None:
        return metrics
    emit("started", pid=os.getpid(), versions=versions(team.device) | count(team))
    if config.members > 1:
        return Ensemble(workdir, config, device=team.device, emit=emit, stop=stop).run()
    return Trainer(workdir, config, device=team.device, emit=emit, stop=stop, team=team).run()


def prepared(workdir: Path, config: TrainingConfig) -> dict[str, Any] | None:
    """What is known where the training is done; else the folder is made ready for it."""
    metrics = read_metrics(workdir)
    if metrics is not None:
        if metrics["fingerprint"] == config.fingerprint(data_sha256(workdir)):
            return metrics
        (workdir / METRICS).unlink()
    sweep(workdir)
    return None


def count(team: Team) -> dict[str, str]:
    """How many devices there are, where there are several."""
    how = "each with a share of the model" if team.is_sharded else "each with the whole model"
    return {"devices": f"{team.size}, {how}"} if team.size > 1 else {}


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
    if is_lost(error):
        return "crashed", LOST, f"Run it again: it goes on from its last checkpoint. {LESS}"
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
