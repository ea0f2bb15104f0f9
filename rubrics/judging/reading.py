"""What a model said, read: strict about meaning, lenient about form.

A reply that could mean two things means nothing: it is asked for again, never guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rubrics.judging.schemas import LABELS, SCORE_HIGH, SCORE_LOW, STRENGTHS
from rubrics.llm.parsing import read_json, without_thoughts

MAX_REASONING: Final = 8_000
TIES: Final = frozenset({"tie", "tied", "a tie", "draw", "equal", "both", "neither"})
NAMED: Final = re.compile(
    r"(?:the )?(?:(?:answer|response|candidate|option|assistant)[ :]*)?([a-z])(?: is better| wins)?"
)
BRACKETED: Final = re.compile(r"\[\[\s*([A-Za-z]+)\s*\]\]")
STATED: Final = re.compile(r"\bverdict\b[\s*_\"']*[:=][\s*_\"']*(tie|[A-Z])\b", re.IGNORECASE)
NUMBER: Final = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:%|/\s*\d+)?\s*")
SHORT: Final = 60  # characters of a reply that is a bare verdict
YES: Final = frozenset({"yes", "y", "true", "1"})
NO: Final = frozenset({"no", "n", "false", "0"})
NOT_APPLICABLE: Final = frozenset({"n/a", "na", "not applicable", "does not apply", "none"})


class Unreadable(ValueError):
    """A reply without the answer asked for. The message tells the model what it lacks."""


@dataclass(frozen=True, slots=True)
class Pair:
    """``winner`` is the slot, 0 or 1, None for a tie; ``sure`` in [.5, 1], None where not said."""

    winner: int | None
    strength: int
    sure: float | None
    reasoning: str


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in a reply, keys in lower case. Raises Unreadable."""
    try:
        found = read_json(text)
    except ValueError:
        raise Unreadable("there is no JSON object in it") from None
    return {str(key).strip().casefold(): value for key, value in found.items()}


