"""Turning what stands in a cell into text, messages, names, times; or a BadRow that says why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from annotator.importers.types import MAX_ID, MAX_NAME, BadRow, Reply

Message = dict[str, str]

# Other names of the four roles: ShareGPT, older OpenAI.
ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
}
MILLISECONDS_FROM: Final = 1e11  # seconds until the year 5138; more must be milliseconds
MAX_TAGS: Final = 50
MAX_SHOWN: Final = 60


def listed(columns: Iterable[str]) -> str:
    """Column names for a message: quoted, short, and fit to be stored."""
    return ", ".join(f"“{shown(column)}”" for column in sorted(columns)[:30]) or "no columns"


def shown(name: str) -> str:
    """A foreign name as it may stand in a message."""
    text = name.replace("\0", "␀").encode(errors="replace").decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column that must be there. Raises BadRow when it is not."""
    try:
        return row[column]
    except KeyError:
        raise BadRow("missing", f"“{column}”", columns=(column,)) from None


def text(value: Any, column: str) -> str:
    """A scalar as text: data sets hold answers such as ``true`` or ``42`` unquoted."""
    if type(value) is str:
        return value
    if value is None:
        raise BadRow("missing", f"“{column}” is null", columns=(column,))
    if isinstance(value, (dict, list, tuple, bytes)):
        raise BadRow("unsupported", f"“{column}”", columns=(column,))
    return str(value)


def name(value: Any, column: str, *, limit: int = MAX_NAME) -> str:
    """A rater, generator or id: short text, empty where there is none."""
    if value is None:
        return ""
    result = text(value, column).strip()
    if len(result) > limit:
        raise BadRow("name-too-long", f"“{column}”", columns=(column,))
    return result


def joined(row: Mapping[str, Any], columns: Sequence[str], *, limit: int = MAX_NAME) -> str:
    """A name out of one or several columns, those that are empty left out."""
    if len(columns) == 1:
        return name(row.get(columns[0]), columns[0], limit=limit)
    parts = [name(row.get(column), column, limit=limit) for column in columns]
    result = " ".join(part for part in parts if part)
    if len(result) > limit:
        raise BadRow("name-too-long", listed(columns), columns=tuple(columns))
    return result


def row_id(value: Any, column: str) -> str:
    return name(value, column, limit=MAX_ID)


def message(value: Any, column: str) -> Message:
    """One ``{"role", "content"}``; also ``{"from", "value"}`` and lists of text parts."""
    if not isinstance(value, dict):
        raise BadRow("unsupported", f"a message of “{column}” is not an object", columns=(column,))
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise BadRow("role", repr(role)[:60], columns=(column,))
    if isinstance(content, list):
        content = "".join(_part(part, column) for part in content)
    if type(content) is not str:
        raise BadRow("unsupported", f"a message of “{column}” has no text", columns=(column,))
    return {"role": known, "content": content}


def _part(part: Any, column: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise BadRow("unsupported", f"“{column}” has a part that is not text", columns=(column,))
    return part["text"]


def messages(value: Any, column: str) -> list[Message]:
    """A conversation: a list of messages, one message, the JSON of either, or a user's text."""
    if type(value) is str:
        if value.startswith(("[{", '{"')) and '"role"' in value:
            value = _decoded(value)
        if type(value) is str:
            return [{"role": "user", "content": value}]
    if isinstance(value, dict):
        return [message(value, column)]
    if isinstance(value, (list, tuple)):
        return [message(one, column) for one in value]
    return [{"role": "user", "content": text(value, column)}]


def _decoded(value: str) -> Any:
    """JSON kept in a text cell, as in CSV; the text itself where it is not JSON after all."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def reply(value: Any, column: str) -> Reply:
    """An answer: text, one message, or the messages that follow the prompt."""
    if type(value) is str:
        if not (value.startswith(("[{", '{"')) and '"role"' in value):
            return Reply(value)
        value = _decoded(value)
    if isinstance(value, dict):
        return reply_of([message(value, column)], column)
    if isinstance(value, (list, tuple)):
        return reply_of([message(one, column) for one in value], column)
    return Reply(text(value, column))


def reply_of(turns: list[Message], column: str) -> Reply:
    """The messages after a prompt as one answer: they begin and end with the assistant."""
    if not turns:
        raise BadRow("empty-answer", f"“{column}” has no messages", columns=(column,))
    if turns[0]["role"] != "assistant" or turns[-1]["role"] != "assistant":
        raise BadRow("turns", f"“{column}” must be the assistant’s", columns=(column,))
    if len(turns) == 1:
        return Reply(turns[0]["content"])
    return Reply(flat(turns), messages=turns)


def flat(turns: list[Message]) -> str:
    """Several messages as one text, later turns marked as in a transcript."""
    later = (
        f"\n\n{'Assistant' if turn['role'] == 'assistant' else 'Human'}: {turn['content']}"
        for turn in turns[1:]
    )
    return turns[0]["content"] + "".join(later)


FOLLOWS: Final = {  # role -> the roles it may follow; "" is the beginning
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def check_turns(turns: list[Message]) -> None:
    """Messages go (system,) user, assistant, user ...; the last is the user's or a tool's."""
    previous = ""
    for turn in turns:
        if previous not in FOLLOWS[turn["role"]]:
            raise BadRow("turns", f"{turn['role']} after {previous or 'nothing'}")
        previous = turn["role"]
    if previous not in ("user", "tool"):
        raise BadRow("turns", f"the last is from {previous or 'nobody'}")


def tags(value: Any, column: str) -> list[str]:
    """A list of words, or words separated by commas."""
    if value is None:
        return []
    found = value if isinstance(value, (list, tuple)) else text(value, column).split(",")
    if len(found) > MAX_TAGS:
        raise BadRow("unsupported", f"“{column}” has over {MAX_TAGS} tags", columns=(column,))
    return [word for word in (name(one, column) for one in found) if word]


def moment(value: Any, column: str) -> datetime | None:
    """A time with its zone (UTC where none is given), None where the cell is empty."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, (int, float)) or str(value).replace(".", "", 1).isdecimal():
            seconds = float(value)
            scale = 1000 if abs(seconds) >= MILLISECONDS_FROM else 1
            found = datetime.fromtimestamp(seconds / scale, tz=UTC)
        else:
            found = datetime.fromisoformat(str(value).strip())
    except (ValueError, OverflowError, OSError):
        raise BadRow("time", repr(value)[:60], columns=(column,)) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
