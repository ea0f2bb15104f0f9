"""A reply as tokens with log-probabilities, as an endpoint reports them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TOKEN: Final = re.compile(r" ?\w+|\s+|[^\w\s]")
CHARS_PER_TOKEN: Final = 4  # of a prompt: the usual estimate
IMAGE_TOKENS: Final = 85
LEAST: Final = -20.0  # the log-probability of what was as good as impossible
PLAIN: Final = 0.98  # probability of a token that carries no decision

Spread = Sequence[tuple[str, float]]  # token and probability, best first


@dataclass(frozen=True)
class Said:
    """A reply. ``spreads``: where in the text a decision stands, and how else it could have gone.

    ``finish_reason`` is "length" where the text was cut.
    """

    text: str
    spreads: Mapping[int, Spread] = field(default_factory=dict)
    finish_reason: str = "stop"


def count(text: str) -> int:
    """Tokens of a reply."""
    return len(TOKEN.findall(text))


def estimate(text: str, images: int = 0) -> int:
    """Tokens of a prompt, roughly."""
    return len(text) // CHARS_PER_TOKEN + IMAGE_TOKENS * images + 1


def shortened(said: Said, limit: int) -> Said:
    """At most ``limit`` tokens; says so where it had to cut."""
    ends = [match.end() for match in TOKEN.finditer(said.text)]
    if len(ends) <= limit:
        return said
    return Said(said.text[: ends[limit - 1]] if limit else "", said.spreads, "length")


def log_probabilities(said: Said, top: int) -> list[dict[str, Any]]:
    """``logprobs.content`` of a choice: every token with its ``top`` likeliest alternatives."""
    content = []
    for match in TOKEN.finditer(said.text):
        spread = said.spreads.get(match.start())
        if spread is None:
            spread = [(match[0], PLAIN), ("\n", 1 - PLAIN)]
        ranked = sorted(spread, key=lambda pair: -pair[1])
        chances = dict(ranked)
        content.append(
            {
                **_one(match[0], chances.get(match[0], 0.0)),
                "top_logprobs": [_one(token, chance) for token, chance in ranked[:top]],
            }
        )
    return content


def _one(token: str, chance: float) -> dict[str, Any]:
    logprob = max(LEAST, math.log(chance)) if chance > 0 else LEAST
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
