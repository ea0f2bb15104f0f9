"""Rows that are judgments: one rater's value for one item, or one rated response of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from annotator.errors import Invalid
from annotator.importers import labels, presets, table, values
from annotator.importers.types import (
    MAX_ID,
    BadRow,
    Grouped,
    Judged,
    Options,
    Ratings,
    Raw,
    Refuse,
    Reply,
    Row,
)

ROWS_AT_ONCE: Final = 10_000  # of one item
RESPONSES_AT_ONCE: Final = 10  # what one rating task holds
HELPSTEER: Final = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
WORDS: Final = {
    "yes": 1,
    "y": 1,
    "true": 1,
    "pass": 1,
    "no": 0,
    "n": 0,
    "false": 0,
    "fail": 0,
}
LONG: Final = (
    presets.Preset(
        "DSG",
        ("item_id", "t2i_model", "worker_id", "answer"),
        {
            "item": ["item_id", "t2i_model"],
            "prompt": ["item_id"],
            "generator": ["t2i_model"],
            "rater": ["worker_id"],
            "value": ["answer"],
        },
    ),
    presets.Preset(
        "HANNA",
        ("story_prompt", "system", "criterion", "human1", "human2", "human3"),
        {
            "item": ["story_prompt", "system"],
            "prompt": ["story_prompt"],
            "generator": ["system"],
            "attribute": ["criterion"],
            "value": ["human1", "human2", "human3"],
        },
    ),
    presets.Preset(
        "XSum factuality",
        ("bbcid", "system", "summary", "is_factual", "worker_id"),
        {
            "item": ["bbcid", "system"],
            "prompt": ["bbcid"],
            "generator": ["system"],
            "response": ["summary"],
            "rater": ["worker_id"],
            "value": ["is_factual"],
        },
    ),
    presets.Preset(
        "Snow’s textual entailment",
        ("worker", "item", "response", "hypothesis", "text"),
        {
            "item": ["item"],
            "rater": ["worker"],
            "value": ["response"],
            "gold": ["gold"],
            "prompt": ["text"],
            "response": ["hypothesis"],
        },
    ),
)
NAMES: Final = {
    "item": ("item", "item_id", "task_id", "example_id", "question_id"),
    "rater": presets.OTHERS["rater"],
    "value": ("value", "rating", "score", "answer", "label", "response", "judgment"),
    "attribute": ("attribute", "criterion", "aspect", "dimension"),
    "gold": ("gold", "gold_label", "truth"),
    "prompt": ("prompt", "instruction", "question", "text"),
    "generator": ("generator", "model", "system_id"),
    "rationale": presets.OTHERS["rationale"],
    "at": presets.OTHERS["at"],
}


def guess(columns: set[str], asked: presets.Mapping | None = None) -> tuple[presets.Mapping, str]:
    """(mapping, name of a known table) of rows that are judgments, from their columns."""
    asked = asked or {}
    known, found_name = _known_table(columns)
    if not known:
        for name, wanted in NAMES.items():
            found = next((column for column in wanted if column in columns), None)
            if found is not None and [found] not in known.values():
                known[name] = [found]
    taken = {column for named in asked.values() for column in named}
    free = {name: named for name, named in known.items() if not taken & set(named)}
    return {**free, **asked}, found_name


def _known_table(columns: set[str]) -> tuple[presets.Mapping, str]:
    for preset in LONG:
        if set(preset.needs) <= columns:
            mapping = {
                name: named for name, named in preset.mapping.items() if set(named) <= columns
            }
            return mapping, preset.name
    return {}, ""


@dataclass(frozen=True)
class Scale:
    """How a cell of values is read. ``note`` says which answer a yes stands for."""

    kind: str
    read: Callable[[Any], int]
    note: str = ""


def find_scale(sample: list[Any], options: Options, *, column: str = "value") -> Scale:
    """The scale of a column, from the option ``values`` or the values of the first rows.

    Raises Invalid where words have no order that can be known.
    """
    given = {word.strip().lower(): number for word, number in options.values.items()}
    if given:
        is_binary = set(given.values()) <= {0, 1}
        yes = [word for word, number in options.values.items() if number == 1]
        note = yes[0] if is_binary and len(yes) == 1 else ""
        return Scale("checklist" if is_binary else "rating", _mapped(given), note)
    seen = {str(value).strip().lower() for value in sample if not labels.is_unsaid(value)}
    if seen and seen <= set(WORDS):
        return Scale("checklist", _mapped(WORDS))
    numbers = {labels.number(value) for value in seen}
    if None not in numbers:
        return Scale("checklist" if numbers == {0.0, 1.0} else "rating", _whole)
    if len(seen) == 2:
        low, high = sorted(seen)
        return Scale("checklist", _mapped({low: 0, high: 1}), high)
    raise Invalid(
        f"“{column}” holds words whose order cannot be known: {values.listed(seen)}.",
        advice="Say what each counts: values, such as bad = 0, fair = 1, good = 2"
        " (--values on the command line).",
    )


def _mapped(numbers: dict[str, int]) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        found = numbers.get(str(value).strip().lower())
        if found is None:
            raise BadRow("rating", repr(value)[:60])
        return found

    return read


def _whole(value: Any) -> int:
    found = labels.number(value)
    if found is None or found != int(found) or abs(found) > 1000:
        raise BadRow("rating", repr(value)[:60])
    return int(found)


def prepare_long(options: Options, sample: list[Raw]) -> Grouped:
    """One judgment a row: item, rater, value, and an attribute where there are several."""
    columns = {column for row in sample for column in row}
    mapping, _ = guess(columns, options.mapping)
    missing = [name for name in ("item",) if name not in mapping]
    if not {"value", "gold"} & set(mapping):
        missing.append("value")
    absent = [column for named in mapping.values() for column in named if column not in columns]
    if missing or absent:
        what = f"There is no column “{absent[0]}”." if absent else "What was judged, and how?"
        raise Invalid(
            what,
            advice=f"Map {' and '.join(missing) or 'another column'}. The file has"
            f" {values.listed(columns)}.",
        )
    judged = _Long(mapping, options, sample)
    return Grouped(judged.key, judged.read, most=ROWS_AT_ONCE)


class _Long:
    def __init__(self, mapping: presets.Mapping, options: Options, sample: list[Raw]) -> None:
        self.item = mapping["item"]
        # A name that stands in for a text must not say whose it is; the generator is kept apart.
        blind = [column for column in self.item if [column] != mapping.get("generator")]
        self.blind = blind or self.item
        self.values = mapping.get("value", [])
        self.rater = mapping.get("rater", [""])
        self.by_column = len(self.values) > 1
        self.options = options
        one = {name: mapping.get(name, [""])[0] for name in NAMES | {"response": (), "system": ()}}
        self.attribute, self.gold = one["attribute"], one["gold"]
        self.prompt, self.response = one["prompt"], one["response"]
        self.system, self.generator = one["system"], one["generator"]
        self.rationale, self.at = one["rationale"], one["at"]
        cells = [row.get(column) for row in sample for column in self.values or [self.gold]]
        first = (self.values or [self.gold])[0]
        self.scale = find_scale(cells, options, column=first)
        self.criterion = f"{first}: {self.scale.note}" if self.scale.note else first
        self.order = list(
            dict.fromkeys(str(row.get(self.attribute)) for row in sample if self.attribute)
        )
        self.rest = table.rest_reader(mapping)

    def key(self, row: Raw) -> str:
        found = values.joined(row, self.item, limit=MAX_ID)
        if not found:
            raise BadRow("no-item", columns=tuple(self.item))
        return found

    def read(self, rows: list[tuple[int, Raw]], refuse: Refuse) -> Row | None:
        said: dict[str, Judged] = {}
        gold: dict[str, int] = {}
        first: Raw | None = None
        for number, raw in rows:
            try:
                self._add(raw, said, gold)
            except BadRow as bad:
                refuse(number, raw, bad)
            else:
                first = raw if first is None else first
        if first is None:
            return None
        try:
            row = self._row(first)
        except BadRow as bad:
            refuse(rows[0][0], first, bad)
            return None
        row.verdicts = list(said.values())
        for judged in row.verdicts:
            judged.ratings = self._ordered(judged.ratings or {})
        if gold:
            row.gold = Judged("", ratings=self._ordered({name: [gold[name]] for name in gold}))
        return row

    def _add(self, raw: Raw, said: dict[str, Judged], gold: dict[str, int]) -> None:
        name = self._attribute(raw)
        found = []
        for column in self.values:
            if labels.is_unsaid(raw.get(column)):
                continue
            value = self._value(raw[column], column)
            rater = column if self.by_column else self._rater(raw)
            judged = said.get(rater)
            if judged is not None and name in (judged.ratings or {}):
                raise BadRow("rated-twice", rater, columns=(*self.item, *self.rater))
            found.append((rater, value))
        if self.gold and not labels.is_unsaid(raw.get(self.gold)):
            gold.setdefault(name, self._value(raw[self.gold], self.gold))
        for rater, value in found:
            judged = said.setdefault(rater, Judged(rater, ratings={}))
            assert judged.ratings is not None
            judged.ratings[name] = [value]
            if self.rationale and not labels.is_unsaid(raw.get(self.rationale)):
                judged.rationale = judged.rationale or values.text(
                    raw[self.rationale], self.rationale
                )
            if self.at:
                judged.at = judged.at or values.moment(raw.get(self.at), self.at)

    def _attribute(self, raw: Raw) -> str:
        if not self.attribute:
            return self.criterion
        found = values.name(raw.get(self.attribute), self.attribute, limit=MAX_ID)
        if not found:
            raise BadRow("missing", f"“{self.attribute}”", columns=(self.attribute,))
        return found

    def _rater(self, raw: Raw) -> str:
        if not self.rater[0]:
            return self.options.rater
        found = values.joined(raw, self.rater)
        if not found:
            raise BadRow("no-rater", columns=tuple(self.rater))
        return found

    def _value(self, cell: Any, column: str) -> int:
        try:
            return self.scale.read(cell)
        except BadRow as bad:
            raise BadRow(bad.code, bad.detail, columns=(column,)) from None

    def _ordered(self, ratings: Ratings) -> Ratings:
        """Attributes in the order of the file's first rows: the first one decides."""
        ahead = [name for name in self.order if name in ratings]
        return {name: ratings[name] for name in (*ahead, *ratings)}

    def _row(self, raw: Raw) -> Row:
        name = self.key(raw)
        asked, answer = raw.get(self.prompt), raw.get(self.response)
        messages = values.messages(name if asked in (None, "") else asked, self.prompt)
        if self.system and raw.get(self.system) not in (None, ""):
            content = values.text(raw[self.system], self.system)
            messages.insert(0, {"role": "system", "content": content})
        reply = (
            values.reply(values.joined(raw, self.blind, limit=MAX_ID) or name, "")
            if answer in (None, "")
            else values.reply(answer, self.response)
        )
        if self.generator:
            reply.generator = values.name(raw.get(self.generator), self.generator)
        _, tags, extra = self.rest(raw)
        # The item is the response's name, not the prompt's: a prompt may have several.
        reply.extra = {**(extra or {}), "item": name}
        return Row(messages, [reply], tags=tags, kind=self.scale.kind)


