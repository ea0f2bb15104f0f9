"""The one door to torch: imports of ``models.neural`` happen here, inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.pairs import Answer, Message


class RewardModel(Protocol):
    """A loaded reward model."""

    about: dict[str, Any]
    """What was stored with it: config and metrics."""

    def score(self, conversations: Sequence[tuple[list[Message], Answer]]) -> NDArray[np.float64]:
        """Rewards (m,) of m (prompt messages, response). Comparable within one prompt only."""
        ...


def load_reward_model(path: Path | str, *, device: str = "") -> RewardModel:
    """The reward model saved in the folder ``path``, ready to score.

    ``device`` as torch names it; empty is CUDA where there is one, else the CPU. A plain
    transformers folder with one output is read too. Raises BadArtifact.
    """
    from models.neural.scoring import Scorer

    return Scorer(Path(path), device=device)


def torch_version() -> str | None:
    """The installed torch, without importing it; None where there is none."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
