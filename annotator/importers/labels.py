"""What a label says about two answers. Sources disagree on signs: they are settled here, once.

============ =============================== =================================================
scheme       raw values                      meaning
============ =============================== =================================================
``words``    a, b, model_a, left, tie, ...   also the very text of one of the answers
``one-two``  1, 2; 0 or 1.5 a tie            PandaLM, LLMBar, AlpacaEval
``zero-one`` 0, 1; 0.5 a tie                 the index of the better answer
``signed``   -3 ... 3                        negative: the first is better; size is strength
             (HelpSteer2-Preference, Think-RM; a y of +1 for "the right one", as in PAL)
``share-a``  0 ... 1                         the first answer's share (Pick-a-Pic label_0)
============ =============================== =================================================

``one-two-words`` is ``one-two`` where a tie may also be a word: PandaLM's judges write Tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers.types import BadRow

# (outcome, strength, both_bad): outcome 1 the first is better, -1 the second, 0 a tie.
Reading = tuple[int, int, bool]
Scheme = Callable[[Any], Reading]

FIRST: Final[Reading] = (1, 1, False)
SECOND: Final[Reading] = (-1, 1, False)
TIE: Final[Reading] = (0, 0, False)
BOTH_BAD: Final[Reading] = (0, 0, True)
MAX_STRENGTH: Final = 3

_SIDES: Final = ("", "model", "response", "answer", "output", "option", "assistant", "completion")
WORDS: Final[dict[str, Reading]] = {
    **{f"{side}{joint}a": FIRST for side in _SIDES for joint in ("_", " ", "-")},
    **{f"{side}{joint}b": SECOND for side in _SIDES for joint in ("_", " ", "-")},
    **{f"{side}{joint}1": FIRST for side in _SIDES for joint in ("_", " ", "-") if side},
    **{f"{side}{joint}2": SECOND for side in _SIDES for joint in ("_", " ", "-") if side},
    "a": FIRST,
    "b": SECOND,
    "1": FIRST,
    "2": SECOND,
    "left": FIRST,
    "right": SECOND,
    "first": FIRST,
    "second": SECOND,
    "chosen": FIRST,
    "rejected": SECOND,
    "a>b": FIRST,
    "b>a": SECOND,
    "a<b": SECOND,
    "b<a": FIRST,
    "a>>b": (1, 2, False),
    "b>>a": (-1, 2, False),
    "a<<b": (-1, 2, False),
    "b<<a": (1, 2, False),
    "a=b": TIE,
    "b=a": TIE,
    "a==b": TIE,
    "tie": TIE,
    "draw": TIE,
    "same": TIE,
    "equal": TIE,
    "both": TIE,
    "both good": TIE,
    "tie (bothgood)": TIE,
    "tie (bothbad)": BOTH_BAD,
    "bothbad": BOTH_BAD,
    "both_bad": BOTH_BAD,
    "both bad": BOTH_BAD,
    "neither": BOTH_BAD,
}
# HelpSteer's columns: negative is the first, whatever the first rows happen to hold.
SIGNED: Final = ("preference_strength", "overall_preference")
# Say that nobody judged: the row is kept without a vote.
UNSAID: Final = frozenset({"", "none", "null", "nan", "n/a", "na", "-", "?", "skip"})


def number(value: Any) -> float | None:
    """The number in a cell, None where there is none."""
    if isinstance(value, bool):
        return float(value)
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def is_unsaid(value: Any) -> bool:
    """Whether a cell says that nobody judged."""
    if isinstance(value, str):
        return value.strip().lower() in UNSAID
    return value is None or (isinstance(value, float) and math.isnan(value))


def words(value: Any) -> Reading:
    found = WORDS.get(str(value).strip().lower())
    if found is None:
        raise BadRow("winner", repr(value)[:60])
    return found


def one_two(value: Any) -> Reading:
    found = number(value)
    # AlpacaEval writes 1.0 ... 2.0 with probabilities in between; 0 and 1.5 are its ties.
    if found is None or not (found == 0 or 1 <= found <= 2):
        raise BadRow("winner", repr(value)[:60])
    if found in (0, 1.5):
        return TIE
    return FIRST if found < 1.5 else SECOND


def one_two_words(value: Any) -> Reading:
    is_word = isinstance(value, str) and value.strip().lower() in WORDS
    return words(value) if is_word else one_two(value)


def zero_one(value: Any) -> Reading:
    found = number(value)
    if found not in (0, 0.5, 1):
        raise BadRow("winner", repr(value)[:60])
    return TIE if found == 0.5 else FIRST if found == 0 else SECOND


def signed(value: Any) -> Reading:
    found = number(value)
    if found is None or abs(found) > MAX_STRENGTH:
        raise BadRow("winner", repr(value)[:60])
    if found == 0:
        return TIE
    return (1 if found < 0 else -1, max(1, round(abs(found))), False)


def share_a(value: Any) -> Reading:
    found = number(value)
    if found is None or not 0 <= found <= 1:
        raise BadRow("winner", repr(value)[:60])
    return TIE if found == 0.5 else FIRST if found > 0.5 else SECOND


SCHEMES: Final[dict[str, Scheme]] = {
    "words": words,
    "one-two": one_two,
    "one-two-words": one_two_words,
    "zero-one": zero_one,
    "signed": signed,
    "share-a": share_a,
}
SCHEME_LABELS: Final = {
    "auto": "Find out from the first rows",
    "words": "Words: a, b, tie, model_a, left …",
    "one-two": "1 and 2; 0 is a tie",
    "one-two-words": "1 and 2, or words; 0 is a tie",
    "zero-one": "0 is the first, 1 the second",
    "signed": "−3 to 3; negative is the first",
    "share-a": "Share of the first, 0 to 1",
}


def find_scheme(key: str, *, column: str, sample: Iterable[Any], numbered: bool) -> str:
    """The scheme of a label column: as named, or from the values in the first rows.

    ``numbered``: the answers' columns are called 1 and 2. Raises Invalid where the first rows
    leave it open: 0 and 1 mean different things to different people, and a wrong guess would
    turn every vote around.
    """
    if key != "auto":
        if key not in SCHEMES:
            raise Invalid(f"There is no label scheme {key!r}. Known: {', '.join(SCHEMES)}.")
        return key
    values = [value for value in sample if not is_unsaid(value)]
    numbers = {found for value in values if (found := number(value)) is not None}
    if len(numbers) == 0 or any(number(value) is None for value in values):
        return "words"
    if min(numbers) < 0 or max(numbers) > 2 or column in SIGNED:
        return "signed"
    if column == "label_0":
        return "share-a"
    if max(numbers) > 1 or (numbers == {1.0} and numbered):
        return "one-two"
    raise Invalid(
        f"“{column}” holds only {', '.join(f'{found:g}' for found in sorted(numbers))} in the"
        " first rows, and that is read in different ways.",
        advice="Say which it is (--labels on the command line): zero-one (1 is the second"
        " answer), one-two (1 is the first, 0 a tie) or share-a (1 is the first, 0 the second).",
    )
