"""Scores of a saved reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.neural.artifact import load_artifact
from models.neural.evaluate import outputs
from models.neural.store import pack
from models.pairs import Answer, Message, as_messages, clean_text, is_picture

CONVERSATIONS_AT_ONCE: Final = 4096  # encoded and held in memory together
FEWEST_TOKENS: Final = 16  # in one forward pass; a longer text is a pass by itself


class Scorer:
    """A reward model in memory."""

    def __init__(self, folder: Path, *, device: str = "") -> None:
        name = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.backbone, self.objective, self.about = load_artifact(folder, torch.device(name))

    def score(self, conversations: Sequence[tuple[list[Message], Answer]]) -> NDArray[np.float64]:
        """Rewards (m,) of m (prompt messages, response)."""
        rewards = np.empty(len(conversations))
        for start in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
            chunk = conversations[start : start + CONVERSATIONS_AT_ONCE]
            cleaned = [(_clean(prompt), _clean_answer(answer)) for prompt, answer in chunk]
            store = pack(self.backbone.encode(cleaned))
            found = outputs(self.backbone, store, np.arange(len(chunk)), check=lambda: None)
            rewards[start : start + len(chunk)] = self.objective.scores(found).numpy()
        return rewards

    def read_less(self) -> bool:
        """Halve what goes through the model at once; False where that is no more than one text."""
        options = self.backbone.options
        tokens = getattr(options, "tokens_per_forward", 0)
        if tokens <= FEWEST_TOKENS:
            return False
        options.tokens_per_forward = tokens // 2
        return True


def _clean(messages: list[Message]) -> list[Message]:
    return [m | {"content": clean_text(m["content"])} for m in messages]


def _clean_answer(answer: Answer) -> Answer:
    if is_picture(answer):
        return answer
    return clean_text(answer) if isinstance(answer, str) else _clean(as_messages(answer))
