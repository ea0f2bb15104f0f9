"""Two versions of a dataset side by side: rows added, removed, flipped, moved, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.cache import cache

from annotator.exporters import row_index
from annotator.exporters.recipe import REASONS, SPLITS
from annotator.models import DatasetVersion
from annotator.queries.pair_texts import PromptText, ResponseText, prompts_of, responses_of
from annotator.queries.snapshot import current
from annotator.services import deliveries, recipes

EXAMPLES: Final = 10  # of each kind
KINDS: Final = ("added", "removed", "flipped", "moved")
KEPT_SECONDS: Final = 24 * 3600  # versions never change; only what is asked for often stays
CHARACTERS: Final = 240
UNITS: Final = {
    "pair": "rows are pairs of answers",
    "answer": "rows are single answers",
    "prompt": "rows are prompts with all their answers",
}
GONE: Final = "no longer in the project"


@dataclass(frozen=True)
class Example:
    """A row that changed, in words. ``other`` is "" where a row is of one answer or a prompt.

    ``answer`` is chosen (or the one answer), in the newer version where the row is there.
    """

    prompt_id: int
    split: str
    prompt: str
    answer: str
    other: str
    is_desirable: bool | None = None  # of a row of one answer


@dataclass(frozen=True)
class Reason:
    """How many pairs were left out for one reason, in either version."""

    key: str
    words: str
    old: int
    new: int


@dataclass(frozen=True)
class Comparison:
    """``why_not``: why rows cannot be compared, in words; then there are no counts and examples.

    ``counts``: kept, added, removed, flipped and moved rows; the last two are also kept.
    """

    older: DatasetVersion
    newer: DatasetVersion
    why_not: str = ""
    unit: str = ""
    are_equal: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, list[Example]] = field(default_factory=dict)
    recipe: list[recipes.Difference] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    @property
    def has_turned_ties(self) -> bool:
        """Whether a tie stands in both directions in one of them: compared once, it is two rows."""
        both = (self.older, self.newer)
        return self.unit == "pair" and any(one.recipe.get("ties") == "both" for one in both)

    def as_dict(self) -> dict[str, Any]:
        """For the API."""
        return {
            "a": self.older.number,
            "b": self.newer.number,
            "comparable": not self.why_not,
            "why_not": self.why_not,
            "unit": self.unit,
            "equal": self.are_equal,
            **{name: self.counts.get(name) for name in ("kept", *KINDS)},
            "recipe": [vars(one) for one in self.recipe],
            "dropped": [vars(one) for one in self.reasons],
            "examples": {name: [vars(one) for one in rows] for name, rows in self.examples.items()},
        }


def compare(older: DatasetVersion, newer: DatasetVersion) -> Comparison:
    """Rows are matched by the answers they are of, so that formats of one unit can be compared."""
    recipe = recipes.differences(older.format, older.recipe, newer.format, newer.recipe)
    common: dict[str, Any] = {
        "recipe": recipe,
        "reasons": _reasons(older, newer),
        "are_equal": older.checksum == newer.checksum and older.format == newer.format,
    }
    why_not = _why_not(older) or _why_not(newer)
    units = () if why_not else (_unit(older), _unit(newer))
    if units and units[0] != units[1]:
        why_not = (
            f"In v{older.number} {UNITS[units[0]]}, in v{newer.number} {UNITS[units[1]]}:"
            " they have no rows in common."
        )
    if why_not:
        return Comparison(older, newer, why_not=why_not, **common)
    found = _changes(older, newer)
    return Comparison(
        older,
        newer,
        unit=units[0],
        counts=found["counts"],
        examples=_examples(found["examples"]),
        **common,
    )


def _why_not(version: DatasetVersion) -> str:
    """Why a version's rows cannot be compared with those of any other."""
    if version.deleted_at is not None:
        return f"v{version.number} was deleted: which rows it had is no longer known."
    if version.manifest.get("style") == "raw":
        return f"The rows of v{version.number} are judgments, one by one, not pairs or answers."
    if row_index.load(deliveries.folder_of(version)) is None:
        if not deliveries.folder_of(version).is_dir():
            return f"The files of v{version.number} are no longer on the server."
        return f"v{version.number} was built before it was kept which rows a version has."
    return ""


def _unit(version: DatasetVersion) -> str:
    records = row_index.load(deliveries.folder_of(version))
    if records is None or not len(records) or records["b"][0]:
        return "pair"
    return "answer" if records["a"][0] > 0 else "prompt"


def _changes(older: DatasetVersion, newer: DatasetVersion) -> dict[str, Any]:
    """Counts and records of examples: two files of a few bytes a row are read, once a day."""
    key = f"dataset-compare:1:{older.pk}:{newer.pk}"
    kept: dict[str, Any] | None = cache.get(key)
    if kept is not None:
        return kept
    old, new = (row_index.load(deliveries.folder_of(one)) for one in (older, newer))
    assert old is not None
    assert new is not None
    changes = row_index.compare(old, new, examples=EXAMPLES)
    found = {
        "counts": changes.as_dict(),
        "examples": {name: rows.tolist() for name, rows in changes.examples.items()},
    }
    cache.set(key, found, KEPT_SECONDS)
    return found


def _examples(records: Mapping[str, Iterable[tuple[int, ...]]]) -> dict[str, list[Example]]:
    rows = [row for some in records.values() for row in some]
    raw = current()
    prompts = prompts_of({row[2] for row in rows}, raw)
    responses = responses_of({pk for row in rows for pk in row[:2] if pk > 0}, raw)
    return {
        name: [_example(row, prompts, responses) for row in records.get(name, ())] for name in KINDS
    }


def _example(
    row: tuple[int, ...], prompts: dict[int, PromptText], responses: dict[int, ResponseText]
) -> Example:
    a, b, prompt_id, side, split = row
    first, second = (a, b) if side >= 0 else (b, a)
    is_single = b == 0
    prompt = prompts.get(prompt_id)
    return Example(
        prompt_id=prompt_id,
        split=SPLITS[split],
        prompt=_cut(prompt.last or "") if prompt else GONE,
        answer="" if a < 0 else _text(responses.get(a if is_single else first)),
        other="" if is_single else _text(responses.get(second)),
        is_desirable=side > 0 if is_single and side else None,
    )


def _text(response: ResponseText | None) -> str:
    if response is None:
        return GONE
    messages = response.messages
    text = messages[-1]["content"] if messages else response.text
    return _cut(text or (f"image {response.picture}" if response.picture else ""))


def _cut(text: str) -> str:
    return f"{text[:CHARACTERS]}…" if len(text) > CHARACTERS else text


def _reasons(older: DatasetVersion, newer: DatasetVersion) -> list[Reason]:
    """What either version left out, in the order in which reasons are tried."""
    old, new = (one.manifest.get("counts", {}).get("dropped", {}) for one in (older, newer))
    keys = [*(key for key in REASONS if key in old or key in new)]
    keys += sorted((set(old) | set(new)) - set(REASONS))
    return [Reason(key, REASONS.get(key, key), old.get(key, 0), new.get(key, 0)) for key in keys]
