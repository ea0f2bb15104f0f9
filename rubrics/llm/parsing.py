"""Reads what a model was asked to write: a JSON object or a verdict token, however it is wrapped.

The text may be hostile. Nothing in it is executed, and the work is bounded: long texts are refused,
and every search stops after a number of tries.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import json_repair

from rubrics.llm.replies import without_bad_characters

MAX_CHARACTERS: Final = 200_000
MAX_REPAIRED: Final = 20_000  # characters; the repairer is slow and recursive
MAX_BRACES: Final = 500  # in what is repaired; each is a level of its recursion
MAX_STARTS: Final = 200  # opening braces at which an object is looked for
TOKEN: Final = re.compile(r"\[\[([^\[\]\n]{1,40})\]\]")
FENCE: Final = re.compile(r"\A```\w{0,10}\s")
END_OF_THOUGHT: Final = "</think>"
THOUGHT: Final = "<think>"


def read_json(text: str) -> dict[str, Any]:
    """The JSON object in a reply. Raises ValueError.

    Takes an object as it is, in a code fence, in the middle of prose (the last one counts) or after
    a <think> block; then one with trailing commas, single quotes or a missing end. Texts in it are
    free of NUL and of halves of characters; a number that is none (NaN) becomes None.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the reply has more than {MAX_CHARACTERS:,} characters")
    # First as a whole: a reasoning inside the object may quote a tag or a fence.
    whole = FENCE.sub("", text.strip()).removesuffix("```").strip()
    for all_of_it in _objects(whole, is_whole=True):
        return all_of_it
    spoken = without_thoughts(text)
    found = [*_objects(spoken)]
    return found[-1] if found else _repaired(spoken)


def read_token(text: str, allowed: Sequence[str]) -> str:
    """The last of ``allowed`` that stands as [[token]] in a reply, or is all of it.

    Case does not matter. Raises ValueError.
    """
    spoken = without_thoughts(text[:MAX_CHARACTERS])
    known = {token.casefold(): token for token in allowed}
    marked = [match.strip().casefold() for match in TOKEN.findall(spoken)]
    whole = spoken.strip(" \t\r\n.*`\"'[]()").casefold()
    for token in (*reversed(marked), whole):
        if token in known:
            return known[token]
    raise ValueError(f"the reply holds none of {', '.join(allowed)}")


def without_thoughts(text: str) -> str:
    """What follows the last </think>; of an unfinished <think> nothing."""
    _, _, spoken = text.rpartition(END_OF_THOUGHT)
    return spoken.partition(THOUGHT)[0].strip()


def _objects(text: str, *, is_whole: bool = False) -> Iterator[dict[str, Any]]:
    """Complete objects that stand in ``text``, not those inside one another.

    ``is_whole``: only one that begins and ends with the text.
    """
    decoder = json.JSONDecoder(strict=False)  # line ends within texts are common
    at = text.find("{")
    for _ in range(MAX_STARTS):
        if at < 0 or (is_whole and at > 0):
            return
        try:
            value, end = decoder.raw_decode(text, at)
            if not is_whole or not text[end:].strip():
                yield _clean(value)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)


def _repaired(text: str) -> dict[str, Any]:
    start = text.find("{")
    text = text[start : start + MAX_REPAIRED]
    if start < 0 or text.count("{") + text.count("[") > MAX_BRACES:
        raise ValueError("the reply holds no JSON object")
    try:
        value = json_repair.loads(text, skip_json_loads=True)
    except RecursionError:
        raise ValueError("the reply holds no JSON object") from None
    if isinstance(value, list):  # several things in a row
        value = next((one for one in reversed(value) if isinstance(one, dict)), None)
    if not isinstance(value, dict) or not value:
        raise ValueError("the reply holds no JSON object")
    cleaned: dict[str, Any] = _clean(value)
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_bad_characters(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {without_bad_characters(str(key)): _clean(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return value
