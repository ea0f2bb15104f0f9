"""What the pages of datasets draw: bars beside rules, intervals beside shares, cut texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django import forms

from annotator.charts_scale import px
from annotator.exporters import EXPORTERS
from annotator.exporters.preview import RULES, Preview, Step
from annotator.exporters.recipe import REASONS
from annotator.forms.exports import ExportForm
from annotator.models import DatasetVersion, Project, Run
from annotator.queries import datasets as queries
from annotator.services import deliveries, recipes
from annotator.views import dataset_health

BAR_WIDTH: Final = 200
LOADERS: Final = {"parquet": "parquet", "shards": "parquet", "csv": "csv"}
PREVIEW_ROWS: Final = 2
SIDES: Final = ("chosen", "rejected")


@dataclass(frozen=True)
class Rule:
    """A line of the recipe: its fields by name, and what it leaves once that is counted."""

    key: str
    fields: dict[str, forms.BoundField]
    step: Step | None
    left_width: float = 0
    dropped_x: float = 0
    dropped_width: float = 0


def rules(form: ExportForm, found: Preview | None) -> list[Rule]:
    """The lines of the table."""
    if not form.counts_pairs:
        return []
    steps = {step.rule: step for step in found.steps} if found else {}
    return [_rule(key, form, steps.get(key)) for key in RULES]


def _rule(key: str, form: ExportForm, step: Step | None) -> Rule:
    fields = form.row_fields(key)
    if step is None or not step.is_known:
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
    checked: str  # with what it was checked, or that it reads back
    recipe: str


def line(version: DatasetVersion) -> Line:
    return Line(
        version,
        label_of(version),
        version.manifest["counts"]["in"],
        sum(entry["bytes"] for entry in version.files),
        version.manifest["is_simulated"],
        ", ".join(one["with"] for one in version.manifest.get("checked", []) if one["ok"])
        or "reads back",
        str(version.recipe_version or ""),
    )


def label_of(version: DatasetVersion) -> str:
    """The format, also of a version whose format is no longer offered."""
    method = EXPORTERS.get(version.format)
    return method.label if method else version.format


def noun_of(format: str) -> str:
    """What health counts: rows, or the pairs behind them where a row is of a whole prompt."""
    if format not in EXPORTERS:
        return "rows"
    found = EXPORTERS[format].load()
    # Pairs of pictures are written prompt by prompt too, but each is a row.
    of_prompts = (
        getattr(found, "unit", "") == "prompt"
        and getattr(found, "reads", "") != Project.Modality.IMAGE
    )
    return "pairs" if of_prompts else "rows"


@dataclass(frozen=True)
class Shown:
    """A version's page. ``dropped`` is (why, count); ``chosen`` the options that are not the
    defaults, ``other`` the rest, both (title, value)."""

    label: str
    bytes: int
    dropped: list[tuple[str, int]]
    is_raw: bool  # rows are judgments, not pairs
    noun: str  # what the figures of health count
    drawn: dataset_health.Drawn | None
    chosen: list[tuple[str, str]]
    other: list[tuple[str, str]]
    preview: list[dict[str, Any]]
    as_json: list[str]
    loader: str
    are_files_there: bool
    more_files: list[str]  # what lies beside the rows


def shown(version: DatasetVersion, *, preview: list[dict[str, Any]]) -> Shown:
    facts = version.manifest
    container = facts["options"]["container"]
    chosen, other = _options(version.format, facts["options"])
    return Shown(
        label=label_of(version),
        bytes=sum(entry["bytes"] for entry in version.files),
        dropped=dropped(facts["counts"]["dropped"]),
        is_raw=facts["style"] == "raw",
        noun=(noun := noun_of(version.format)),
        drawn=None if facts["style"] == "raw" else dataset_health.of_version(facts, noun=noun),
        chosen=chosen,
        other=other,
        preview=with_pictures(version.project, _preview(preview)),
        as_json=[_json(row) for row in preview[:PREVIEW_ROWS]],
        loader=LOADERS.get(container, "json"),
        are_files_there=deliveries.folder_of(version).is_dir(),
        more_files=deliveries.file_names(version)[len(version.files) :],
    )


def with_pictures(project: Project, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the numbers of their pictures, as pages address them."""
    files = {one for row in rows for one in row.get("pictures") or () if one}
    if not files:
        return rows
    ids = queries.image_ids(project, files)
    return [
        row | {f"{side}_image": ids.get(file) for side, file in zip(SIDES, found, strict=True)}
        if (found := row.get("pictures"))
        else row
        for row in rows
    ]


# PostgreSQL keeps the keys of JSON in an order of its own: what follows puts them back in ours.


def configured(run: Run) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What a build was asked for, in words: what is not the default, and the rest."""
    format, recipe = run.config.get("format", ""), run.config.get("recipe") or {}
    chosen, other = _options(format, run.config.get("options") or {})
    method = EXPORTERS.get(format)
    first = [("Format", method.label if method else format)]
    if recipe:
        first.append(("Recipe", f"{recipe['name']} v{recipe['number']}"))
    return [*first, *chosen], other


def dropped(counts: dict[str, int]) -> list[tuple[str, int]]:
    """(why, pairs) in the order in which pairs are tested."""
    keys = [*(key for key in REASONS if key in counts), *(set(counts) - set(REASONS))]
    return [(REASONS.get(key, key), counts[key]) for key in keys]


def _options(
    format: str, options: dict[str, Any]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Options in words: those that differ from the defaults, and the others."""
    method = EXPORTERS.get(format)
    if method is None:
        return [(name, recipes.written(options[name])) for name in sorted(options)], []
    chosen, other = [], []
    for name, info in method.load_options().model_fields.items():
        if name not in options:
            continue
        line = (info.title or name.replace("_", " "), recipes.written(options[name]))
        is_default = options[name] == info.get_default(call_default_factory=True)
        (other if is_default else chosen).append(line)
    return chosen, other


def _json(row: dict[str, Any]) -> str:
    """A row as it is written, cut short."""
    shown = row.get("row", {name: value for name, value in row.items() if name != "split"})
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2, default=str).decode()


def _preview(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first ``PREVIEW_ROWS`` of every file."""
    seen: Counter[str] = Counter()
    shown, last = [], ""
    for row in rows:
        is_known = "judgment_id" in row and "responses" in row
        words = tuple(row.get(name) for name in ("prompt", "chosen", "rejected"))
        if not is_known and repr(words) == last:
            continue  # another row of the same pair, or of the same prompt's list
        last = repr(words)
        seen[row["split"]] += 1
        if seen[row["split"]] <= PREVIEW_ROWS and (is_known or "chosen" in row):
            shown.append(_preview_row(row))
    return shown


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
