"""One prompt a row with a list of answers: ``{"prompt": ..., "responses": [...]}``.

An answer is a text, or an object with ``text`` (or ``content``, ``response``, ``messages``) and
whatever is known about it: ``generator``, ``sampling``, anything else is kept as it is.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers import labels, presets, table, values
from annotator.importers.types import MAX_RESPONSES, BadRow, Options, Reply, Row, RowReader, Vote

TEXT_KEYS: Final = ("text", "content", "response", "messages", "answer", "output")
GENERATOR_KEYS: Final = ("generator", "model")
RANKS: Final = ("ranks", "ranking")
FIELDS: Final = ("prompt", "system", "id", "tags", "rater", "rationale", "at", "input")


def prepare(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for rows with a list of answers. Raises Invalid without such a column."""
    columns = {column for row in sample for column in row}
    known, _, _ = presets.guess(columns)
    mapping = {name: known[name] for name in FIELDS if name in known}
    if "responses" in columns:
        mapping["responses"] = ["responses"]
    mapping |= options.mapping
    for name in ("prompt", "responses"):
        if name not in mapping or mapping[name][0] not in columns:
            raise Invalid(
                f"There is no column “{mapping.get(name, [name])[0]}”.",
                advice="This format needs prompt (or messages) and responses. Map them, or name"
                " another format.",
            )
    ranks = next((column for column in RANKS if column in columns), "")
    listed = mapping["responses"][0]
    rater = mapping.get("rater", [""])[0]
    read_prompt = table.prompt_reader(mapping)
    read_rest = table.rest_reader({**mapping, **({"label": [ranks]} if ranks else {})})
    read_detail = table.detail_reader(mapping)

    def read(row: table.Cells) -> Row:
        replies = _replies(values.cell(row, listed), listed)
        external_id, tags, extra = read_rest(row)
        found = Row(read_prompt(row), replies, tags=tags, external_id=external_id, extra=extra)
        if ranks and row.get(ranks) is not None:
            signed_by = values.name(row.get(rater), rater) if rater else ""
            found.votes = _votes(row[ranks], ranks, len(replies), signed_by or options.rater)
            found.pairs = [(vote.first, vote.second) for vote in found.votes]
            for vote in found.votes:
                read_detail(row, vote)
        return found

    return read


def _replies(value: Any, column: str) -> list[Reply]:
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


def _votes(ranks: Any, column: str, count: int, rater: str) -> list[Vote]:
    """A rank vector as votes on every pair: 1 is best, equal places are ties."""
    places = [labels.number(place) for place in ranks] if isinstance(ranks, (list, tuple)) else []
    if len(places) != count or None in places:
        raise BadRow("winner", f"“{column}” must hold a place for each answer", columns=(column,))
    votes = []
    for (i, a), (j, b) in combinations(enumerate(places), 2):
        outcome = (a < b) - (a > b)
        strength = min(labels.MAX_STRENGTH, max(1, round(abs(a - b)))) if outcome else 0
        votes.append(Vote(rater, outcome, strength, first=i, second=j))
    return votes
