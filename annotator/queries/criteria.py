"""What a criterion is, as files, comparisons and measurements tell two of them apart."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

import orjson

from annotator.models import Criterion

IN_FORCE: Final = (Criterion.Decision.PROPOSED, Criterion.Decision.ACCEPTED)
# What a criterion is, as files and comparisons have it.
FIELDS: Final = (
    "text", "polarity", "weight", "scope", "group", "verifier", "program", "theme"
)  # fmt: skip
# What makes its verdicts what they are. Its weight only says what they count.
ASKED: Final = ("text", "polarity", "scope", "group", "verifier", "program")


def digest(criteria: Iterable[Criterion]) -> str:
    """Hex over everything that changes a verdict: two versions that ask the same are equal."""
    return _hex([{name: getattr(one, name) for name in FIELDS} for one in criteria])


def asked(criterion: Criterion) -> str:
    """Hex over what is asked: a verdict on something else says nothing of this criterion."""
    return _hex([getattr(criterion, name) for name in ASKED])[:16]


def _hex(value: Any) -> str:
    return sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
