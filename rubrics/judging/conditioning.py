"""Criteria as the lines of a prompt: what speaks against an answer, what matters most, said in words.

A language model that compares two answers is given the criteria as plain lines. What a number says
elsewhere is said here: a criterion of negative weight begins with ``AGAINST``, and where weights
differ every line ends in its share of all of them, the weightiest first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

AGAINST: Final = "Speaks against an answer: "
SHARE: Final = re.compile(r"\s*\(weight (\d{1,3}(?:\.\d)?) %\)\s*\Z")
EVEN: Final = 1e-9  # weights whose sizes differ by less, relative to the largest, are the same


@dataclass(frozen=True, slots=True)
class Condition:
    """A criterion. ``weight`` is signed for a yes; ``theme`` names what it belongs to, or nothing."""

    text: str
    weight: float = 1.0
    theme: str = ""


def lines(criteria: Sequence[Condition]) -> list[str]:
    """One line per criterion that weighs anything, those of a theme together.

    Themes, and criteria within one, stand by weight where weights differ, else in their order.
    """
    given = [one for one in criteria if one.weight]
    whole = sum(abs(one.weight) for one in given)
    sizes = [abs(one.weight) for one in given]
    is_weighted = bool(given) and max(sizes) - min(sizes) > EVEN * max(sizes)
    if is_weighted:
        given = sorted(given, key=lambda one: -abs(one.weight))
    themes: dict[str, list[Condition]] = {}
    for at, one in enumerate(given):
        themes.setdefault(one.theme or f"\0{at}", []).append(one)
    groups = list(themes.values())
    if is_weighted:
        groups.sort(key=lambda group: -sum(abs(one.weight) for one in group))
    return [
        _line(one, abs(one.weight) / whole if is_weighted else None)
        for group in groups
        for one in group
    ]


def read(line: str) -> tuple[str, int, float]:
    """(criterion, 1 or -1 where it speaks against, weight) of a line; the weight is 1 if unsaid."""
    found = SHARE.search(line)
    weight = float(found[1]) / 100 if found else 1.0
    text = line[: found.start()] if found else line
    if text.startswith(AGAINST):
        return text.removeprefix(AGAINST), -1, weight
    return text, 1, weight


def _line(one: Condition, share: float | None) -> str:
    theme = f"{one.theme}: " if one.theme and one.theme.casefold() != one.text.casefold() else ""
    against = AGAINST if one.weight < 0 else ""
    weight = "" if share is None else f" (weight {100 * share:.1f} %)"
    return " ".join(f"{against}{theme}{one.text}{weight}".split())