def helpsteer_columns(columns: set[str]) -> list[str]:
    return [name for name in HELPSTEER if name in columns]


def prepare_helpsteer(options: Options, sample: list[Raw]) -> Grouped:
    """A rated response a row: the neighbors of one prompt become one rating task."""
    columns = {column for row in sample for column in row}
    known, _, _ = presets.guess(columns)
    mapping = {
        name: known[name] for name in ("prompt", "system", "rater", "input") if name in known
    }
    mapping |= {"response": ["response"], "ratings": helpsteer_columns(columns)}
    for name in ("generator", "model"):
        if name in columns:
            mapping["generator"] = [name]
            break
    mapping |= options.mapping
    absent = [column for named in mapping.values() for column in named if column not in columns]
    if absent or "prompt" not in mapping or not mapping["ratings"]:
        raise Invalid(
            f"There is no column “{absent[0]}”." if absent else "Which columns hold ratings?",
            advice="This format needs prompt, response and one column per attribute (ratings ="
            f" COLUMN, COLUMN). The file has {values.listed(columns)}.",
        )
    rated = _Rated(mapping, options)
    return Grouped(rated.key, rated.read, most=RESPONSES_AT_ONCE, is_adjacent=True)


class _Rated:
    def __init__(self, mapping: presets.Mapping, options: Options) -> None:
        self.options = options
        self.prompt = mapping["prompt"][0]
        self.response = mapping["response"][0]
        self.ratings = mapping["ratings"]
        self.rater = mapping.get("rater", [""])
        self.generator = mapping.get("generator", [""])[0]
        self.read_prompt = table.prompt_reader(mapping)
        self.rest = table.rest_reader(mapping)

    def key(self, row: Raw) -> str:
        try:
            messages = orjson.dumps(self.read_prompt(row)).decode()
        except TypeError:
            raise BadRow("encoding", columns=(self.prompt,)) from None
        return f"{self._rater(row)}\0{messages}"

    def _rater(self, row: Raw) -> str:
        return (values.joined(row, self.rater) if self.rater[0] else "") or self.options.rater

    def read(self, rows: list[tuple[int, Raw]], refuse: Refuse) -> Row | None:
        replies: list[Reply] = []
        ratings: Ratings = {name: [] for name in self.ratings}
        seen: set[tuple[str, str]] = set()
        for number, raw in rows:
            try:
                reply, rated = self._reply(raw)
                if (reply.text, reply.generator) in seen:
                    raise BadRow("identical", columns=(self.response,))
            except BadRow as bad:
                refuse(number, raw, bad)
                continue
            seen.add((reply.text, reply.generator))
            replies.append(reply)
            for name, value in rated.items():
                ratings[name].append(value)
        if not replies:
            return None
        said = {name: found for name, found in ratings.items() if any(v is not None for v in found)}
        row = Row(self.read_prompt(rows[0][1]), replies, kind="rating")
        if said:
            row.verdicts = [Judged(self._rater(rows[0][1]), ratings=said)]
        return row

    def _reply(self, raw: Raw) -> tuple[Reply, dict[str, int | None]]:
        reply = values.reply(values.cell(raw, self.response), self.response)
        if not reply.text.strip():
            raise BadRow("empty-answer", columns=(self.response,))
        if self.generator:
            reply.generator = values.name(raw.get(self.generator), self.generator)
        rated: dict[str, int | None] = {}
        for name in self.ratings:
            cell = raw.get(name)
            try:
                rated[name] = None if labels.is_unsaid(cell) else _whole(cell)
            except BadRow as bad:
                raise BadRow(bad.code, bad.detail, columns=(name,)) from None
        _, _, extra = self.rest(raw)
        reply.extra = extra
        return reply, rated
