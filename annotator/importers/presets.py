"""Column names that say by themselves what they hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

Mapping = dict[str, list[str]]


@dataclass(frozen=True)
class Preset:
    """A well-known table: the columns that give it away, and what they hold."""

    name: str
    needs: tuple[str, ...]
    mapping: Mapping
    labels: str = "auto"
    unless: tuple[str, ...] = ()  # columns that make it another table
    judges: tuple[str, ...] = ()  # raters that are AI judges, * all of them
    rater: str = ""  # who signs labels that name nobody

    def fits(self, columns: Collection[str]) -> bool:
        return all(one in columns for one in self.needs) and not any(
            one in columns for one in self.unless
        )


PRESETS: Final = (
    Preset(
        "PandaLM",
        ("instruction", "response1", "response2"),
        {
            "prompt": ["instruction"],
            "input": ["input"],
            "response_a": ["response1"],
            "response_b": ["response2"],
            "generators": ["cmp_key"],
            "label": ["annotator1", "annotator2", "annotator3", "gpt_result", "pandalm_result"],
            "id": ["idx"],
            "tags": ["motivation_app"],
        },
        labels="one-two-words",
        judges=("gpt_result", "pandalm_result"),
    ),
    Preset(
        "LLMBar",
        ("input", "output_1", "output_2"),
        {
            "prompt": ["input"],
            "response_a": ["output_1"],
            "response_b": ["output_2"],
            "label": ["label"],
        },
        labels="one-two",
    ),
)

# Pairs of column names that hold two answers, most telling first.
ANSWERS: Final = (
    *tuple(
        (f"{stem}{joint}{a}", f"{stem}{joint}{b}")
        for stem in ("response", "answer", "output", "completion", "text", "generation")
        for joint in ("_", "")
        for a, b in (("a", "b"), ("1", "2"), ("0", "1"))
    ),
    ("a", "b"),
    ("A", "B"),
    ("left", "right"),
)
OTHERS: Final[dict[str, Sequence[str]]] = {
    "prompt": ("messages", "prompt", "instruction", "question", "query", "input"),
    "system": ("system", "system_prompt"),
    "label": (
        "winner",
        "label",
        "preference",
        "choice",
        "preferred",
        "overall_preference",
        "preference_strength",
        "label_0",
    ),
    "rater": ("rater", "annotator", "annotator_id", "rater_id", "worker", "worker_id", "judge"),
    "strength": ("strength", "margin"),
    "rationale": ("rationale", "reason", "explanation"),
    "at": ("submitted_at", "judged_at", "timestamp"),
    "id": ("id", "idx", "uid", "prompt_id"),
    "tags": ("tags",),
}
GENERATORS: Final = tuple(
    (f"{stem}{joint}{a}", f"{stem}{joint}{b}")
    for stem in ("generator", "model", "gen")
    for joint in ("_", "")
    for a, b in (("a", "b"), ("1", "2"))
)


def guess(columns: Collection[str]) -> tuple[Mapping, str, str]:
    """(mapping, name of the table, how its labels are written) from column names alone.

    The mapping holds what was recognized; it may lack a prompt or the answers.
    """
    preset = find(columns)
    if preset is None:
        return _by_name(columns), "", "auto"
    return present(preset, columns), preset.name, preset.labels


def find(columns: Collection[str], presets: Sequence[Preset] = PRESETS) -> Preset | None:
    """The well-known table that has these columns."""
    return next((preset for preset in presets if preset.fits(columns)), None)


def present(preset: Preset, columns: Collection[str]) -> Mapping:
    """What a well-known table maps, less the columns that are not there."""
    found = {
        name: [column for column in wanted if column in columns]
        for name, wanted in preset.mapping.items()
    }
    return {name: named for name, named in found.items() if named}


def _by_name(columns: Collection[str]) -> Mapping:
    mapping: Mapping = {}
    if {"chosen", "rejected"} <= set(columns):
        mapping |= {"chosen": ["chosen"], "rejected": ["rejected"]}
    else:
        for a, b in ANSWERS:
            if a in columns and b in columns:
                mapping |= {"response_a": [a], "response_b": [b]}
                break
    for a, b in GENERATORS:
        if a in columns and b in columns:
            mapping |= {"generator_a": [a], "generator_b": [b]}
            break
    for name, wanted in OTHERS.items():
        found = next((column for column in wanted if column in columns), None)
        if found is not None and [found] not in mapping.values():
            mapping[name] = [found]
    if mapping.get("prompt") == ["instruction"] and "input" in columns:
        mapping["input"] = ["input"]
    return mapping
