"""What the pages of datasets draw: bars beside rules, intervals beside shares, cut texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from django import forms

from annotator.charts import HBar, HBarChart, MiniInterval, hbars, mini_interval
from annotator.charts_scale import px
from annotator.exporters import EXPORTERS
from annotator.exporters.preview import RULES, Preview, Step
from annotator.exporters.recipe import REASONS
from annotator.forms.exports import ExportForm
from annotator.models import DatasetVersion
from annotator.services import deliveries

BAR_WIDTH: Final = 200
PREVIEW_ROWS: Final = 2
MINI_DOMAIN: Final = (0.2, 0.8)
STRENGTHS: Final = {"1": "slight, 1", "2": "clear, 2", "3": "strong, 3"}


@dataclass(frozen=True)
class Rule:
    """A line of the recipe: its fields, and what it leaves once that is counted."""

    key: str
    fields: list[forms.BoundField]
    step: Step | None
    left_width: float = 0
    dropped_x: float = 0
    dropped_width: float = 0


def rules(form: ExportForm, found: Preview | None) -> list[Rule]:
    steps = {step.rule: step for step in found.steps} if found else {}
    return [_rule(key, form, steps.get(key)) for key in RULES]


def _rule(key: str, form: ExportForm, step: Step | None) -> Rule:
    fields = [form[key]] if key in form.fields else []
    if step is None:
        return Rule(key, fields, None)
    left = px(BAR_WIDTH * step.left_share)
    dropped = px(max(0.0, BAR_WIDTH * step.dropped_share - 1))
    return Rule(key, fields, step, left, left + 1, dropped)


@dataclass(frozen=True)
class Line:
    """A version in the list."""

    version: DatasetVersion
    label: str
    pairs: int
    bytes: int
    is_simulated: bool


def line(version: DatasetVersion) -> Line:
    return Line(
        version,
        label_of(version),
        version.manifest["counts"]["in"],
        sum(entry["bytes"] for entry in version.files),
        version.manifest["is_simulated"],
    )


def label_of(version: DatasetVersion) -> str:
    """The format, also of a version whose format is no longer offered."""
    method = EXPORTERS.get(version.format)
    return method.label if method else version.format


@dataclass(frozen=True)
class Shown:
    """A version's page. ``dropped`` is (why, count)."""

    label: str
    bytes: int
    dropped: list[tuple[str, int]]
    is_raw: bool  # rows are judgments, not pairs
    longer: MiniInterval | None
    longer_state: str  # "done" or "warn", as the page marks it
    sides: MiniInterval | None
    sides_state: str
    strengths: HBarChart | None
    options: list[tuple[str, str]]
    preview: list[dict[str, Any]]
    loader: str
    are_files_there: bool


def shown(version: DatasetVersion, *, preview: list[dict[str, Any]]) -> Shown:
    facts = version.manifest
    health, sides = facts["health"], facts["health"].get("shown_first_wins")
    container = facts["options"]["container"]
    return Shown(
        label=label_of(version),
        bytes=sum(entry["bytes"] for entry in version.files),
        dropped=_dropped(facts["counts"]["dropped"]),
        is_raw=facts["style"] == "raw",
        longer=_mini(health["chosen_longer"]) if "chosen_longer" in health else None,
        longer_state=_state(health["chosen_longer"]) if "chosen_longer" in health else "",
        sides=_mini(sides) if sides else None,
        sides_state=_state(sides) if sides else "",
        strengths=_strengths(health["rows_by_strength"]) if "rows_by_strength" in health else None,
        options=_options(version.format, facts["options"]),
        preview=_preview(preview),
        loader="parquet" if container == "parquet" else "json",
        are_files_there=deliveries.folder_of(version).is_dir(),
    )


# PostgreSQL keeps the keys of JSON in an order of its own: what follows puts them back in ours.


def _dropped(counts: dict[str, int]) -> list[tuple[str, int]]:
    keys = [*(key for key in REASONS if key in counts), *(set(counts) - set(REASONS))]
    return [(REASONS.get(key, key), counts[key]) for key in keys]


def _options(format: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    method = EXPORTERS.get(format)
    order = list(method.load_options().model_fields) if method else sorted(options)
    return [(name, _written(options[name])) for name in order if name in options]


def _preview(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first ``PREVIEW_ROWS`` of every file."""
    seen: Counter[str] = Counter()
    shown = []
    for row in rows:
        seen[row["split"]] += 1
        if seen[row["split"]] <= PREVIEW_ROWS:
            shown.append(_preview_row(row))
    return shown


def _mini(share: dict[str, Any]) -> MiniInterval:
    low, high = share["interval"]
    return mini_interval(
        share["share"], low, high, domain=MINI_DOMAIN, reference=0.5, width=112, style=2
    )


def _state(share: dict[str, Any]) -> str:
    """A warning where the interval leaves out one half."""
    low, high = share["interval"]
    return "done" if low <= 0.5 <= high else "warn"


def _strengths(rows: dict[str, int]) -> HBarChart:
    bars = [HBar(STRENGTHS.get(key, key), rows[key], style=1) for key in sorted(rows)]
    said = ", ".join(f"{bar.value:,} {bar.name.partition(',')[0]}" for bar in bars)
    return hbars(
        bars,
        label=f"Rows by strength of preference: {said}.",
        heading="Strength of preference",
        caption="Kept as margin, 1 to 3.",
        width=360,
    )


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _preview_row(row: dict[str, Any]) -> dict[str, Any]:
    if "judgment_id" not in row:
        # Versions built before rows were kept in words hold the row itself.
        return row | {name: _last_text(row[name]) for name in ("prompt", "chosen", "rejected")}
    responses = [one["text"] for one in row["responses"]]
    return {
        "split": row["split"],
        "turns": len(row["prompt"]),
        "votes": None,
        "prompt": _last_text(row["prompt"]),
        "chosen": " / ".join(responses),
        "rejected": _verdict(row),
    }


def _verdict(row: dict[str, Any]) -> str:
    """What a judgment says, as short as its kind allows."""
    said = f"ranks {' '.join(map(str, row['ranks']))}"
    ratings = row["ratings"]
    if isinstance(ratings, dict):
        said = "; ".join(f"{name} {values}" for name, values in ratings.items())
    elif ratings:
        said = str(ratings)
    return f"{row['rater'] or row['rater_id']}: {said}"


def _last_text(value: Any) -> str:
    """The text of a cell: of messages, that of the last."""
    if isinstance(value, list):
        return value[-1]["content"] if value else ""
    return str(value)
