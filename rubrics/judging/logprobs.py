"""The probability of a verdict, from the log-probabilities of the token that says it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from rubrics.llm.types import Reply

TOP: Final = 10  # alternatives asked for: enough for the ways to write A, B and tie
KEY: Final = re.compile(r"\"verdict\"\s*:\s*\"?")
Alternatives = tuple[tuple[str, float], ...]


def first_wins(reply: Reply) -> float | None:
    """P(the answer shown first is better); a tie counts half. None where it cannot be read.

    The token that says the verdict is found by walking the reply; its alternatives are summed
    over the ways to write the same word (case, space, quotes) and no other token counts.
    """
    shares = word_shares(reply, _word)
    if shares is None:
        return None
    return shares.get("a", 0.0) + shares.get("tie", 0.0) / 2


def word_shares(reply: Reply, word: Callable[[str], str | None]) -> dict[str, float] | None:
    """Probabilities of the words a verdict can be, 1 in all. None where they cannot be read.

    ``word`` says which of them a token says or begins; tokens that are none do not count.
    """
    at = _where(reply.text)
    if at is None or reply.top_logprobs is None:
        return None
    shares: dict[str, float] = {}
    for token, logprob in _alternatives_at(reply.text, reply.top_logprobs, at) or ():
        if said := word(token):
            shares[said] = shares.get(said, 0.0) + math.exp(min(logprob, 0.0))
    total = sum(shares.values())
    return {said: share / total for said, share in shares.items()} if total > 0 else None


def _where(text: str) -> int | None:
    """Where the verdict's first letter stands; the reply has no reasoning that could quote one."""
    found = KEY.search(text)
    start = found.end() if found else 0
    letter = re.search(r"[A-Za-z]", text[start:])
    if letter is None or (found is None and len(text.split()) > 2):
        return None
    return start + letter.start()


def _alternatives_at(text: str, top: tuple[Alternatives, ...], at: int) -> Alternatives | None:
    """The alternatives of the token that covers a character; None where the walk gets lost.

    What was said at a position is the longest of its alternatives that the text goes on with.
    """
    end = 0
    for alternatives in top:
        fitting = [token for token, _ in alternatives if token and text.startswith(token, end)]
        if not fitting:
            return None
        end += len(max(fitting, key=len))
        if end > at:
            return alternatives
    return None


def _word(token: str) -> str | None:
    """The verdict that a token says or begins; None for any other."""
    word = re.sub(r"[\W_]+", "", token).casefold()
    if word in ("a", "b"):
        return word
    return "tie" if word in ("t", "ti", "tie") else None
