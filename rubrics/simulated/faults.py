"""What goes wrong: in a reply, and on its way."""

from __future__ import annotations

import json
from typing import Final

from rubrics.simulated import draws
from rubrics.simulated.dials import Dials
from rubrics.simulated.tokens import Said, count, shortened

ON_THE_WAY: Final = ("too_many", "server_error", "hang", "broken", "slow")
IN_THE_REPLY: Final = ("malformed", "cut", "refusal")
REFUSAL: Final = "I'm sorry, but I can't compare these answers."
PROSE: Final = "prose"
HALF: Final = "half"
WRONG_KEYS: Final = "wrong keys"
MALFORMED: Final = (PROSE, HALF, WRONG_KEYS)


def strikes(dials: Dials, kinds: tuple[str, ...], *key: object) -> str:
    """The fault that strikes one attempt; empty where none does. Kinds exclude each other."""
    if not any(getattr(dials, kind) for kind in kinds):
        return ""
    drawn = draws.uniform("fault", *kinds, *key)
    for kind in kinds:
        drawn -= getattr(dials, kind)
        if drawn < 0:
            return kind
    return ""


def spoil(said: Said, kind: str, *key: object) -> Said:
    """A reply as a model gives it that has one of the faults IN_THE_REPLY."""
    if kind == "refusal":
        return Said(REFUSAL)
    if kind == "cut":
        return shortened(said, max(1, count(said.text) // 2))
    if kind == "malformed":
        way = MALFORMED[int(draws.uniform("way", *key) * len(MALFORMED))]
        return Said(_malformed(said.text, way))
    return said


def _malformed(text: str, way: str) -> str:
    if way == HALF:
        return text[: len(text) // 2]
    if way == WRONG_KEYS:
        return json.dumps({"result": "see above", "note": "I used keys of my own."})
    return "Both have their merits. Having weighed them, I could go either way on this one."
