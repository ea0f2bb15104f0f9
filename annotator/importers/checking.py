"""What every row must be, whatever its format: texts that can be kept and compared."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from annotator.importers.planning import PAIRWISE, plan
from annotator.importers.types import MAX_JUDGE, BadRow, Options, Row
from annotator.importers.values import check_turns

# A NUL as JSON writes it; after an odd number of backslashes it is no escape.
NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check(row: Row, options: Options, *, project_kind: str = PAIRWISE) -> list[tuple[int, ...]]:
    """The replies of each task of a row. Raises BadRow for a row that cannot be taken."""
    if not row.messages:
        raise BadRow("empty-prompt")
    if not row.as_is:
        check_turns(row.messages)
    if not any(message["content"].strip() for message in row.messages):
        raise BadRow("empty-prompt")
    limit = options.max_characters
    for message in row.messages:
        check_text(message["content"], limit)
    tasks = plan(row, options, project_kind=project_kind)
    judged = {place for vote in row.votes for place in (vote.first, vote.second)}
    for place, reply in enumerate(row.replies):
        check_text(reply.text, limit)
        # HH-RLHF holds answers that are empty, and votes that say so: those are data.
        is_empty = not reply.text.strip() and reply.image is None
        if is_empty and place not in judged and not row.verdicts:
            raise BadRow("empty-answer")
    _check_rest(row, limit)
    # Two images may well be equal: that is for the rater to see.
    if row.kind == PAIRWISE:
        for one, other in tasks:
            a, b = row.replies[one], row.replies[other]
            is_same = a.text == b.text and a.image is None and b.image is None
            if is_same and (a.generator == b.generator or not row.votes):
                raise BadRow("identical")
    else:
        texts = [(reply.text, reply.generator) for reply in row.replies if reply.image is None]
        if len(set(texts)) < len(texts):
            raise BadRow("identical")
    return tasks


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
        if vote.is_judge:
            _check_judge(vote.rater)
        if vote.rationale:
            check_text(vote.rationale, limit)
    for judged in (*row.verdicts, *([row.gold] if row.gold else [])):
        check_text(judged.rater, limit)
        if judged.is_judge:
            _check_judge(judged.rater)
        check_text(judged.rationale, limit)
        for name in judged.ratings or ():
            check_text(name, limit)


def _check_judge(name: str) -> None:
    if len(name) > MAX_JUDGE:
        raise BadRow("name-too-long", f"{name[:40]!r}… for a judge, who has up to {MAX_JUDGE}")


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
