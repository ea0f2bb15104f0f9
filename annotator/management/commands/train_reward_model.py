"""Train a reward model on a project's preferences.

With --wait the command ends when the model is trained: a worker that answers trains it, else this
process does. Without it the run is only queued.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import BaseModel, create_model

from annotator import formats
from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.training import train
from annotator.management import options as given
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.services import training
from models.backbones import BACKBONES, TAKES_ARGUMENT, split_backbone
from models.errors import ModelsError
from models.objectives import OBJECTIVES
from models.training import TrainingConfig
from rubrics.registry import UnknownMethod, find


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--objective", default="bradley-terry", help=f"one of {', '.join(OBJECTIVES)}"
        )
        parser.add_argument(
            "--backbone", default="hashing", help=f"one of {', '.join(map(_form_of, BACKBONES))}"
        )
        given.add_option_argument(parser)
        parser.add_argument("--wait", action="store_true", help="end when the model is trained")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(
        self, *, slug: str, objective: str, backbone: str, wait: bool, **options: Any
    ) -> None:
        project = find_project(slug)
        values = given.parse_options(options["option"], *option_models(objective, backbone))
        try:
            run = training.start(
                project=project,
                objective=objective,
                backbone=backbone,
                options=values,
                by=None,
                by_operator=True,
            )
        except AppError as error:
            raise waiting.as_command_error(error) from error
        if not wait:
            base.send(run)
            self._say({"run": run.pk, "state": run.state}, f"Run {run.pk} is queued.", options)
            return
        run = waiting.see_through(run, work=_work, say=self.stderr.write)
        waiting.require_done(run)
        self._say(run.result, in_words(run.result), options)

    def _say(self, result: dict[str, Any], text: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(result) if options["json"] else text)


def _form_of(key: str) -> str:
    """How a backbone is written."""
    return f"{key}:ID or {key}:PATH" if key in TAKES_ARGUMENT else key


def option_models(objective: str, backbone: str) -> list[type[BaseModel]]:
    """The models that name what ``--option`` takes here: of both methods, and of any training."""
    try:
        methods = find(OBJECTIVES, objective), find(BACKBONES, split_backbone(backbone)[0])
    except (UnknownMethod, ModelsError) as error:
        raise CommandError(str(error)) from None
    fields: dict[str, Any] = {
        name: (TrainingConfig.model_fields[name].annotation, TrainingConfig.model_fields[name])
        for name in training.GENERAL
    }
    return [*(method.load_options() for method in methods), create_model("General", **fields)]


def in_words(result: dict[str, Any]) -> str:
    """A result in a few lines: every number with its interval and count."""
    name = f"rm-{result['reward_model']} of run {result['run']}"
    lines = [f"{name}: accuracy {_estimate(result)} on {result['test_pairs']:,} test pairs"]
    for key, label in (("longer_wins", "longer wins"), ("human_ceiling", "people with people")):
        baseline = result["baselines"][key]
        reason = baseline.get("reason", "not measured")
        shown = reason if baseline["accuracy"] is None else _estimate(baseline)
        lines.append(f"  {label}: {shown}")
    return "\n".join([*lines, f"  {result['artifact']}"])


def _estimate(values: dict[str, Any]) -> str:
    return f"{formats.percent(values['accuracy'])} {formats.interval(*values['interval'])}"


def _work(run_id: int) -> None:
    train(run_id=run_id)
