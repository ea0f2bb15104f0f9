"""Rows that are votes on pairs: a pair's id (or its texts), who voted, and which answer won."""

from __future__ import annotations

from typing import Any, Final

from annotator.errors import Invalid
from annotator.importers import labels, orders, presets, table, values
from annotator.importers.types import (
    DEFAULT_RATER,
    EVERYBODY,
    MAX_ID,
    BadRow,
    Judged,
    Options,
    Raw,
    Reply,
    Row,
    RowReader,
)

STAND_INS: Final = ("Answer 1", "Answer 2")
LLMBAR: Final = presets.Preset(
    "LLMBar’s judgments",
    ("subset", "idx", "judge", "winner"),
    {
        "item": ["subset", "idx"],
        "rater": ["judge", "strategy"],
        "label": ["winner"],
        "swapped": ["winner_swapped"],
        "gold": ["label"],
    },
    labels="one-two",
    judges=(EVERYBODY,),
)
PANDALM: Final = tuple(
    presets.Preset(
        f"PandaLM’s judgments by {rater}",
        ("idx", f"{stem}_result"),
        {"item": ["idx"], "label": [f"{stem}_result"], "rationale": [f"{stem}_reason"]},
        labels="one-two-words",
        unless=("response1",),
        judges=(EVERYBODY,),
        rater=rater,
    )
    for stem, rater in (("gpt", "GPT-3.5"), ("pandalm", "PandaLM-7B"))
)
PRESETS: Final = (LLMBAR, *PANDALM)
NAMES: Final = {
    "item": ("pair_id", "pair", "item", "item_id", "comparison_id"),
    "rater": presets.OTHERS["rater"],
    "label": ("winner", "preference", "choice", "preferred", "preference_strength"),
    "swapped": ("winner_swapped", "swapped"),
    "gold": ("gold", "gold_label", "truth"),
}
TEXTS: Final = ("prompt", "response_a", "response_b")


def guess(
    columns: set[str], asked: presets.Mapping | None = None
) -> tuple[presets.Mapping, str, str]:
    """(mapping, name of a known table, how its labels are written) of rows that are votes."""
    preset = presets.find(columns, PRESETS)
    if preset is not None:
        known = presets.present(preset, columns)
        name, scheme = preset.name, preset.labels
    else:
        known, name, scheme = {}, "", "auto"
        for field, wanted in NAMES.items():
            found = next((column for column in wanted if column in columns), None)
            if found is not None:
                known[field] = [found]
        by_name, _, _ = presets.guess(columns)
        known |= {
            field: by_name[field]
            for field in (*TEXTS, "generator_a", "generator_b", "rationale", "at", "strength")
            if field in by_name and by_name[field] not in known.values()
        }
    asked = asked or {}
    taken = {column for named in asked.values() for column in named}
    free = {field: named for field, named in known.items() if not taken & set(named)}
    return {**free, **asked}, name, scheme


def prepare(options: Options, sample: list[Raw]) -> RowReader:
    """A reader for rows of one vote each. Raises Invalid without a pair, a rater and a winner.

    Without a column of raters, all are signed by the rater that the options name.
    """
    columns = {column for row in sample for column in row}
    mapping, _, scheme = guess(columns, options.mapping)
    absent = [column for named in mapping.values() for column in named if column not in columns]
    preset = presets.find(columns, PRESETS)
    signed_by = options.rater if options.rater != DEFAULT_RATER else preset.rater if preset else ""
    needed = ("item", "label") if signed_by else ("item", "rater", "label")
    missing = [name for name in needed if name not in mapping]
    if absent or missing:
        raise Invalid(
            f"There is no column “{absent[0]}”."
            if absent
            else f"Which column holds {' and '.join(missing)}?",
            advice=f"Map it. The file has {values.listed(columns)}.",
        )
    if options.labels != "auto":
        scheme = options.labels
    judges = (*options.judges, *(preset.judges if preset else ()))
    return _Reader(
        mapping,
        options.model_copy(update={"rater": signed_by, "judges": list(judges)}),
        scheme,
        sample,
    ).read


class _Reader:
    def __init__(
        self, mapping: presets.Mapping, options: Options, scheme: str, sample: list[Raw]
    ) -> None:
        self.item, self.label = mapping["item"], mapping["label"][0]
        self.rater = mapping.get("rater", [])
        self.swapped = mapping.get("swapped", [""])[0]
        self.gold = mapping.get("gold", [""])[0]
        self.options = options
        self.has_texts = set(TEXTS) <= set(mapping)
        if self.has_texts:
            self.prompt = table.prompt_reader(mapping)
            self.replies = table.replies_reader(mapping)
        key = labels.find_scheme(
            scheme,
            column=self.label,
            sample=[row.get(self.label) for row in sample],
            numbered=False,
        )
        self.scheme = labels.SCHEMES[key]
        self.detail = table.detail_reader(mapping)

    def read(self, row: Raw) -> Row:
        name = values.joined(row, self.item, limit=MAX_ID)
        if not name:
            raise BadRow("no-item", columns=tuple(self.item))
        found = self._row(row, name)
        rater = values.joined(row, self.rater) if self.rater else self.options.rater
        is_judge = self.options.is_judge(rater)
        named = [column for column in (self.label, self.swapped) if column]
        if is_judge or not all(labels.is_unsaid(row.get(column)) for column in named):
            if not rater:
                raise BadRow("no-rater", columns=tuple(self.rater))
            vote = orders.read_vote(row, rater, self.scheme, named, is_judge=is_judge)
            if vote is not None:
                self.detail(row, vote)
                found.votes = [vote]
        if self.gold and not labels.is_unsaid(row.get(self.gold)):
            outcome, _, _ = self._say(row[self.gold], self.gold)
            ranks = {1: [1, 2], -1: [2, 1], 0: [1, 1]}[outcome]
            found.gold = Judged("", ranks)
        return found

    def _row(self, row: Raw, name: str) -> Row:
        if self.has_texts:
            messages, replies = self.prompt(row), self.replies(row)
        else:
            messages = [{"role": "user", "content": name}]
            replies = [Reply(text) for text in STAND_INS]
        return Row(
            messages,
            replies,
            pairs=[(0, 1)],
            external_id=name,
            kind="pairwise",
            is_reference=not self.has_texts,
        )

    def _say(self, value: Any, column: str) -> labels.Reading:
        try:
            return self.scheme(value)
        except BadRow as bad:
            raise BadRow(bad.code, bad.detail, columns=(column,)) from None
