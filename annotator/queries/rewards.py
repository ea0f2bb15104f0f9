"""Reward models as pages show them: each with its accuracy and what to compare it with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from annotator.models import Project, RewardModel, Run
from annotator.queries import option_titles, runs
from annotator.queries.pages import Page, page_by_id
from models.backbones import BACKBONES, READS_PICTURES
from models.objectives import NO_ONE_SCORE, OBJECTIVES

PAGE_SIZE: Final = 50
ACTIVE_SHOWN: Final = 10


def describe(objective: str, backbone: str, *, members: int = 1) -> str:
    """What a model is, in words: "Bradley–Terry, Transformer distilbert-base-uncased, 4 members"."""
    key, _, argument = backbone.partition(":")
    method, base = OBJECTIVES.get(objective), BACKBONES.get(key)
    name = argument.rstrip("/").rpartition("/")[2] if argument.startswith("/") else argument
    words = f"{base.label if base else key} {name}".strip()
    several = f", {members} members" if members > 1 else ""
    return f"{method.label if method else objective}, {words}{several}"


def described(model: RewardModel) -> str:
    """What a trained model is."""
    return describe(model.objective, model.backbone, members=model.members)


@dataclass(frozen=True)
class Estimate:
    """A share of ``n`` cases with its 95 % interval. ``groups`` are independent, such as prompts."""

    share: float
    low: float
    high: float
    n: int
    groups: int

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def estimate(values: Mapping[str, Any] | None) -> Estimate | None:
    """An Estimate from the metrics of a training; None where nothing was counted."""
    if not values or values.get("accuracy") is None:
        return None
    low, high = values["interval"]
    return Estimate(values["accuracy"], low, high, values["n"], values["groups"])


@dataclass(frozen=True)
class Measured:
    """The accuracy of one model on its test split, and its baselines on the same pairs."""

    accuracy: Estimate | None
    longer: Estimate | None
    people: Estimate | None
    people_reason: str = ""  # why there is no human ceiling
    people_imported: bool = False
    people_simulated: bool = False
    test_ties: int = 0

    @property
    def known(self) -> list[Estimate]:
        return [one for one in (self.accuracy, self.longer, self.people) if one is not None]


def measured(metrics: Mapping[str, Any]) -> Measured:
    """From the metrics of a model or the result of its run, which have the same names."""
    baselines = metrics.get("baselines") or {}
    people = baselines.get("human_ceiling") or {}
    accuracy = {"n": metrics.get("test_pairs", 0), "groups": metrics.get("prompts", 0), **metrics}
    return Measured(
        accuracy=estimate(accuracy),
        longer=estimate(baselines.get("longer_wins")),
        people=estimate(people),
        people_reason=people.get("reason", ""),
        people_imported=bool(people.get("imported")),
        people_simulated=bool(people.get("simulated")),
        test_ties=metrics.get("test_ties", 0),
    )


@dataclass(frozen=True)
class Row:
    """One model in the list."""

    number: int
    name: str
    what: str
    run_id: int
    created_at: datetime
    train_pairs: int
    measured: Measured


@dataclass(frozen=True)
class Listing:
    """A page of models, newest first, and the trainings under way."""

    page: Page[Row]
    active: list[runs.Line]

    @property
    def is_empty(self) -> bool:
        return not self.page.rows and not self.active and self.page.is_first

    @property
    def people(self) -> Estimate | None:
        """The newest human ceiling on the page."""
        found = (row.measured.people for row in self.page.rows)
        return next((one for one in found if one is not None), None)


def listing(project: Project, *, after: int | None = None) -> Listing:
    rows = RewardModel.objects.filter(project=project).order_by("-pk")
    training = Run.objects.filter(project=project, kind=Run.Kind.TRAIN, state__in=runs.ACTIVE)
    active = runs.lines_of(training).order_by("-pk")[:ACTIVE_SHOWN] if after is None else []
    return Listing(
        page=page_by_id(rows, after=after, size=PAGE_SIZE, build=_row),
        active=runs.lines(active),
    )


def _row(model: RewardModel) -> Row:
    return Row(
        number=model.number,
        name=model.name,
        what=described(model),
        run_id=model.run_id,
        created_at=model.created_at,
        train_pairs=model.metrics.get("train_pairs", 0),
        measured=measured(model.metrics),
    )


@dataclass(frozen=True)
class Detail:
    """One model: its figures, how it came about, and how to load it."""

    model: RewardModel
    what: str
    backbone_key: str
    measured: Measured
    options: list[tuple[str, str]]
    account: list[tuple[str, str]]

    @property
    def compares(self) -> bool:
        """Whether it says which of two answers is better rather than how good one is."""
        return self.model.objective in NO_ONE_SCORE

    @property
    def reads_pictures(self) -> bool:
        return self.backbone_key in READS_PICTURES

    @property
    def is_transformer(self) -> bool:
        """Whether plain transformers loads it."""
        return self.backbone_key == "hf"


def find(project: Project, number: int) -> RewardModel | None:
    return (
        RewardModel.objects.filter(project=project, number=number)
        .select_related("run__created_by")
        .defer("run__log", "run__config")
        .first()
    )


def detail(model: RewardModel) -> Detail:
    metrics = model.metrics
    return Detail(
        model=model,
        what=described(model),
        backbone_key=model.backbone.partition(":")[0],
        measured=measured(metrics),
        options=[*_methods(model), *_options(model)],
        account=list(_account(metrics)),
    )


def _methods(model: RewardModel) -> Iterable[tuple[str, str]]:
    for name in ("objective", "backbone"):
        value = getattr(model, name)
        yield name.capitalize(), option_titles.shown(name, value) or value


def _options(model: RewardModel) -> Iterable[tuple[str, str]]:
    """Title and value of every option, named and ordered as in the form that set them."""
    titles = option_titles.titles({"objective": model.objective, "backbone": model.backbone})
    titles |= {name: name for name in model.options if name not in titles}
    return [(titles[name], _shown(model.options[name])) for name in titles if name in model.options]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def _account(metrics: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """How the weights came about, as rows of a ledger."""
    texts = metrics.get("texts") or {}
    kept = metrics.get("kept") or {}
    rows = {
        "Trained on": f"{metrics.get('train_pairs', 0):,} pairs",
        "Validated on": f"{metrics.get('validation_pairs', 0):,} pairs",
        "Updates": f"{metrics.get('steps', 0):,}, {metrics.get('ended', '')}",
        "Weights of": f"update {kept.get('step', 0):,}, {kept.get('why', '')}",
        "Speed": f"{metrics.get('pairs_per_second') or 0:,.0f} pairs a second",
        "Seed": str(metrics.get("seed", "")),
        "Data, SHA-256": metrics.get("data_sha256", ""),
    }
    for note, count in sorted((texts.get("train") or {}).items()):
        if count:
            rows[f"Training texts, {note.replace('_', ' ')}"] = f"{count:,}"
    for name, version in sorted((metrics.get("versions") or {}).items()):
        rows[name.capitalize()] = str(version)
    return rows.items()
