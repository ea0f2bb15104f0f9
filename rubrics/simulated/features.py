"""What an answer looks like: the surface that a simulated judge goes by.

Each feature has a pattern that finds it in an answer, words by which a criterion names it, and
a weight in the judge's own taste. Length is the one feature that is a quantity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rubrics.judging import conditioning

USUAL_WORDS: Final = 60  # the length that is neither brief nor exhaustive
LENGTH: Final = "length"
PRESENCE: Final = 1.4  # utility of having a feature: differences spread by about one
LONGEST: Final = 50_000  # characters that are looked at


@dataclass(frozen=True)
class Feature:
    """``pattern`` finds it in the lower case of an answer; ``names`` finds it in a criterion.

    Text without any of ``hints`` is not searched: most answers lack most features.
    """

    pattern: re.Pattern[str]
    names: re.Pattern[str]
    taste: float
    hints: tuple[str, ...]

    def is_in(self, lowered: str) -> bool:
        for hint in self.hints:
            if hint in lowered:
                break
        else:
            if self.hints:
                return False
        return self.pattern.search(lowered) is not None


def _feature(pattern: str, names: str, taste: float, *hints: str) -> Feature:
    return Feature(
        re.compile(pattern, re.MULTILINE),
        re.compile(rf"\b(?:{names})", re.IGNORECASE),
        taste,
        hints,
    )


FEATURES: Final = {
    "citation": _feature(
        r"\[\d+\]|\(\w+,? (?:19|20)\d\d\)|https?://",
        r"cit(?:e|ing|ation)|sourc|referenc",
        0.9,
        "[",
        "(",
        "http",
    ),
    "list": _feature(
        r"^[ \t]*(?:[-*•]|\d+[.)])\s",
        r"lists?\b|bullet|enumerat|itemi[sz]",
        0.4,
        "- ",
        "* ",
        "• ",
        ". ",
        ") ",
    ),
    "code": _feature(r"```|`[^`\n]+`", r"code|snippet|program", 0.3, "`"),
    "heading": _feature(r"^#{1,6}\s", r"heading|headline|section title", 0.2, "# "),
    "bold": _feature(r"\*\*[^*\n]+\*\*", r"bold|emphasi[sz]", 0.1, "**"),
    "example": _feature(
        r"\b(?:for example|for instance|e\.g\.)", r"example|instance", 0.8, "for ", "e.g."
    ),
    "steps": _feature(
        r"\bstep by step\b|\bfirst,", r"steps?\b|stepwise|procedure", 0.6, "step by", "first,"
    ),
    "polite": _feature(
        r"\b(?:please|thank you|thanks|happy to help|you're welcome)\b",
        r"polite|courte|friendl|kind\b",
        0.4,
        "please",
        "thank",
        "happy to",
        "welcome",
    ),
    "numbers": _feature(r"\d", r"number|figure|quantit|statistic", 0.2),
    "hedge": _feature(
        r"\b(?:perhaps|maybe|not sure|it depends|might be)\b",
        r"hedg|uncertain|caveat",
        -0.6,
        "perhaps",
        "maybe",
        "not sure",
        "it depends",
        "might be",
    ),
    "refusal": _feature(
        r"\bi (?:can(?:no|')t|won't|am unable)\b|\bi'm sorry\b",
        r"refus|declin|evasi",
        -1.5,
        "i ca",
        "i wo",
        "i am",
        "i'm",
    ),
    "flattery": _feature(
        r"\b(?:great|wonderful|excellent) question\b", r"flatter|sycophan", -0.5, " question"
    ),
    "exclamation": _feature(r"!", r"exclam|enthusias", -0.2),
    "question": _feature(r"\?\s*\Z", r"asks? back|clarifying|follow-up", 0.0, "?"),
}
LENGTH_TASTE: Final = 0.2
BRIEF: Final = re.compile(
    r"\b(?:brief|brevity|short|concise|terse|succinct|to the point)", re.IGNORECASE
)
EXHAUSTIVE: Final = re.compile(
    r"\b(?:exhaust|thorough|long|detail|complete|comprehensive|elaborat|in depth)", re.IGNORECASE
)
NEGATED: Final = re.compile(
    r"\b(?:avoid\w*|no|not|never|without|free of|lacks?|fewer|less|n't)\b|n't\b", re.IGNORECASE
)


def length_of(text: str) -> float:
    """Log of the words over the usual number: 0 is usual, +1 is e times as long."""
    return math.log((len(text[:LONGEST].split()) + 1) / USUAL_WORDS)


@lru_cache(maxsize=4096)
def features_of(text: str) -> dict[str, float]:
    """Feature to 1 or 0, and ``length``. The dictionary is shared: do not change it."""
    looked = text[:LONGEST].lower()
    found = {name: float(feature.is_in(looked)) for name, feature in FEATURES.items()}
    found[LENGTH] = length_of(text)
    return found


@lru_cache(maxsize=4096)
def named_in(line: str) -> dict[str, int]:
    """The features one criterion names, +1 where it wants them, -1 where it does not.

    A line that says of itself that it speaks against an answer wants the opposite.
    """
    line, turned, _ = conditioning.read(line)
    sign = -turned if NEGATED.search(line) else turned
    named = {name: sign for name, feature in FEATURES.items() if feature.names.search(line)}
    brief, exhaustive = BRIEF.search(line), EXHAUSTIVE.search(line)
    if bool(brief) != bool(exhaustive):
        named[LENGTH] = -sign if brief else sign
    return named


def taste_of(text: str) -> float:
    """Utility by the judge's own taste."""
    found = features_of(text)
    liked = sum(feature.taste * found[name] for name, feature in FEATURES.items())
    return liked + LENGTH_TASTE * max(-2.0, min(2.0, found[LENGTH]))


def asked_for(lines: Iterable[str], text: str) -> float | None:
    """Utility by what the criteria name, by their weights; None where they name no feature."""
    wanted = [
        (name, sign * conditioning.read(line)[2])
        for line in lines
        for name, sign in named_in(line).items()
    ]
    size = math.sqrt(sum(weight**2 for _, weight in wanted))
    if not size:
        return None
    found = features_of(text)
    total = sum(
        weight * (found[name] if name == LENGTH else PRESENCE * found[name])
        for name, weight in wanted
    )
    return total / size


def named_share(lines: Sequence[str]) -> float:
    """The weight of the criteria that name a feature, of all: by the rest it goes by its own taste."""
    weights = [conditioning.read(line)[2] for line in lines]
    named = sum(weight for line, weight in zip(lines, weights, strict=True) if named_in(line))
    return named / sum(weights) if named else 0.0


def meets(line: str, text: str) -> bool | None:
    """Whether an answer does what one criterion names; None where it names no feature."""
    named = named_in(line)
    if not named:
        return None
    found = features_of(text)
    return all(
        (found[name] * sign > 0) if name == LENGTH else ((found[name] > 0) == (sign > 0))
        for name, sign in named.items()
    )
