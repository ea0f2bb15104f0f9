"""The folder of a training run: its on-disk contract.

In:   ``config.json`` (models.training.TrainingConfig), ``pairs-train.jsonl``,
      ``pairs-validation.jsonl``, ``pairs-test.jsonl``, ``lists-train.jsonl`` where there are
      rankings (models.pairs), ``attributes.json`` where there are ratings: their names in order.
      ``images/`` where answers are pictures.
Out:  ``events.jsonl`` (every event, appended), ``checkpoints/step-N/`` (atomic; the last two and
      the best), ``artifact/`` (the reward model, atomic), ``metrics.json`` (last: its presence
      says that the run is done), ``stderr.log``. ``cache/`` and ``lock`` are nobody's business.

A run killed at any moment is continued by running it again on the same folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import orjson

CONFIG: Final = "config.json"
METRICS: Final = "metrics.json"
EVENTS: Final = "events.jsonl"
STDERR: Final = "stderr.log"
LOCK: Final = "lock"
ARTIFACT: Final = "artifact"
CHECKPOINTS: Final = "checkpoints"
CACHE: Final = "cache"
PICTURES: Final = "images"
EMBEDDINGS: Final = "TOUCHSTONE_EMBEDDINGS"  # of the environment: where all runs keep embeddings
ATTRIBUTES: Final = "attributes.json"


def read_events(workdir: Path) -> list[dict[str, Any]]:
    """The events so far, oldest first; a last line still being written is left out."""
    path = workdir / EVENTS
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [orjson.loads(line) for line in whole.split(b"\n") if line]


def attributes_of(workdir: Path) -> tuple[str, ...]:
    """The attributes that responses of this folder are rated on."""
    try:
        return tuple(orjson.loads((workdir / ATTRIBUTES).read_bytes()))
    except FileNotFoundError:
        return ()


def read_metrics(workdir: Path) -> dict[str, Any] | None:
    """The results of a finished run, or None while it is not finished."""
    try:
        metrics: dict[str, Any] = orjson.loads((workdir / METRICS).read_bytes())
    except FileNotFoundError:
        return None
    return metrics


def write_json(path: Path, value: Any) -> None:
    """Write JSON to ``path`` whole or not at all; it is on disk when this returns."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
