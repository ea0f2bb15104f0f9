"""One pair a row, in whatever columns: prompt, two answers, and labels by any number of raters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers import labels, orders, presets, values
from annotator.importers.types import Options, Reply, Row, RowReader, Vote

Cells = Mapping[str, Any]


def prepare(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for this table. Raises Invalid when the columns do not say what is compared."""
    columns = {column for row in sample for column in row}
    mapping, scheme = complete_mapping(options, columns)
    _check_columns(mapping, columns)
    read_prompt = prompt_reader(mapping)
    read_replies = replies_reader(mapping)
    read_votes = votes_reader(mapping, options, scheme, sample)
    read_rest = rest_reader(mapping)

    def read(row: Cells) -> Row:
        replies = read_replies(row)
        votes = read_votes(row, replies)
        external_id, tags, extra = read_rest(row)
        found = Row(
            messages=read_prompt(row),
            replies=replies,
            votes=votes,
            pairs=[(0, 1)],
            tags=tags,
            external_id=external_id,
            extra=extra,
        )
        tell_replies(found)
        return found

    return read


def complete_mapping(options: Options, columns: set[str]) -> tuple[presets.Mapping, str]:
    """The mapping as asked for, filled up by what the column names say; and the label scheme."""
    known, _, scheme = presets.guess(columns)
    asked = options.mapping
    if {"response_a", "response_b", "chosen", "rejected"} & set(asked):
        for name in ("response_a", "response_b", "chosen", "rejected"):
            known.pop(name, None)
    taken = {column for named in asked.values() for column in named}
    free = {name: named for name, named in known.items() if not taken & set(named)}
    if options.labels != "auto" or "label" in asked:
        scheme = options.labels
    return {**free, **asked}, scheme


def _check_columns(mapping: presets.Mapping, columns: set[str]) -> None:
    """Every mapped column is there, and the mapping says what is compared."""
    listed = values.listed(columns)
    for name, named in mapping.items():
        for column in named:
            if column not in columns:
                raise Invalid(
                    f"There is no column “{column}” for {name}.", advice=f"The file has {listed}."
                )
    answers = {"response_a", "response_b"} <= set(mapping) or {"chosen", "rejected"} <= set(mapping)
    missing = [] if "prompt" in mapping else ["prompt"]
    missing += [] if answers else ["response_a", "response_b"]
    if missing:
        raise Invalid(
            f"Which columns hold {' and '.join(missing)}?",
            advice=f"Map them ({missing[0]} = COLUMN). The file has {listed}.",
        )


def prompt_reader(mapping: presets.Mapping) -> Callable[[Cells], list[values.Message]]:
    """Reads system, prompt and input into messages that end with the user's."""
    prompt = mapping["prompt"][0]
    more = mapping.get("input", [""])[0]
    system = mapping.get("system", [""])[0]

    def read(row: Cells) -> list[values.Message]:
        messages = values.messages(values.cell(row, prompt), prompt)
        if more and row.get(more) not in (None, ""):
            addition = values.text(row[more], more)
            if messages and addition.strip():
                last = messages[-1]
                messages[-1] = {**last, "content": f"{last['content']}\n\n{addition}"}
        if system and row.get(system) not in (None, ""):
            content = values.text(row[system], system)
            messages.insert(0, {"role": "system", "content": content})
        return messages

    return read


def replies_reader(mapping: presets.Mapping) -> Callable[[Cells], list[Reply]]:
    """Reads the two answers and what wrote them."""
    ordered = "chosen" in mapping and "rejected" in mapping
    a, b = (
        mapping[name][0]
        for name in (("chosen", "rejected") if ordered else ("response_a", "response_b"))
    )
    writers = [mapping.get(name, [""])[0] for name in ("generator_a", "generator_b")]
    both = mapping.get("generators", [""])[0]

    def read(row: Cells) -> list[Reply]:
        replies = [values.reply(values.cell(row, a), a), values.reply(values.cell(row, b), b)]
        for one, writer in zip(replies, writers, strict=True):
            if writer:
                one.generator = values.name(row.get(writer), writer)
        if both:
            parts = values.name(row.get(both), both, limit=250).split("_")
            # More than one joint leaves it open where the first name ends: better none.
            if len(parts) == 2:
                for one, part in zip(replies, parts, strict=True):
                    one.generator = values.name(part, both)
        return replies

    return read


