"""chosen and rejected: HH-RLHF transcripts and the preference rows of TRL.

TRL's own prompt extraction takes the longest common beginning of two texts, character by
character, and so moves a shared opening ("Sure, ...") into the prompt. Here conversations are
only ever split between turns; plain texts, which have none, at a line or word boundary.
"""

from __future__ import annotations

from os.path import commonpath
from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers import presets, table, transcripts, values
from annotator.importers.types import BadRow, Options, Reply, Row, RowReader, Vote

BOTH: Final = ("chosen", "rejected")
FIELDS: Final = ("id", "tags", "rater", "strength", "rationale", "at", "system")
GENERATORS: Final = (
    ("chosen_generator", "rejected_generator"),
    ("chosen_model", "rejected_model"),
    ("generator_chosen", "generator_rejected"),
    ("model_chosen", "model_rejected"),
)


def prepare_hh(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for rows of two whole transcripts."""
    return _prepare(options, sample, only_transcripts=True)


def prepare_trl(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for explicit, implicit and conversational preference rows."""
    return _prepare(options, sample, only_transcripts=False)


def _prepare(
    options: Options, sample: list[dict[str, Any]], *, only_transcripts: bool
) -> RowReader:
    columns = {column for row in sample for column in row}
    mapping = _mapping(options, columns)
    chosen, rejected = mapping["chosen"][0], mapping["rejected"][0]
    prompt = mapping.get("prompt", [""])[0]
    rater = mapping.get("rater", [""])
    generators = [mapping.get(name, [""])[0] for name in ("generator_a", "generator_b")]
    read_rest = table.rest_reader(mapping)
    read_detail = table.detail_reader(mapping)
    read_prompt = table.prompt_reader(mapping) if prompt else None

    def read(row: table.Cells) -> Row:
        one, other = values.cell(row, chosen), values.cell(row, rejected)
        if only_transcripts:
            found = _from_transcripts(
                values.text(one, chosen), values.text(other, rejected), (chosen, rejected)
            )
        elif read_prompt and row.get(prompt) is not None and not _holds_prompt(one):
            found = _explicit(read_prompt(row), row[prompt], one, other, (chosen, rejected))
        else:
            found = _implicit(one, other, (chosen, rejected))
        signed_by = values.joined(row, rater) if rater[0] else ""
        vote = Vote(signed_by or options.rater, 1, 1)
        read_detail(row, vote)
        found.votes = [vote]
        found.pairs = [(0, 1)]
        for reply, column in zip(found.replies, generators, strict=True):
            if column:
                reply.generator = values.name(row.get(column), column)
        found.external_id, found.tags, extra = read_rest(row)
        if extra:
            found.extra = {**extra, **(found.extra or {})}
        table.tell_replies(found)
        return found

    return read


def _mapping(options: Options, columns: set[str]) -> presets.Mapping:
    known, _, _ = presets.guess(columns)
    mapping = {name: known[name] for name in FIELDS if name in known}
    if "prompt" in columns:
        mapping["prompt"] = ["prompt"]
    for pair in GENERATORS:
        if set(pair) <= columns:
            mapping |= {"generator_a": [pair[0]], "generator_b": [pair[1]]}
            break
    for name in BOTH:
        if name in columns:
            mapping[name] = [name]
    mapping |= options.mapping
    for name in BOTH:
        if name not in mapping or mapping[name][0] not in columns:
            raise Invalid(
                f"There is no column “{mapping.get(name, [name])[0]}”.",
                advice=f"This format needs {' and '.join(BOTH)}. Map them, or name another format.",
            )
    return mapping


def _holds_prompt(value: Any) -> bool:
    """Whether an answer is a whole conversation, as in UltraFeedback: prompt is then a repeat."""
    if not isinstance(value, (list, tuple)) or not value or not isinstance(value[0], dict):
        return False
    role = value[0].get("role", value[0].get("from"))
    return isinstance(role, str) and values.ROLES.get(role) in ("user", "system")


def _explicit(
    messages: list[values.Message],
    prompt: Any,
    chosen: Any,
    rejected: Any,
    columns: tuple[str, str],
) -> Row:
    replies = [
        values.reply(chosen, columns[0]),
        values.reply(rejected, columns[1]),
    ]
    ends = isinstance(prompt, str) and prompt.rstrip().endswith("\n\nAssistant:")
    if not (ends and transcripts.looks_like(prompt)):
        return Row(messages, replies)
    # An HH prompt made explicit: it ends where the answer begins.
    turns = transcripts.parse(prompt)
    row = Row(turns[:-1], replies, extra={transcripts.FORM: "hh"}, as_is=True)
    if transcripts.render_prompt(row.messages, {}) != prompt:
        row.extra[transcripts.RAW] = prompt
    for reply in replies:
        if reply.text.startswith(" "):
            reply.text = reply.text[1:]
        elif reply.messages is None:
            reply.extra = {transcripts.RAW: reply.text}
    return row


def _implicit(chosen: Any, rejected: Any, columns: tuple[str, str]) -> Row:
    if isinstance(chosen, str) and isinstance(rejected, str):
        if transcripts.looks_like(chosen) and transcripts.looks_like(rejected):
            return _from_transcripts(chosen, rejected, columns)
        if '"role"' not in chosen:
            return _from_texts(chosen, rejected, columns)
    one, other = values.messages(chosen, columns[0]), values.messages(rejected, columns[1])
    common = transcripts.split_reply(one, other)
    if common is None:
        raise BadRow("no-common-prompt", columns=columns)
    replies = [
        values.reply_of(one[common:], columns[0]),
        values.reply_of(other[common:], columns[1]),
    ]
    return Row(one[:common], replies)


def _from_transcripts(chosen: str, rejected: str, columns: tuple[str, str]) -> Row:
    """Split two transcripts after the turns they share; each comes back byte for byte."""
    for text, column in zip((chosen, rejected), columns, strict=True):
        if not transcripts.looks_like(text):
            raise BadRow(
                "unsupported",
                f"“{column}” is no Human and Assistant transcript",
                columns=(column,),
            )
    if chosen == rejected:
        raise BadRow("identical", columns=columns)
    one, other = transcripts.parse(chosen), transcripts.parse(rejected)
    common = transcripts.split_reply(one, other)
    if common is None:
        raise BadRow("no-common-prompt", columns=columns)
    row = Row(
        one[:common],
        [values.reply_of(one[common:], columns[0]), values.reply_of(other[common:], columns[1])],
        extra={transcripts.FORM: "hh"},
        as_is=True,
    )
    _keep_bytes(row, chosen, rejected)
    return row


def _keep_bytes(row: Row, chosen: str, rejected: str) -> None:
    """Keep verbatim what rendering would not give back: a marker without its space."""
    prompt = transcripts.render_prompt(row.messages, {})
    for reply, whole in zip(row.replies, (chosen, rejected), strict=True):
        if whole == prompt + transcripts.render_reply(reply.text, reply.messages, {}):
            continue
        head, tail = _cut(whole, sum(turn["role"] != "system" for turn in row.messages))
        if head != prompt:
            row.extra[transcripts.RAW] = head
        reply.extra = {transcripts.RAW: tail}


def _cut(whole: str, turns: int) -> tuple[str, str]:
    """A transcript before and after the colon of the marker that follows so many turns."""
    text = whole if whole.startswith("\n\n") else f"\n\n{whole}"
    markers = list(transcripts.MARKER.finditer(text))
    at = markers[turns].end() - (len(text) - len(whole))
    return whole[:at], whole[at:]


def _from_texts(chosen: str, rejected: str, columns: tuple[str, str]) -> Row:
    """Split two plain texts where they part, cut back to a line's end, else to a word's."""
    shared = commonpath([chosen, rejected])
    shortest = min(len(chosen), len(rejected))
    if chosen == rejected:
        raise BadRow("identical", columns=columns)
    if len(shared) == shortest:
        shared = shared[:-1]
    cut = shared.rfind("\n") + 1
    if not shared[:cut].strip():
        cut = max((shared.rfind(space) + 1 for space in " \t"), default=0)
    if not shared[:cut].strip():
        raise BadRow("no-common-prompt", columns=columns)
    messages = [{"role": "user", "content": chosen[:cut]}]
    return Row(messages, [Reply(chosen[cut:]), Reply(rejected[cut:])])
