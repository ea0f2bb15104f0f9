"""Score a project's responses by a reward model: what exports with rewards read.

With --wait, or --json, the command ends when they are scored: a worker that answers does it, else
this process. Without it the run is only queued. What is scored already is not scored again.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.scoring import score
from annotator.management import waiting
from annotator.management.finding import find_project, find_reward_model
from annotator.models import Split
from annotator.queries import reward_scores as queries
from annotator.services import reward_scores
from models.transforms import COMBINATIONS


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("number", type=int, help="of the reward model: 3 is rm-3")
        parser.add_argument("--only", choices=list(queries.ONLY), default=queries.ALL)
        parser.add_argument("--split", action="append", choices=Split.values, default=[])
        parser.add_argument("--sample", type=int, help="at most about so many, by whole prompts")
        parser.add_argument(
            "--combine",
            choices=list(COMBINATIONS),
            default="",
            help="of an ensemble's members; another way than before deletes the old scores",
        )
        parser.add_argument("--penalty", type=float, help="of a penalized score, on the variance")
        parser.add_argument("--wait", action="store_true", help="end when they are scored")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, number: int, **options: Any) -> None:
        project = find_project(slug)
        model = find_reward_model(project, number)
        try:
            run = reward_scores.start(
                reward_model=model,
                by=None,
                only=options["only"],
                splits=options["split"],
                sample=options["sample"],
                combine=options["combine"],
                penalty=options["penalty"],
            )
        except AppError as error:
            raise waiting.as_command_error(error) from error
        if not (options["wait"] or options["json"]):
            base.send(run)
            self.stdout.write(f"Run {run.pk} is queued.")
            return
        run = waiting.see_through(run, work=_work, say=self.stderr.write)
        waiting.require_done(run)
        result = {"run": run.pk, "reward_model": model.number, **run.result}
        self.stdout.write(json.dumps(result) if options["json"] else in_words(result))


def in_words(result: dict[str, Any]) -> str:
    """A result in two lines."""
    lines = [
        (
            f"Run {result['run']}: {result['scored']:,} of {result['responses']:,} answers scored by"
            f" rm-{result['reward_model']}"
        )
    ]
    if found := result["summary"]:
        lines.append(
            f"  mean {found['mean']:.4g}, spread within prompts {found['spread']:.4g},"
            f" from {found['low']:.4g} to {found['high']:.4g}"
        )
    return "\n".join(lines)


def _work(run_id: int) -> None:
    score(run_id=run_id)
