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
            found = self._outputs(chunk)
            rewards[start : start + len(chunk)] = self.objective.scores(found).numpy()
        return rewards

    def score_members(
        self, conversations: Sequence[tuple[list[Message], Answer]]
    ) -> NDArray[np.float64]:
        """Scores (k, m) by each member of an ensemble, on one scale; of one model its rewards."""
        return self.score(conversations)[None]

    def margins(self, pairs: Sequence[tuple[list[Message], Answer, Answer]]) -> NDArray[np.float64]:
        """Log-odds (n,) that the first of two answers to a prompt is better.

        The difference of two scores where answers have one; a general preference model compares
        the two directly, and its margins may go in circles.
        """
        margins = np.empty(len(pairs))
        size = CONVERSATIONS_AT_ONCE // 2
        for start in range(0, len(pairs), size):
            sides = [(p, one) for p, *two in pairs[start : start + size] for one in two]
            found = self._outputs(sides, together=2)
            margins[start : start + size] = self.objective.margins(found).numpy()
        return margins

    def _outputs(
        self, conversations: Sequence[tuple[list[Message], Answer]], *, together: int = 1
    ) -> torch.Tensor:
        cleaned = [clean_conversation(one) for one in conversations]
        store = pack(self.backbone.encode(cleaned))
        rows = np.arange(len(cleaned))
        return outputs(self.backbone, store, rows, check=lambda: None, together=together)

    def read_less(self) -> bool:
        """Halve what goes through the model at once; False where that is no more than one text."""
        options = self.backbone.options
        tokens = getattr(options, "tokens_per_forward", 0)
        if tokens <= FEWEST_TOKENS:
            return False
        options.tokens_per_forward = tokens // 2
        return True


def clean_conversation(given: tuple[list[Message], Answer]) -> tuple[list[Message], Answer]:
    """A prompt and an answer as any tokenizer takes them."""
    prompt, answer = given
    return _clean(prompt), _clean_answer(answer)


def _clean(messages: list[Message]) -> list[Message]:
    return [m | {"content": clean_text(m["content"])} for m in messages]


def _clean_answer(answer: Answer) -> Answer:
    if is_picture(answer):
        return answer
    return clean_text(answer) if isinstance(answer, str) else _clean(as_messages(answer))
