"""One prompt a row with a list of answers: ``{"prompt": ..., "responses": [...]}``.

An answer is a text, or an object with ``text`` (or ``content``, ``response``, ``messages``) and
whatever is known about it: ``generator``, ``sampling``, anything else is kept as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers import labels, presets, table, values
from annotator.importers.types import (
    MAX_RESPONSES,
    BadRow,
    Judged,
    Options,
    Reply,
    Row,
    RowReader,
)
from annotator.kinds.verdict import dense

TEXT_KEYS: Final = ("text", "content", "response", "messages", "answer", "output")
GENERATOR_KEYS: Final = ("generator", "model")
LISTS: Final = ("responses", "generations")
RANKS: Final = ("ranks", "ranking")
IMAGE: Final = re.compile(r"\S+\.(?:png|jpe?g|webp|gif)", re.IGNORECASE)
FIELDS: Final = ("prompt", "system", "id", "tags", "rater", "rationale", "at", "input")


def prepare(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for rows with a list of answers. Raises Invalid without such a column."""
    return _prepare(options, sample, kind="")


def prepare_ranked(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for rows with a list of answers and their order, each one ranking task."""
    columns = {column for row in sample for column in row}
    if not columns & set(RANKS):
        raise Invalid(
            "There is no column “ranking”.",
            advice="This format needs ranking (or ranks): a place for each answer, 1 the best.",
        )
    return _prepare(options, sample, kind="ranking")


def _prepare(options: Options, sample: list[dict[str, Any]], *, kind: str) -> RowReader:
    columns = {column for row in sample for column in row}
    mapping = _mapping(options, columns)
    ranks = next((column for column in RANKS if column in columns), "")
    listed = mapping["responses"][0]
    read_prompt = table.prompt_reader(mapping)
    read_rest = table.rest_reader({**mapping, **({"label": [ranks]} if ranks else {})})
    read_verdict = verdict_reader(mapping, options, ranks)

    def read(row: table.Cells) -> Row:
        replies = read_replies(values.cell(row, listed), listed)
        if listed == LISTS[1] and not options.stand_ins:
            _refuse_images(replies, listed)
        external_id, tags, extra = read_rest(row)
        found = Row(read_prompt(row), replies, tags=tags, external_id=external_id, extra=extra)
        found.kind = kind
        if ranks and row.get(ranks) is not None:
            found.verdicts = [read_verdict(row, len(replies))]
        return found

    return read


def _mapping(options: Options, columns: set[str]) -> presets.Mapping:
    known, _, _ = presets.guess(columns)
    mapping = {name: known[name] for name in FIELDS if name in known}
    for name in LISTS:
        if name in columns:
            mapping["responses"] = [name]
            break
    mapping |= options.mapping
    for name in ("prompt", "responses"):
        if name not in mapping or mapping[name][0] not in columns:
            raise Invalid(
                f"There is no column “{mapping.get(name, [name])[0]}”.",
                advice="This format needs prompt (or messages) and responses. Map them, or name"
                " another format.",
            )
    return mapping


def _refuse_images(replies: list[Reply], column: str) -> None:
    for reply in replies:
        if IMAGE.fullmatch(reply.text):
            raise BadRow("image", repr(reply.text[-60:]), columns=(column,))


def read_replies(value: Any, column: str) -> list[Reply]:
    if isinstance(value, dict):  # {generator: text}
        named = list(value.items())
    elif isinstance(value, (list, tuple)):
        named = [("", one) for one in value]
    else:
        raise BadRow("unsupported", f"“{column}” is not a list", columns=(column,))
    if not named:
        raise BadRow("no-responses", columns=(column,))
    if len(named) > MAX_RESPONSES:
        raise BadRow("too-many-responses", str(len(named)), columns=(column,))
    return [_reply(one, generator, column) for generator, one in named]


def _reply(value: Any, generator: str, column: str) -> Reply:
    is_message = isinstance(value, dict) and "role" in value
    if not isinstance(value, dict) or is_message:
        reply = values.reply(value, column)
        reply.generator = values.name(generator, column)
        return reply
    rest = dict(value)
    key = next((key for key in TEXT_KEYS if key in rest), None)
    if key is None:
        raise BadRow("missing", f"an answer of “{column}” has no “text”", columns=(column,))
    reply = values.reply(rest.pop(key), column)
    for name in GENERATOR_KEYS:
        if name in rest:
            reply.generator = values.name(rest.pop(name), column)
            break
    else:
        reply.generator = values.name(generator, column)
    sampling = rest.pop("sampling", None)
    if isinstance(sampling, dict):
        reply.sampling = sampling
    elif sampling is not None:
        rest["sampling"] = sampling
    reply.extra = rest or None
    return reply


def verdict_reader(
    mapping: presets.Mapping, options: Options, column: str
) -> Callable[[table.Cells, int], Judged]:
    """Reads places as a verdict: 1 is best, equal places are ties, null is not ranked."""
    rater = mapping.get("rater", [""])
    rationale = mapping.get("rationale", [""])[0]
    at = mapping.get("at", [""])[0]

    def read(row: table.Cells, count: int) -> Judged:
        ranks = read_ranks(row[column], column, count)
        judged = Judged(values.joined(row, rater) if rater[0] else "", ranks)
        judged.rater = judged.rater or options.rater
        if rationale and row.get(rationale) is not None:
            judged.rationale = values.text(row[rationale], rationale)
        if at:
            judged.at = values.moment(row.get(at), at)
        return judged

    return read


def read_ranks(given: Any, column: str, count: int) -> list[int]:
    """Places as given, with gaps or ties, as places from 1 without a gap; null gets 0."""
    if not isinstance(given, (list, tuple)) or len(given) != count:
        raise BadRow("ranking", f"“{column}” has not one for each answer", columns=(column,))
    places = [None if place is None else labels.number(place) for place in given]
    if any(found is None and place is not None for found, place in zip(places, given, strict=True)):
        raise BadRow("ranking", repr(given)[:60], columns=(column,))
    return dense([None if place is None else -place for place in places])
