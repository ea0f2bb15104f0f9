"""What every row must be, whatever its format: texts that can be kept and compared."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any, Final

import orjson

from annotator.importers.types import BadRow, Options, Row
from annotator.importers.values import check_turns

ALL_PAIRS_UP_TO: Final = 4  # responses; above that each is compared with the next, in a ring

# A NUL as JSON writes it; after an odd number of backslashes it is no escape.
NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check(row: Row, options: Options) -> list[tuple[int, int]]:
    """The pairs of replies to compare. Raises BadRow for a row that cannot be taken."""
    if not row.messages:
        raise BadRow("empty-prompt")
    if not row.as_is:
        check_turns(row.messages)
    if not any(message["content"].strip() for message in row.messages):
        raise BadRow("empty-prompt")
    limit = options.max_characters
    for message in row.messages:
        check_text(message["content"], limit)
    judged = {place for vote in row.votes for place in (vote.first, vote.second)}
    for place, reply in enumerate(row.replies):
        check_text(reply.text, limit)
        # HH-RLHF holds answers that are empty, and votes that say so: those are data.
        if not reply.text.strip() and place not in judged:
            raise BadRow("empty-answer")
    _check_rest(row, limit)
    pairs = pairing(row, options)
    for one, other in pairs:
        a, b = row.replies[one], row.replies[other]
        if a.text == b.text and (a.generator == b.generator or not row.votes):
            raise BadRow("identical")
    return pairs


def _check_rest(row: Row, limit: int) -> None:
    """Names, rationales and everything that is kept as it came: PostgreSQL must take it."""
    if row.external_id:
        check_text(row.external_id, limit)
    for tag in row.tags or ():
        check_text(tag, limit)
    if row.extra:
        check_json(row.extra)
    for reply in row.replies:
        if reply.generator:
            check_text(reply.generator, limit)
        for kept in (reply.messages, reply.sampling, reply.extra):
            if kept:
                check_json(kept)
    for vote in row.votes:
        check_text(vote.rater, limit)
        if vote.rationale:
            check_text(vote.rationale, limit)


def check_json(value: Any) -> None:
    try:
        data = orjson.dumps(value, default=str)
    except TypeError as error:
        said = str(error).lower()
        if "surrogate" in said or "utf-8" in said:
            raise BadRow("encoding", "in a column that is kept as it is") from None
        if "recursion" in said:
            raise BadRow("nested") from None
        raise BadRow("unsupported", "a column that is kept as it is") from None
    if b"\\u0000" in data and NUL.search(data):
        raise BadRow("nul", "in a column that is kept as it is")


def check_text(text: str, limit: int) -> None:
    if len(text) > limit:
        raise BadRow("too-long", f"{len(text):,} characters")
    if "\0" in text:
        raise BadRow("nul")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("encoding", "half of a surrogate pair") from None


def pairing(row: Row, options: Options) -> list[tuple[int, int]]:
    """Which replies are compared: as the row says, else by the pairing rule."""
    if row.pairs is not None:
        return row.pairs if len(row.pairs) < 2 else list(dict.fromkeys(row.pairs))
    count = len(row.replies)
    rule = options.pairs
    if rule == "auto":
        rule = "all" if count <= ALL_PAIRS_UP_TO else "ring"
    if rule == "all":
        return list(combinations(range(count), 2))
    if rule == "ring" and count > 2:
        return [(place, (place + 1) % count) for place in range(count)]
    return [(0, 1)] if rule == "ring" and count == 2 else []
