"""Trainings side by side: what they came to, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from annotator.models import Project, RewardModel, Run
from annotator.queries import option_titles
from annotator.queries.curves import Curves, curves
from annotator.queries.rewards import Measured, describe, measured
from annotator.queries.runs import Line, line
from models.training import ALONE

MOST: Final = 4
OFFERED: Final = 50
DATA: Final = {
    "train_pairs": "Pairs trained on", "test_pairs": "Pairs tested on", "data_sha256": "Data, SHA-256",
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One training. ``name`` is its model's, or its run's where it made none."""

    run: Run
    line: Line
    name: str
    what: str
    number: int | None  # of its model
    curves: Curves
    measured: Measured


@dataclass(frozen=True)
class Difference:
    """An option that is not the same in all; ``values`` in the order of the trainings."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A training that can be put beside others."""

    run_id: int
    text: str


def find(project: Project, ids: Sequence[int]) -> list[Compared]:
    """The trainings of these runs, in the order given; ids that are none are left out."""
    wanted = list(dict.fromkeys(ids))[:MOST]
    rows = Run.objects.filter(project=project, kind=Run.Kind.TRAIN, pk__in=wanted)
    found = {run.pk: run for run in rows.select_related("project", "created_by").defer("log")}
    models = {
        model.run_id: model for model in RewardModel.objects.filter(run__in=list(found.values()))
    }
    return [_compared(found[pk], models.get(pk)) for pk in wanted if pk in found]


def _compared(run: Run, model: RewardModel | None) -> Compared:
    return Compared(
        run=run,
        line=line(run),
        name=model.name if model else f"run {run.pk}",
        what=describe(
            str(run.config.get("objective")),
            str(run.config.get("backbone")),
            members=int(run.config.get("members") or 1),
        ),
        number=model.number if model else None,
        curves=curves(run),
        measured=measured(model.metrics if model else run.result),
    )


def choices(project: Project) -> list[Choice]:
    """The newest trainings that have curves or a model, or will."""
    rows = Run.objects.filter(project=project, kind=Run.Kind.TRAIN).order_by("-pk")
    recent = list(rows.only("pk", "title", "state")[:OFFERED])
    names = dict(RewardModel.objects.filter(run__in=recent).values_list("run_id", "number"))
    return [
        Choice(run.pk, f"rm-{names[run.pk]}, {run.title}" if run.pk in names
               else f"run {run.pk} ({run.state}), {run.title}")
        for run in recent
    ]  # fmt: skip


def differences(compared: Sequence[Compared]) -> list[Difference]:
    """Options, and what was trained on, that are not the same in all."""
    tables = [_settings(one) for one in compared]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [
        Difference(name, tuple(table.get(name, "not an option") for table in tables))
        for name in names
    ]
    return [row for row in rows if len(set(row.values)) > 1]


def _settings(one: Compared) -> dict[str, str]:
    config = one.run.config
    titles = option_titles.titles(config)
    found = {
        titles[name]: option_titles.shown(name, config.get(name)) or config.get(name)
        for name in ("objective", "backbone")
    }
    options: Mapping[str, Any] = config.get("options") or {}
    general = ALONE | {  # what is not written down where nobody chose it
        name: value for name, value in config.items()
        if name not in ("objective", "backbone", "options")
    }  # fmt: skip
    places = {name: place for place, name in enumerate(titles)}
    given = {**general, **options}
    for name in sorted(given, key=lambda name: (places.get(name, len(places)), name)):
        found[titles.get(name) or name.replace("_", " ").capitalize()] = given[name]
    shown = {name: _text(value) for name, value in found.items()}
    metrics = one.run.result | _metrics(one)
    return shown | {
        label: _text(metrics[name]) for name, label in DATA.items() if metrics.get(name) is not None
    }


def _metrics(one: Compared) -> dict[str, Any]:
    if one.number is None:
        return {}
    found = RewardModel.objects.filter(run=one.run).values_list("metrics", flat=True).first()
    return found or {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "none"
    if isinstance(value, int | float):
        return f"{value:,.6g}"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
