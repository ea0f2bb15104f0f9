"""How long a response is, and whether that is what the prompt asked for."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from rubrics.programs.case import Case, Prompt, Value, listed

NUMBERS: Final = {
    word: number
    for number, word in enumerate(
        listed(
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
            " sixteen seventeen eighteen nineteen twenty"
        ),
        start=1,
    )
}
NUMBERS.update({"thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "a hundred": 100})
NUMBER: Final = rf"(?:\d{{1,5}}|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"
_UNITS: Final = r"(?P<unit>word|sentence|paragraph|bullet point|bullet|line|item)s?"
_MOST: Final = (
    "at most|no more than|not more than|a maximum of|maximum of|maximum|fewer than|less than|under"
    "|below|within|up to|not exceed|not exceeding"
)
_LEAST: Final = (
    "at least|no fewer than|no less than|a minimum of|minimum of|minimum|more than|over|above"
)
_NEAR: Final = "in about|in around|in approximately|about|around|approximately|roughly"
_EXACT: Final = "exactly|in|using|into|contain|contains|containing|write|has|have|of|with|give me"
LIMIT: Final = re.compile(
    rf"\b(?:(?P<most>{_MOST})|(?P<least>{_LEAST})|(?P<near>{_NEAR})|(?P<exact>{_EXACT}))"
    rf" (?:your response |only |just |exactly )?(?P<number>{NUMBER})[ -]"
    rf"(?:[a-z]{{2,12}}+ )?{_UNITS}\b"
)
BETWEEN: Final = re.compile(
    rf"\b(?:between )?(?P<low>{NUMBER})(?: and | to | or |-|–| - | – )(?P<high>{NUMBER}) {_UNITS}\b"
)
ATTRIBUTE: Final = re.compile(rf"\b(?P<number>{NUMBER})-(?P<unit>word|sentence|paragraph)\b")
NEAR: Final = 0.2  # "about 100 words" is 80 to 120
FAR: Final = 10**9
STRICT: Final = frozenset({"fewer than", "less than", "under", "below"})
STRICT_LEAST: Final = frozenset({"more than", "over", "above"})


class Bounds(NamedTuple):
    """Both ends belong."""

    low: int
    high: int

    def hold(self, count: int) -> bool:
        return self.low <= count <= self.high


def number_of(text: str) -> int:
    return int(text) if text.isdigit() else NUMBERS[text]


def limits(prompt: Prompt) -> dict[str, Bounds]:
    """Unit -> the bounds that the prompt asks for. The first mention of a unit holds."""
    found: dict[str, Bounds] = {}
    for match in BETWEEN.finditer(prompt.request):
        low, high = number_of(match["low"]), number_of(match["high"])
        if low <= high:
            found.setdefault(_unit(match["unit"]), Bounds(low, high))
    for match in LIMIT.finditer(prompt.request):
        found.setdefault(_unit(match["unit"]), _bounds(match))
    for match in ATTRIBUTE.finditer(prompt.request):
        unit = match["unit"]
        number = number_of(match["number"])
        found.setdefault(unit, _about(number) if unit == "word" else Bounds(number, number))
    return found


def _unit(name: str) -> str:
    return "bullet" if name == "bullet point" else name


def _about(number: int) -> Bounds:
    return Bounds(round(number * (1 - NEAR)), round(number * (1 + NEAR)))


def _bounds(match: re.Match[str]) -> Bounds:
    number = number_of(match["number"])
    if match["most"]:
        return Bounds(0, number - (match["most"] in STRICT))
    if match["least"]:
        return Bounds(number + (match["least"] in STRICT_LEAST), FAR)
    # Nobody counts the words of "in 100 words": a fifth more or less is what was meant.
    counts_words = match["unit"] == "word" and match["exact"] != "exactly" and number > 3
    if match["near"] or (counts_words and " exactly " not in match[0]):
        return _about(number)
    return Bounds(number, number)


def characters(case: Case) -> Value:
    """Characters without the spaces around the response."""
    return float(len(case.bare))


def words(case: Case) -> Value:
    """Words; in scripts without spaces, characters."""
    return float(len(case.words))


def sentences(case: Case) -> Value:
    """Sentences outside of code."""
    return float(case.sentences)


def answered(case: Case) -> Value:
    """Says anything at all: a letter or a digit."""
    return any(map(str.isalnum, case.text))


def asked_words(case: Case) -> Value:
    bounds = case.prompt.read(limits).get("word")
    return None if bounds is None else bounds.hold(len(case.words))


def asked_sentences(case: Case) -> Value:
    bounds = case.prompt.read(limits).get("sentence")
    return None if bounds is None else bounds.hold(case.sentences)


def asked_paragraphs(case: Case) -> Value:
    bounds = case.prompt.read(limits).get("paragraph")
    return None if bounds is None else bounds.hold(case.paragraphs)


def asked_bullets(case: Case) -> Value:
    """Bullets or numbered items, whichever there are more of."""
    asked = case.prompt.read(limits)
    bounds = asked.get("bullet") or asked.get("item")
    return None if bounds is None else bounds.hold(max(case.items, case.numbered))
