"""Naming the format of a file from its first rows, with the reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotator.errors import Invalid
from annotator.importers import presets, transcripts, values


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
    if "responses" in columns:
        return Detection("responses", "it has a list of responses")
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
