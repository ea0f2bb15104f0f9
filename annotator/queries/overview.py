"""Everything the overview of a project says, in a fixed number of statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from annotator.models import DatasetVersion, Membership, Project, RewardModel, Run
from annotator.queries import curves, figures, rubrics, runs, steps
from annotator.queries.figures import Figures
from annotator.queries.training import readiness

MODELS: Final = 3
RUBRICS: Final = 3
VERSIONS: Final = 3


@dataclass(frozen=True)
class Model:
    """A reward model with its accuracy on the test split; None where nothing was measured."""

    number: int
    name: str
    accuracy: float | None
    interval: tuple[float, float] | None
    test_pairs: int


@dataclass(frozen=True)
class Baseline:
    key: str
    label: str
    accuracy: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Overview:
    project: Project
    figures: Figures
    facts: steps.Facts
    people: int
    collect: steps.Step | None
    explain: steps.Step | None
    learn: steps.Step | None
    export: steps.Step | None
    best: steps.Step | None
    models: list[Model]
    rubrics: list[rubrics.Row]
    baselines: list[Baseline]
    training: Run | None
    curves: curves.Curves | None
    versions: list[DatasetVersion]
    runs: list[runs.Line]
    half_width: float | None = None  # of a first model's test accuracy, foretold

    @property
    def ceiling(self) -> Baseline | None:
        """How often people agree with people on the test split of the latest model."""
        return next((one for one in self.baselines if one.key == "human_ceiling"), None)

    @property
    def collect_now(self) -> str:
        if not self.figures.tasks:
            return "There is nothing to judge yet."
        if self.figures.is_complete:
            return "Every task has the judgments it needs."
        counts = [count for _, count in self.figures.daily]
        week, before = sum(counts[-7:]), sum(counts[-14:-7])
        if not week and not before:
            return "Nobody has judged in the last two weeks."
        return f"{week:,} judgments in the last seven days, {before:,} in the seven before."

    @property
    def explain_now(self) -> str:
        if self.facts.rubric_run:
            return f"Run {self.facts.rubric_run} is inducing a rubric."
        if self.rubrics:
            used = sum(one.in_use is not None for one in self.rubrics)
            work = sum(one.draft is not None for one in self.rubrics)
            return f"{used:,} in use, {work:,} in work."
        said = f"{self.figures.reasoned:,} of the {self.figures.recent:,}"
        if self.figures.recent:
            return f"No rubric yet. {said} votes of the last four weeks say why."
        return "No rubric yet."

    @property
    def learn_now(self) -> str:
        if self.training is not None:
            return f"{self.training.title}: {runs.how_far(self.training) or self.training.state}."
        decided, least = self.figures.decided, steps.ENOUGH_TO_TRAIN
        if self.model is not None and self.model.accuracy is not None:
            return f"{self.model.name} was measured on {self.model.test_pairs:,} pairs that it never saw."
        if self.model is not None:
            return f"{self.model.name} was trained, but there was nothing to measure it on."
        if decided < least:
            return (
                f"A first model needs about {least} votes for one answer or the other; "
                f"there {'is' if decided == 1 else 'are'} {decided:,}."
            )
        wide = (
            f", ± {100 * self.half_width:.0f} points on the test split" if self.half_width else ""
        )
        return f"{decided:,} votes are enough for a first estimate{wide}."

    @property
    def export_now(self) -> str:
        if self.version is None:
            return (
                "Nothing was exported yet." if self.figures.decided else "There are no votes yet."
            )
        if not self.facts.new_votes:
            return f"Nothing was judged since version {self.version.number}."
        return self.facts.behind

    @property
    def model(self) -> Model | None:
        return self.models[0] if self.models else None

    @property
    def version(self) -> DatasetVersion | None:
        return self.versions[0] if self.versions else None


def overview(project: Project, *, is_owner: bool) -> Overview:
    counted = figures.figures([project.pk])[project.pk]
    known = steps.facts([project.pk])[project.pk]
    training = None
    if known.training_run:
        training = Run.objects.defer("log").filter(pk=known.training_run).first()
    models = list(RewardModel.objects.filter(project=project).only("number", "metrics")[:MODELS])
    best = None
    if is_owner and project.archived_at is None:
        best = steps.best(project.slug, counted, known)
    collect, explain, learn, export = (
        make(project.slug, counted, known)
        for make in (steps.collect, steps.explain, steps.learn, steps.export)
    )
    half_width = None
    # Worth counting only where the estimate would be wide.
    if not models and steps.ENOUGH_TO_TRAIN <= counted.decided <= figures.FULL_EDGES:
        half_width = readiness(project).half_width
    return Overview(
        project=project,
        figures=counted,
        facts=known,
        people=Membership.objects.filter(project=project).count(),
        collect=collect,
        explain=explain,
        learn=learn,
        export=export,
        best=best,
        models=[_model(one) for one in models],
        rubrics=rubrics.listing(project, size=RUBRICS).rows,
        baselines=_baselines(models[0].metrics) if models else [],
        training=training,
        curves=curves.curves(training) if training else None,
        versions=list(DatasetVersion.objects.filter(project=project)[:VERSIONS]),
        runs=runs.recent(project),
        half_width=half_width,
    )


def _model(row: RewardModel) -> Model:
    interval = row.metrics.get("interval")
    return Model(
        number=row.number,
        name=row.name,
        accuracy=row.metrics.get("accuracy"),
        interval=tuple(interval) if interval else None,
        test_pairs=row.metrics.get("test_pairs") or 0,
    )


NAMES: Final = {"longer_wins": "longer wins", "human_ceiling": "people"}


def _baselines(metrics: dict[str, Any]) -> list[Baseline]:
    """What the latest model stands beside, as its trainer measured it on the same split."""
    found = []
    for key, values in (metrics.get("baselines") or {}).items():
        if isinstance(values, dict) and values.get("accuracy") is not None:
            interval = values.get("interval") or (values["accuracy"],) * 2
            found.append(
                Baseline(
                    key,
                    NAMES.get(key, key.replace("_", " ")),
                    values["accuracy"],
                    tuple(interval),
                    values.get("n", 0),
                )
            )
    return found
