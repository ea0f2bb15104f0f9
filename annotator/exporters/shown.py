"""Rows as pages show them: texts in words, and the row itself, both cut short."""

from __future__ import annotations

from typing import Any, Final

from annotator.exporters.files import Row
from annotator.exporters.row_pass import Shown
from annotator.queries.pair_texts import ResponseText

CHARACTERS: Final = 400
PARTS: Final = 8


def shown(one: Shown) -> dict[str, Any]:
    """One row, ready for JSON."""
    verdict, messages = one.verdict, one.prompt.messages
    return {
        "split": one.split,
        "turns": len(messages),
        "prompt": short(messages[-1]["content"] if messages else ""),
        "chosen": short(_text_of(one.chosen)),
        "rejected": short(_text_of(one.rejected)),
        "votes": verdict.votes,
        "agreement": verdict.agreement,
        "kind": verdict.kind,
        "pictures": [one.chosen.picture, one.rejected.picture] if one.chosen.picture else None,
        "row": short_row(one.row),
    }


def short_row(row: Row) -> Row:
    """A row with its texts cut to what a page shows."""
    return {name: short(value) for name, value in row.items()}


def short(value: Any) -> Any:
    """A cell, as deep as it goes."""
    if isinstance(value, str):
        return f"{value[:CHARACTERS]}…" if len(value) > CHARACTERS else value
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        return [short(part) for part in value[-PARTS:]]
    if isinstance(value, dict):
        return {name: short(part) for name, part in value.items()}
    return value


def _text_of(response: ResponseText) -> str:
    messages = response.messages
    return messages[-1]["content"] if messages else response.text or response.picture or ""
