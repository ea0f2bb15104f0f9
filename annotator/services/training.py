"""Training a reward model: checked and queued by ``start``, done by ``perform`` in a worker.

The work itself happens in a child process (models.training). Here its data is collected once,
its events become progress, curves and log lines, and what it made becomes a RewardModel.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from pydantic import ValidationError

from annotator.errors import AppError, Invalid, MethodFailed
from annotator.models import AuditEvent, Project, RewardModel, Run, User
from annotator.queries.rewards import describe
from annotator.services import backbones, devices, runs
from annotator.services.training_data import collect, require_enough_in, require_kind_in
from annotator.services.training_events import Reporter
from models.errors import ModelsError
from models.launching import launch_of
from models.training import TrainingConfig, TrainingResult, explain, supervise
from models.workdir import ARTIFACT, CHECKPOINTS, EMBEDDINGS, PICTURES

STAGES: Final = (
    ("collect", "Collect"),
    ("load", "Load"),
    ("tokenize", "Tokenize"),
    ("train", "Train"),
    ("evaluate", "Evaluate"),
    ("save", "Save"),
)
# Settings of a training that belong to no method.
GENERAL: Final = tuple(
    name for name in TrainingConfig.model_fields if name not in ("objective", "backbone", "options")
)
USERS_FAULT: Final = frozenset({"bad-data", "bad-options"})


def configure(
    *, objective: str, backbone: str, options: dict[str, Any], by_operator: bool = False
) -> TrainingConfig:
    """A checked configuration with every option filled in.

    ``options`` are those of the objective, of the backbone and of ``GENERAL``, flat; values may
    be text. Raises Invalid.
    """
    general = {name: value for name, value in options.items() if name in GENERAL}
    try:
        return TrainingConfig(
            objective=objective,
            backbone=backbones.allowed(backbone, by_operator=by_operator),
            options={name: value for name, value in options.items() if name not in GENERAL},
            **general,
        )
    except ModelsError as error:
        raise Invalid(error.message, advice=error.advice) from None
    except ValidationError as error:
        raise Invalid(explain(error)) from None


def start(
    *,
    project: Project,
    objective: str,
    backbone: str,
    options: dict[str, Any],
    by: User | None,
    by_operator: bool = False,
) -> Run:
    """A queued training run; the caller enqueues its job. Raises Invalid."""
    config = configure(
        objective=objective, backbone=backbone, options=options, by_operator=by_operator
    )
    if config.prior_scale and config.members == 1:
        raise Invalid(
            "A random prior tells members apart, and there is one.",
            advice="Train two members or more, or leave the prior at 0.",
        )
    backbones.require_fit(project, config.backbone)
    require_enough_in(project)
    require_kind_in(project, config.objective)
    return runs.start(
        project=project,
        kind=Run.Kind.TRAIN,
        title=f"Train {describe(config.objective, config.backbone, members=config.members)}",
        config=config.model_dump(mode="json"),
        by=by,
    )


def perform(work: runs.Work) -> dict[str, Any]:
    """Collect, train, record. Safe to be killed at any point and run again."""
    run = work.run
    known = {stage["key"]: stage for stage in run.stages}
    run.stages = [known.get(key, _stage(key, label)) for key, label in STAGES]
    config = stored_config(run)
    collected = collect(work, config)
    launch = launch_of(config, devices=len(devices.names()))
    count = launch.processes if launch else 1
    if config.devices > count:
        work.log(f"{config.devices} devices were asked for; it goes on with {count}")
    with _devices(work, count) as descriptors:
        result = supervise(
            run.folder,
            on_event=Reporter(work, labels=dict(STAGES)),
            should_stop=work.should_stop,
            environ={EMBEDDINGS: str(embeddings_folder())} | devices.shown(count),
            pass_fds=descriptors,
            launch=launch,
        )
    metrics = _metrics_or_raise(work, result)
    metrics["baselines"]["human_ceiling"] = collected["human_ceiling"]
    return record(work, config=config, metrics=metrics)


def stored_config(run: Run) -> TrainingConfig:
    """A run's configuration, checked when it was started. Raises Invalid for a retired method."""
    try:
        return TrainingConfig(**run.config)
    except ModelsError as error:
        raise Invalid(error.message, advice=error.advice) from None
    except ValidationError as error:
        raise Invalid(explain(error)) from None


def record(work: runs.Work, *, config: TrainingConfig, metrics: dict[str, Any]) -> dict[str, Any]:
    """Make the RewardModel of a finished training, once, and return the run's result."""
    run = work.run
    with transaction.atomic():
        work.flush()  # raises LostRun; else the run's row is ours until the end of this
        model = RewardModel.objects.filter(run=run).first()
        if model is None:
            model = _create(run, config=config, metrics=metrics)
    # A finished training never goes back to its checkpoints, which are several times the model.
    shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(run.folder / PICTURES, ignore_errors=True)
    return {
        "run": run.pk,
        "reward_model": model.number,
        "accuracy": metrics["accuracy"],
        "interval": metrics["interval"],
        "test_pairs": metrics["test_pairs"],
        "baselines": metrics["baselines"],
        "artifact": str(artifact_folder(model)),
    }


def artifact_folder(model: RewardModel) -> Path:
    """Where the files of a reward model are."""
    return Path(settings.WORK_ROOT) / model.artifact


def embeddings_folder() -> Path:
    """Where embeddings are kept for all runs of this server."""
    return Path(settings.WORK_ROOT) / "embeddings"


def _stage(key: str, label: str) -> dict[str, Any]:
    return {"key": key, "label": label, "state": "", "seconds": None}


def _devices(work: runs.Work, count: int) -> AbstractContextManager[list[int]]:
    def wait(other: str) -> None:
        work.check()
        work.say("waits for the device" + (f": {other} holds it" if other else ""))

    return devices.hold(holder=f"run {work.run.pk}", on_wait=wait, count=count)


def _metrics_or_raise(work: runs.Work, result: TrainingResult) -> dict[str, Any]:
    if result.outcome == "done" and result.metrics is not None:
        return result.metrics
    if result.outcome == "stopped":
        if work.should_stop():
            work.log(f"stopped; the last checkpoint is kept. {result.reason}".strip())
            raise runs.Stopped
        raise MethodFailed(
            "The training process was told to stop by someone outside.",
            advice="Its last checkpoint is kept: resume the run.",
        )
    kind: type[AppError] = Invalid if result.kind in USERS_FAULT else MethodFailed
    raise kind(result.reason, advice=result.advice)


def _create(run: Run, *, config: TrainingConfig, metrics: dict[str, Any]) -> RewardModel:
    # The project's row is the lock of its numbers.
    Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
    last = RewardModel.objects.filter(project_id=run.project_id).order_by("-number").first()
    number = last.number + 1 if last else 1
    AuditEvent.objects.create(
        project_id=run.project_id,
        actor=run.created_by,
        verb="reward_model.create",
        subject=f"reward model {number}",
    )
    return RewardModel.objects.create(
        project_id=run.project_id,
        run=run,
        number=number,
        objective=config.objective,
        backbone=config.backbone,
        options=config.options,
        metrics=metrics,
        artifact=str((run.folder / ARTIFACT).relative_to(settings.WORK_ROOT)),
    )
