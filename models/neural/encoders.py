"""Pretrained encoders that are read and never trained: which one it is, and how it is loaded."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from transformers import AutoConfig

from models.errors import BadArtifact, BadBackbone
from models.workdir import write_json

ABOUT: Final = "encoder.json"
SAMPLES, SAMPLE_BYTES = 64, 65_536  # of a file of weights: no need to read 14 GB to know it
READ_WHOLE: Final = SAMPLES * SAMPLE_BYTES
SUFFIXES: Final = frozenset({".json", ".txt", ".model", ".jinja", ".safetensors", ".bin"})

Loaded = TypeVar("Loaded")


def load(argument: str, read: Callable[[], Loaded]) -> Loaded:
    """What ``read`` loads. Raises BadBackbone with what to do where it cannot be."""
    try:
        return read()
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        first = str(error).strip().split("\n")[0]
        raise BadBackbone(
            f"The model {argument!r} cannot be loaded: {first}",
            advice="Check the id or path. Without access to the hub, give a local folder.",
        ) from error


def read_config(argument: str) -> Any:
    """A model's configuration. Raises BadBackbone."""
    return load(argument, lambda: AutoConfig.from_pretrained(argument))


def identity(argument: str, config: Any) -> str:
    """Hex that changes with the weights of a model.

    A hub model is known by its commit, a folder by its small files and by samples of its large
    ones, their sizes included.
    """
    folder = Path(argument)
    sums = blake2b(digest_size=16)
    if folder.is_dir():
        files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
        for path in sorted(files):
            sums.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            _sample(path, sums.update)
    else:
        commit = getattr(config, "_commit_hash", None)
        sums.update(json.dumps([argument, commit]).encode())
    return sums.hexdigest()


def _sample(path: Path, update: Callable[[bytes], object]) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= READ_WHOLE:
            update(file.read())
            return
        for i in range(SAMPLES):
            file.seek(i * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            update(file.read(SAMPLE_BYTES))


def note(folder: Path, argument: str, known: str) -> None:
    """Write down in a saved model which encoder it reads."""
    write_json(folder / ABOUT, {"model": argument, "identity": known})


def noted(folder: Path) -> tuple[str, str]:
    """(model, identity) of the encoder that a saved model reads. Raises BadArtifact."""
    try:
        about = orjson.loads((folder / ABOUT).read_bytes())
        return str(about["model"]), str(about["identity"])
    except (OSError, KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise BadArtifact(f"{folder.name}/{ABOUT} cannot be read ({error}).") from error


def require_same(argument: str, *, known: str, now: str) -> None:
    """Raises BadArtifact where a model is no longer the one that a probe was trained on."""
    if known != now:
        raise BadArtifact(
            f"The model {argument!r} is not the one this reward model was trained with.",
            advice="Put back that model, or train again.",
        )
