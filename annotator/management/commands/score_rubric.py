"""Score a project's responses by a version of a rubric: one reward each.

With --wait the command ends when they are scored: a worker that answers does it, else this
process. Without it the run is only queued. What is scored already, or was asked before, is not
paid for again.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotator.errors import AppError
from annotator.exporters.reward_columns import find_version
from annotator.jobs import base
from annotator.jobs.scoring import score
from annotator.management import waiting
from annotator.management.commands.run_judge import find_judge
from annotator.management.finding import find_project
from annotator.models import Split
from annotator.queries import reward_scores as queries
from annotator.services import reward_scores
from rubrics.llm.budget import Budget
from rubrics.rewards import WORTH


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("rubric", metavar="NAME[:vN]", help="an approved version")
        parser.add_argument(
            "--form",
            choices=list(reward_scores.FORMS),
            default="",
            help="weighted where criteria have weights, unless named",
        )
        parser.add_argument(
            "--not-applicable",
            choices=list(WORTH),
            default="",
            help="what n/a counts as in a share; satisfied if not given",
        )
        parser.add_argument(
            "--judge", metavar="NAME[@vN]", help="whose model verifies; the version's if not given"
        )
        parser.add_argument("--only", choices=list(queries.ONLY), default=queries.ALL)
        parser.add_argument("--split", action="append", choices=Split.values, default=[])
        parser.add_argument("--sample", type=int, help="at most about so many, by whole prompts")
        parser.add_argument("--calls", type=int, help="budget: make at most so many paid calls")
        parser.add_argument("--tokens", type=int, help="budget: tokens sent and received")
        parser.add_argument("--money", type=float, help="budget, in the unit of the prices")
        parser.add_argument("--wait", action="store_true", help="end when they are scored")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, rubric: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        try:
            run = reward_scores.start(
                version=find_version(project, rubric),
                by=None,
                form=options["form"],
                not_applicable=options["not_applicable"],
                judge=find_judge(project, options["judge"]) if options["judge"] else None,
                only=options["only"],
                splits=options["split"],
                sample=options["sample"],
                budget=Budget(**{name: options[name] for name in ("calls", "tokens", "money")}),
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


def in_words(result: dict[str, Any]) -> str:
    """A result in a few lines."""
    lines = [
        (
            f"Run {result['run']}: {result['scored']:,} of {result['responses']:,} answers scored by"
            f" {result['rubric']}, {result['form']}"
        )
    ]
    if found := result["summary"]:
        lines.append(
            f"  mean {found['mean']:.4g}, spread within prompts {found['spread']:.4g},"
            f" from {found['low']:.4g} to {found['high']:.4g}"
        )
    lines += [
        f"  {count:,} without a verdict of {who}" for who, count in result["incomplete"].items()
    ]
    if result["stopped"]:
        lines.append(f"  stopped: the {result['stopped']} is spent; what is scored is kept")
    lines.append(f"  {result['calls']:,} calls paid, {result['tokens']:,} tokens")
    return "\n".join(lines)


def _work(run_id: int) -> None:
    score(run_id=run_id)
