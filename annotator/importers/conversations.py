"""Conversations with alternative replies: every turn that has some is judged by itself.

``{"messages": [{"role": "user", "content": "Hi"},
                {"role": "assistant", "replies": ["Hello!", "What?"], "chosen": 0},
                {"role": "user", "content": "..."}, ...]}``

The prompt of a turn is exactly what was said before it: earlier turns with the reply that the
conversation went on with, never with one that was dropped.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import orjson

from annotator.errors import Invalid
from annotator.importers import presets, responses, table, values
from annotator.importers.types import (
    MAX_ID,
    BadRow,
    Judged,
    Options,
    Raw,
    Reply,
    Row,
    RowReader,
    Vote,
)

LISTS: Final = ("replies", "responses", "alternatives", "candidates")
CHOSEN: Final = ("chosen", "selected")
THREAD_BYTES: Final = 6
FIELDS: Final = ("id", "tags", "rater")


def has_alternatives(value: Any) -> bool:
    """Whether a cell is a conversation with a list of replies at some turn."""
    return isinstance(value, (list, tuple)) and any(
        isinstance(turn, dict) and any(isinstance(turn.get(name), list) for name in LISTS)
        for turn in value
    )


def find_column(sample: list[Raw], mapping: presets.Mapping) -> str:
    """The column that holds such conversations, "" where there is none."""
    if "prompt" in mapping:
        return mapping["prompt"][0]
    columns = {column for row in sample for column in row}
    for name in ("messages", "conversation", "conversations", "turns", "dialog", "dialogue"):
        if name in columns and any(has_alternatives(row.get(name)) for row in sample):
            return name
    return ""


def prepare(options: Options, sample: list[Raw]) -> RowReader:
    """A reader of conversations; each of their judged turns is a row."""
    columns = {column for row in sample for column in row}
    column = find_column(sample, options.mapping)
    if column not in columns:
        raise Invalid(
            "No column holds conversations with alternative replies.",
            advice='Turns of the assistant with a list: {"role": "assistant", "replies": [...],'
            ' "chosen": 0}. Map it (prompt = COLUMN) where it is not called messages.',
        )
    known, _, _ = presets.guess(columns)
    mapping = {name: known[name] for name in FIELDS if name in known}
    mapping |= options.mapping | {"prompt": [column]}
    read_rest = table.rest_reader(mapping)
    rater = mapping.get("rater", [""])

    def read(raw: Raw) -> list[Row]:
        external_id, tags, extra = read_rest(raw)
        signed_by = (values.joined(raw, rater) if rater[0] else "") or options.rater
        turns = values.cell(raw, column)
        if not isinstance(turns, (list, tuple)):
            raise BadRow("unsupported", f"“{column}” is no list of turns", columns=(column,))
        rows = _Talk(turns, column, signed_by).rows()
        if not rows:
            raise BadRow("no-alternatives", columns=(column,))
        for row in rows:
            name = f"{external_id}#{row.turn}" if external_id else ""
            if len(name) > MAX_ID:
                raise BadRow("name-too-long", columns=(column,))
            row.external_id, row.tags, row.extra = name, tags, extra
            row.lines = int(row is rows[0])
        return rows

    return read


class _Talk:
    def __init__(self, turns: Any, column: str, rater: str) -> None:
        self.turns, self.column, self.rater = list(turns), column, rater

    def rows(self) -> list[Row]:
        said: list[values.Message] = []
        found: list[Row] = []
        replies_before = 0
        for place, turn in enumerate(self.turns):
            listed = self._listed(turn)
            if listed is None:
                message = values.message(turn, self.column)
                replies_before += message["role"] == "assistant"
                said.append(message)
                continue
            replies_before += 1
            replies, chosen = listed
            is_last = place == len(self.turns) - 1
            if chosen is None and not is_last and len(replies) > 1:
                raise BadRow("chosen", f"turn {replies_before}", columns=(self.column,))
            if len(replies) > 1:
                row = self._row(turn, list(said), replies, chosen)
                row.turn = replies_before
                found.append(row)
            said.append({"role": "assistant", "content": replies[chosen or 0].text})
        thread = _name(said)
        for row in found:
            row.thread = thread
        return found

    def _listed(self, turn: Any) -> tuple[list[Reply], int | None] | None:
        """The replies of a turn and the place of the one it went on with; None for one message."""
        if not isinstance(turn, dict):
            raise BadRow("unsupported", "a turn is not an object", columns=(self.column,))
        key = next((name for name in LISTS if turn.get(name) is not None), None)
        if key is None:
            return None
        role = turn.get("role", turn.get("from"))
        if not isinstance(role, str) or values.ROLES.get(role) != "assistant":
            raise BadRow("role", "only the assistant has alternatives", columns=(self.column,))
        replies = responses.read_replies(turn[key], self.column)
        chosen = next((turn[name] for name in CHOSEN if turn.get(name) is not None), None)
        if turn.get("content") is not None:  # what was said, the list holds what else could be
            replies.insert(0, Reply(values.message(turn, self.column)["content"]))
            return replies, 0
        if chosen is None:
            return replies, None
        if type(chosen) is not int or not 0 <= chosen < len(replies):
            raise BadRow("chosen", repr(chosen)[:60], columns=(self.column,))
        return replies, chosen

    def _row(
        self,
        turn: dict[str, Any],
        before: list[values.Message],
        replies: list[Reply],
        chosen: int | None,
    ) -> Row:
        row = Row(before, replies)
        if turn.get("ranks") is not None:
            ranks = responses.read_ranks(turn["ranks"], self.column, len(replies))
            row.verdicts = [Judged(self.rater, ranks)]
        elif chosen is not None and any(turn.get(name) is not None for name in CHOSEN):
            # Says what is best and nothing about the rest: votes, never a ranking with ties.
            others = [place for place in range(len(replies)) if place != chosen]
            row.votes = [Vote(self.rater, 1, first=chosen, second=other) for other in others]
            row.pairs = [(min(chosen, other), max(chosen, other)) for other in others]
        return row


def _name(messages: list[values.Message]) -> str:
    """A short name for a conversation, the same whenever it is imported."""
    try:
        data = orjson.dumps(messages)
    except TypeError:
        raise BadRow("encoding") from None
    return blake2b(data, digest_size=THREAD_BYTES).hexdigest()