def is_whole(text: str) -> bool:
    """Whether a reply is a complete JSON object: nothing was cut off it."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def reasoning_of(said: Mapping[str, Any]) -> str:
    text = said.get("reasoning")
    return bounded(text.strip()) if isinstance(text, str) else ""


def bounded(text: str, limit: int = MAX_REASONING) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def read_pair(text: str) -> Pair:
    """A verdict on two answers, from JSON or from a bare word. Raises Unreadable."""
    try:
        said = read_object(text)
    except Unreadable:
        said = {}
    if "verdict" not in said:
        return Pair(_bare(text), STRENGTHS[0], None, "")
    winner = _winner(said["verdict"])
    strength = number(said.get("strength"))
    told = strength is not None and strength in STRENGTHS
    sure = None if winner is None else confidence(said.get("confidence"))
    return Pair(
        winner, int(strength) if told and strength else STRENGTHS[0], sure, reasoning_of(said)
    )


def _bare(text: str) -> int | None:
    """A verdict outside JSON: the whole of a short reply, or one that is marked so."""
    text = without_thoughts(text)
    marks = {mark.casefold() for mark in BRACKETED.findall(text)}
    # A line further up may quote an answer; the last one is the model's own.
    marks |= {mark.casefold() for mark in STATED.findall(text.rstrip().rpartition("\n")[2])}
    if len(marks) == 1:
        return _winner(marks.pop())
    if not marks and len(text) <= SHORT and (_plain(text) in TIES or label(text) in (0, 1)):
        return _winner(text)
    raise Unreadable('it has no "verdict"')


def _winner(said: object) -> int | None:
    """The slot that won, None for a tie. Raises Unreadable."""
    if not isinstance(said, str):
        raise Unreadable('"verdict" is not a letter')
    if _plain(said) in TIES:
        return None
    at = label(said)
    if at is None or at > 1:
        raise Unreadable('"verdict" is neither "A" nor "B"')
    return at


def _plain(said: str) -> str:
    return " ".join(re.sub(r"[^\w /]", " ", said.casefold()).split())


def label(said: object) -> int | None:
    """The slot that a letter names: "b", "Answer B", "[[B]]". None for anything else."""
    found = NAMED.fullmatch(_plain(said)) if isinstance(said, str) else None
    return LABELS.index(found[1].upper()) if found else None


def number(said: object) -> float | None:
    """A finite number, also as "7", "7/10" or "85%"; None for anything else."""
    if isinstance(said, bool):
        return None
    if isinstance(said, str):
        found = NUMBER.fullmatch(said[:40])
        return float(found[1]) if found else None
    if isinstance(said, int | float) and abs(said) < 1e9 and math.isfinite(said):
        return float(said)
    return None


def confidence(said: object) -> float | None:
    """A stated confidence as a probability from one half to 1; less than half is half.

    Percent, or a share where it is a fraction below 1. None for what is neither.
    """
    value = number(said)
    if value is None or not 0 <= value <= 100:
        return None
    if value < 1:
        return max(0.5, value)
    return max(0.5, value / 100) if value > 1 else None  # 1 could be either


def read_score(text: str) -> tuple[float, str]:
    """(score, reasoning) of one answer. Raises Unreadable."""
    said = read_object(text)
    return _in_range(said.get("score"), SCORE_LOW, SCORE_HIGH, '"score"'), reasoning_of(said)


def _in_range(said: object, low: int, high: int, name: str) -> float:
    value = number(said)
    if value is None or not low <= value <= high:
        raise Unreadable(f"{name} is not a number from {low} to {high}")
    return value


def read_ratings(text: str, names: Sequence[str], *, low: int, high: int) -> tuple[list[int], str]:
    """(a whole number per name, reasoning). Raises Unreadable."""
    said = read_object(text)
    given = _mapping(said.get("scores"), "scores")
    folded = {_folded(key): value for key, value in given.items()}
    values = []
    for name in names:
        value = _in_range(given.get(name, folded.get(_folded(name))), low, high, f'"{name[:40]}"')
        if not value.is_integer():
            raise Unreadable(f'"{name[:40]}" is not a whole number')
        values.append(int(value))
    return values, reasoning_of(said)


def _mapping(said: object, name: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise Unreadable(f'"{name}" is not an object')
    return {str(key): value for key, value in said.items()}


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def read_list(text: str, size: int) -> tuple[list[int], list[float | None], str]:
    """(place per slot from 1, score per slot, reasoning). Raises Unreadable.

    The ranking decides; where it is not complete, complete scores do, with ties.
    """
    said = read_object(text)
    scores = _scores(said.get("scores"), size)
    order = _ranking(said.get("ranking"), size)
    if order is not None:
        places = [order.index(slot) + 1 for slot in range(size)]
    elif None not in scores:
        levels = sorted({score for score in scores if score is not None}, reverse=True)
        places = [levels.index(score) + 1 for score in scores if score is not None]
    else:
        raise Unreadable('"ranking" does not name every letter once')
    return places, scores, reasoning_of(said)


def _ranking(said: object, size: int) -> list[int] | None:
    if isinstance(said, str):
        said = re.split(r"\s*[>,]\s*", said)
    if not isinstance(said, list):
        return None
    order = [label(one) for one in said]
    known = [at for at in order if at is not None]
    return known if len(order) == size and sorted(known) == list(range(size)) else None


def _scores(said: object, size: int) -> list[float | None]:
    given: dict[int | None, object] = {}
    if isinstance(said, dict):
        given = {label(key): value for key, value in said.items()}
    values = [number(given.get(slot)) for slot in range(size)]
    return [
        value if value is not None and SCORE_LOW <= value <= SCORE_HIGH else None
        for value in values
    ]


def read_checks(text: str, lines: int) -> tuple[list[int | None], str]:
    """(1 yes, 0 no, None does not apply, per line; reasoning). Raises Unreadable."""
    said = read_object(text)
    answers = said.get("answers")
    if isinstance(answers, list) and len(answers) == lines:
        answers = {str(at): value for at, value in enumerate(answers, start=1)}
    given = _mapping(answers, "answers")
    stripped = {key.strip().rstrip("."): value for key, value in given.items()}
    return [_check(stripped, str(at)) for at in range(1, lines + 1)], reasoning_of(said)


def _check(given: Mapping[str, Any], key: str) -> int | None:
    if key not in given:
        raise Unreadable(f'line "{key}" has no answer')
    word = str(given[key]).strip().strip(".").casefold()
    if word in YES or word in NO:
        return int(word in YES)
    if word in NOT_APPLICABLE:
        return None
    raise Unreadable(f'line "{key}" is neither "yes", "no" nor "n/a"')
