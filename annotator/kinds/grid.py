"""Grids of small choices: lines down, answers across, as rating and checklist show them."""

from __future__ import annotations

from typing import Any, Final

from annotator.kinds.base import LABELS, Answers

MOST_LOW_LINES: Final = 6  # of a grid that does not cover what it is about
MOST_LOW_SLOTS: Final = 2

# (value, label, key that gives it)
Choice = tuple[str, str, str]
# (keys, what they do), as the list of keys of a page shows them
Keys = tuple[tuple[str, ...], str]


def line(
    text: str, *, stem: str, draft: Answers, choices: list[Choice], slots: int
) -> dict[str, Any]:
    """One line of a grid, filled in from a draft: a cell per response, a choice per legal value.

    ``stem`` is the field without its label, ``rate-0-``. What is no legal value counts as not
    given yet.
    """
    cells = []
    for slot in range(slots):
        field = f"{stem}{LABELS[slot]}"
        given = draft.get(field, "")
        offered = [
            {"value": value, "label": label, "key": key, "checked": value == given}
            for value, label, key in choices
        ]
        is_missing = not any(one["checked"] for one in offered)
        cells.append(
            {
                "label": LABELS[slot],
                "slot": slot,
                "field": field,
                "choices": offered,
                "is_missing": is_missing,
            }
        )
    return {"text": text, "stem": stem, "cells": cells}


def state(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The first field without an answer, and whether the grid is low enough to stay in view."""
    missing = (cell["field"] for line in lines for cell in line["cells"] if cell["is_missing"])
    slots = max((len(line["cells"]) for line in lines), default=0)
    return {
        "first_missing": next(missing, ""),
        "is_low": len(lines) <= MOST_LOW_LINES and slots <= MOST_LOW_SLOTS,
    }


def moves(*, slots: int) -> list[Keys]:
    """The keys every grid has, for the list of keys."""
    across: list[Keys] = [(("↓", "↑"), "line below, line above, same answer")] if slots > 1 else []
    return [(("j", "k"), "next, the one before"), *across]


def first_few(names: list[str]) -> str:
    """The first three of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
