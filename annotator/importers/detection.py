"""Naming the format of a file from its first rows, with the reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotator.errors import Invalid
from annotator.importers import (
    conversations,
    pictures,
    presets,
    ratings,
    transcripts,
    values,
    votes,
)


@dataclass(frozen=True)
class Detection:
    key: str
    reason: str


def detect(sample: Sequence[dict[str, Any]], *, mapped: Sequence[str] = ()) -> Detection:
    """The importer for these rows. ``mapped`` are the fields that the user mapped.

    Raises Invalid, naming the columns found, where nothing fits.
    """
    columns = {column for row in sample for column in row}
    if "responses" in mapped:
        return Detection("responses", "a column was mapped to responses")
    if {"response_a", "response_b"} & set(mapped):
        return Detection("table", "columns were mapped to the two answers")
    if {"chosen", "rejected"} <= columns or {"chosen", "rejected"} <= set(mapped):
        return _preference(sample, columns)
    if pictures.is_image_table(sample, mapped):
        return Detection("images", "its columns hold images")
    if conversations.find_column(list(sample), {}):
        return Detection("conversations", "turns hold several replies")
    if "responses" in columns:
        return Detection("responses", "it has a list of responses")
    if {"generations", "ranking"} <= columns:
        return Detection("ranked", "it has generations and their ranking")
    judgments = _judgments(columns, mapped)
    if judgments:
        return judgments
    mapping, name, _ = presets.guess(columns)
    if name:
        return Detection("table", f"its columns are those of {name}")
    if {"prompt", "response_a", "response_b"} <= set(mapping) | set(mapped):
        a, b = mapping["response_a"][0], mapping["response_b"][0]
        return Detection("table", f"it has a prompt and two answers, “{a}” and “{b}”")
    raise Invalid(
        "No known format has these columns.",
        advice=f"The file has {values.listed(columns)}. Say which column holds what, for example"
        " prompt = …, response_a = …, response_b = … (--map on the command line).",
    )


def _judgments(columns: set[str], mapped: Sequence[str]) -> Detection | None:
    """Formats whose rows are judgments, told by their columns or by what was mapped."""
    attributes = ratings.helpsteer_columns(columns)
    if "ratings" in mapped or ({"prompt", "response"} <= columns and len(attributes) > 1):
        return Detection("helpsteer", "it has a response and a column of ratings per attribute")
    _, name, _ = votes.guess(columns)
    if name:
        return Detection("votes-long", f"its columns are those of {name}")
    mapping, name = ratings.guess(columns)
    if name:
        return Detection("ratings-long", f"its columns are those of {name}")
    if "item" in mapped and "label" in mapped:
        return Detection("votes-long", "an item and its winner were mapped")
    if "item" in mapped:
        return Detection("ratings-long", "a column was mapped to what was judged")
    known, _, _ = presets.guess(columns)
    has_answers = {"response_a", "response_b"} <= set(known) | set(mapped)
    pair, _, _ = votes.guess(columns)
    if {"item", "rater", "label"} <= set(pair) and not has_answers and "winner" in columns:
        return Detection("votes-long", "it has a pair, a rater and a winner")
    if {"item", "rater", "value"} <= set(mapping) and not has_answers:
        return Detection("ratings-long", "it has an item, a rater and a value")
    return None


def _preference(sample: Sequence[dict[str, Any]], columns: set[str]) -> Detection:
    if any(row.get("prompt") is not None for row in sample):
        return Detection("trl-preference", "it has prompt, chosen and rejected")
    pairs = [(row.get("chosen"), row.get("rejected")) for row in sample]
    whole = [
        isinstance(one, str)
        and isinstance(other, str)
        and transcripts.looks_like(one)
        and transcripts.looks_like(other)
        for one, other in pairs
    ]
    if sum(whole) * 2 > len(whole):
        return Detection("hh-rlhf", "chosen and rejected are “Human: … Assistant: …” transcripts")
    return Detection("trl-preference", "it has chosen and rejected that begin alike")
