"""Answers as the annotation page sends them: which fields, how many, how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from annotator.kinds.base import MAX_ANSWERS
from annotator.kinds.verdict import MAX_RATIONALE

# Every field a kind's template may have. What a form sends besides is not kept.
FIELDS: Final = re.compile(
    r"verdict|both_bad|none_ranked|as_shown|why|active_ms|best|worst|reason-\d{1,2}"
    r"|place-[A-Z]|rate-\d{1,2}-[A-Z]|check-\d{1,3}-[A-Z]"
)
MAX_VALUE: Final = 20  # characters of any answer but the reason


def read_answers(posted: Mapping[str, str]) -> dict[str, str]:
    """The answers among what was posted, without what PostgreSQL cannot keep.

    Cut, not refused: this is also what a draft keeps, and a kind refuses what is no answer. One
    character more than allowed is left of an overlong reason, so that it is refused.
    """
    answers = {}
    for name in posted:
        if FIELDS.fullmatch(name):
            longest = MAX_RATIONALE + 1 if name == "why" else MAX_VALUE
            answers[name] = posted[name].replace("\0", "")[:longest]
        if len(answers) == MAX_ANSWERS:
            break
    return answers
