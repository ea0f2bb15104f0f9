"""Few criteria that differ, as a step of any generator: by coding rate, on their wording.

Offline: hashed n-grams of words and letters with TF-IDF (rubrics.coding_rate.embed_texts), hence of
what they say, not of what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from pydantic import Field

from rubrics import coding_rate

LIKE: Final = "like another that is kept"
DIFFERENT: Final[Any] = Field(
    0,
    ge=0,
    le=200,
    title="Most different criteria",
    description="So many at most that differ most in wording, by coding rate; fewer where nothing "
    "new is left. 0: all.",
)

Kept = TypeVar("Kept")


def places(texts: Sequence[str], limit: int) -> list[int]:
    """Places of the texts that differ most, in the order of picking; all where limit is 0.

    A text without a letter or digit differs from nothing and is left out.
    """
    if not limit:
        return list(range(len(texts)))
    return list(coding_rate.select(coding_rate.embed_texts(texts), limit=limit).picked)


def different(
    some: Sequence[Kept], limit: int, *, text: Callable[[Kept], str], dropped: Counter[str]
) -> list[Kept]:
    """Those that differ most, in the order given; what is left out is counted."""
    kept = sorted(places([text(one) for one in some], limit))
    dropped[LIKE] += len(some) - len(kept)
    return [some[at] for at in kept]
