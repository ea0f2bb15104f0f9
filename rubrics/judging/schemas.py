"""The reply asked for, per mode: as a JSON schema and in words. Reasons come before decisions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, Final

LABELS: Final = ascii_uppercase
SCORE_LOW: Final = 1
SCORE_HIGH: Final = 10
STRENGTHS: Final = (1, 2, 3)
YES_NO: Final = ("yes", "no", "n/a")
THINK: Final = (
    "Reason first, in a few sentences that name what in the answers decides; then decide."
)
NO_THINK: Final = "Decide without explaining yourself."

Schema = Mapping[str, Any]


def think(*, reasoning: bool) -> str:
    return THINK if reasoning else NO_THINK


@lru_cache(maxsize=256)
def pairwise(*, reasoning: bool, tie: bool) -> tuple[Schema, str]:
    verdicts = ["A", "B", "tie"] if tie else ["A", "B"]
    either = '"A", "B" or "tie"' if tie else '"A" or "B": choose one, however close they are'
    properties = {
        "verdict": {"type": "string", "enum": verdicts},
        "strength": {"type": "integer", "enum": list(STRENGTHS)},
        "confidence": {"type": "integer", "minimum": 50, "maximum": 100},
    }
    words = [
        f'"verdict": the better answer, {either}',
        '"strength": 1 if it is a little better, 2 if much better, 3 if very much better',
        (
            '"confidence": how sure you are of the verdict in percent, a whole number of at least 50, '
            "which is a coin toss, and at most 100"
        ),
    ]
    return _reply("pairwise", properties, words, reasoning=reasoning)


@lru_cache(maxsize=256)
def pointwise(*, reasoning: bool) -> tuple[Schema, str]:
    words = [f'"score": a whole number from {SCORE_LOW} to {SCORE_HIGH}, the higher the better']
    return _reply("pointwise", {"score": _score()}, words, reasoning=reasoning)


@lru_cache(maxsize=256)
def listwise(labels: str, *, reasoning: bool) -> tuple[Schema, str]:
    """``labels``: the letters shown, "ABC" for three answers."""
    properties = {
        "scores": _object({label: _score() for label in labels}),
        "ranking": {"type": "array", "items": {"type": "string", "enum": list(labels)}},
    }
    words = [
        (
            f'"scores": an object that gives each of {", ".join(labels)} a whole number from '
            f"{SCORE_LOW} to {SCORE_HIGH}, the higher the better"
        ),
        f'"ranking": a list of all {len(labels)} letters, the best answer first',
    ]
    return _reply("listwise", properties, words, reasoning=reasoning)


@lru_cache(maxsize=256)
def rating(
    attributes: tuple[str, ...], *, low: int, high: int, reasoning: bool
) -> tuple[Schema, str]:
    score = {"type": "integer", "minimum": low, "maximum": high}
    words = [
        (
            f'"scores": an object that gives each line of the section "attributes", word for word, '
            f"a whole number from {low} to {high}"
        )
    ]
    properties = {"scores": _object(dict.fromkeys(attributes, score))}
    return _reply("rating", properties, words, reasoning=reasoning)


@lru_cache(maxsize=256)
def checklist(lines: int, *, reasoning: bool) -> tuple[Schema, str]:
    """``lines``: how many there are; answers are keyed by number, "1" first."""
    each = {"type": "string", "enum": list(YES_NO)}
    properties = {"answers": _object({str(n): each for n in range(1, lines + 1)})}
    words = [
        (
            '"answers": an object that gives the number of each line of the section "checklist", '
            'as in "1", one of "yes", "no" and "n/a"'
        )
    ]
    return _reply("checklist", properties, words, reasoning=reasoning)


def _score() -> dict[str, Any]:
    return {"type": "integer", "minimum": SCORE_LOW, "maximum": SCORE_HIGH}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reply(
    title: str, properties: dict[str, Any], words: list[str], *, reasoning: bool
) -> tuple[Schema, str]:
    if reasoning:
        properties = {"reasoning": {"type": "string"}, **properties}
        words = ['"reasoning": what decides, in a few sentences', *words]
    lines = "\n".join(f"- {line}" for line in words)
    text = f"Reply with one JSON object and nothing else. Its keys, in this order:\n{lines}"
    return {"title": title, **_object(properties)}, text
