"""What the decided pairs of one prompt say of each answer, told apart by its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from annotator.exporters.types import Rendered

REWARDS = (("chosen_reward", "rejected_reward"), ("chosen_rubric", "rejected_rubric"))


@dataclass
class Answer:
    """One text of a prompt, whichever generators wrote it; ``id`` is the first response's.

    ``points`` is the sum of the probabilities with which it won its ``met`` pairs.
    """

    id: int
    text: Any
    wins: int = 0
    losses: int = 0
    points: float = 0.0
    met: int = 0
    rewards: list[float] = field(default_factory=list)

    @property
    def net(self) -> int:
        return self.wins - self.losses

    @property
    def is_mixed(self) -> bool:
        return self.wins > 0 and self.losses > 0

    @property
    def standing(self) -> float:
        """Mean probability of winning, rounded so that equal ones are equal."""
        return round(self.points / self.met, 9)

    @property
    def reward(self) -> float | None:
        return self.rewards[0] if self.rewards else None


def answers_of(pairs: Sequence[Rendered]) -> list[Answer]:
    """The answers of the pairs of one prompt, in order of id.

    A pair that most call bad on both sides counts as a loss for both.
    """
    found: dict[bytes, Answer] = {}
    for one in pairs:
        verdict = one.decided.verdict
        sides = (
            (one.decided.chosen.id, one.chosen, verdict.p, 0),
            (one.decided.rejected.id, one.rejected, 1 - verdict.p, 1),
        )
        for pk, text, p, side in sides:
            answer = found.setdefault(text_key(text), Answer(pk, text))
            answer.id = min(answer.id, pk)
            answer.points += p
            answer.met += 1
            if verdict.kind == "both-bad":
                answer.losses += 1
            elif verdict.kind == "win":
                answer.wins += side == 0
                answer.losses += side == 1
            reward = _reward(one, side)
            if reward is not None:
                answer.rewards.append(reward)
    return sorted(found.values(), key=lambda answer: answer.id)


def text_key(text: Any) -> bytes:
    """Equal for answers that are written alike."""
    return text.encode() if isinstance(text, str) else orjson.dumps(text)


def _reward(one: Rendered, side: int) -> float | None:
    for names in REWARDS:
        if names[side] in one.cells:
            value: float | None = one.cells[names[side]]
            return value
    return None