def votes_reader(
    mapping: presets.Mapping, options: Options, scheme: str, sample: list[dict[str, Any]]
) -> Callable[[Cells, list[Reply]], list[Vote]]:
    columns = mapping.get("label", [])
    swapped = mapping.get("swapped", [])
    if swapped and len(columns) != 1:
        raise Invalid("The winner in the other order needs one column of winners beside it.")
    known = {column for row in sample for column in row}
    preset = presets.find(known)
    judges = frozenset(preset.judges if preset else ())
    rater_columns = mapping.get("rater", [""])
    schemes = {
        column: labels.SCHEMES[
            labels.find_scheme(
                scheme,
                column=column,
                sample=[row.get(column) for row in sample],
                numbered=mapping.get("response_a", [""])[0].endswith("1"),
            )
        ]
        for column in columns
    }
    read_detail = detail_reader(mapping)
    ordered = "chosen" in mapping and "rejected" in mapping

    def read(row: Cells, replies: list[Reply]) -> list[Vote]:
        signed_by = values.joined(row, rater_columns) if rater_columns[0] else ""
        votes = []
        if ordered:
            votes.append(Vote(signed_by or options.rater, 1, 1))
        for column in columns:
            named = [column, *swapped]
            if all(labels.is_unsaid(row.get(one)) for one in named):
                continue
            rater = column if len(columns) > 1 else signed_by or options.rater
            is_judge = rater in judges or options.is_judge(rater)
            scheme = _with_texts(schemes[column], replies)
            vote = orders.read_vote(row, rater, scheme, named, is_judge=is_judge)
            if vote is not None:
                votes.append(vote)
        for vote in votes:
            read_detail(row, vote)
        return votes

    return read


def _with_texts(scheme: labels.Scheme, replies: list[Reply]) -> labels.Scheme:
    """A scheme for one row: the very text of an answer is a label too."""

    def read(value: Any) -> labels.Reading:
        if isinstance(value, str) and replies[0].text != replies[1].text:
            if value == replies[0].text:
                return labels.FIRST
            if value == replies[1].text:
                return labels.SECOND
        return scheme(value)

    return read


def detail_reader(mapping: presets.Mapping) -> Callable[[Cells, Vote], None]:
    """Reads strength, rationale and time of a vote, where they are mapped."""
    strength = mapping.get("strength", [""])[0]
    rationale = mapping.get("rationale", [""])[0]
    at = mapping.get("at", [""])[0]

    def read(row: Cells, vote: Vote) -> None:
        if strength and vote.outcome:
            found = labels.number(row.get(strength))
            if found is not None and abs(found) >= 0.5:
                vote.strength = min(labels.MAX_STRENGTH, round(abs(found)))
        if rationale and row.get(rationale) is not None:
            vote.rationale = values.text(row[rationale], rationale)
        if at:
            vote.at = values.moment(row.get(at), at)

    return read


# What a benchmark says of a row, not of its prompt: one prompt stands in several subsets.
OF_THE_ROW: Final = ("subset", "section")


def tell_replies(row: Row) -> None:
    """Keep with the answers what the row's unclaimed columns say of the row itself."""
    own = {name: row.extra[name] for name in OF_THE_ROW if name in row.extra} if row.extra else {}
    if own:
        for reply in row.replies:
            reply.extra = {**own, **(reply.extra or {})}


def rest_reader(
    mapping: presets.Mapping,
) -> Callable[[Cells], tuple[str, list[str] | None, dict[str, Any] | None]]:
    """Reads id and tags, and gathers the columns that nothing claims."""
    id_column = mapping.get("id", [""])[0]
    tags_column = mapping.get("tags", [""])[0]
    claimed = frozenset(column for named in mapping.values() for column in named)

    def read(row: Cells) -> tuple[str, list[str] | None, dict[str, Any] | None]:
        external_id = values.row_id(row.get(id_column), id_column) if id_column else ""
        tags = values.tags(row.get(tags_column), tags_column) if tags_column else None
        if row.keys() <= claimed:
            return external_id, tags, None
        extra = {
            column: value
            for column, value in row.items()
            if column not in claimed and value is not None
        }
        return external_id, tags, extra or None

    return read
