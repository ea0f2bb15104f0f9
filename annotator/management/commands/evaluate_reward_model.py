"""Evaluate a reward model on pairs that people decided, beside what else speaks of them.

With --wait, or --json, the command ends when the figures are there: a worker that answers makes
them, else this process does. Without it the run is only queued.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotator import formats
from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.evaluations import evaluate
from annotator.management import waiting
from annotator.management.finding import find_project, find_reward_model
from annotator.models import Split
from annotator.queries.evaluation_pairs import MOST
from annotator.services import reward_evaluation


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("number", type=int, help="of the reward model: 3 is rm-3")
        parser.add_argument(
            "--split", action="append", choices=Split.values, help="test if not given; repeatable"
        )
        parser.add_argument("--tag", default="", help="only prompts with this tag")
        parser.add_argument("--import-run", type=int, help="only pairs that this import brought")
        parser.add_argument("--most", type=int, default=MOST, help=f"pairs at most; {MOST:,}")
        parser.add_argument(
            "--against", action="append", help="rm-N, judge-ID or rubric-ID; all if not given"
        )
        parser.add_argument(
            "--gold", default=reward_evaluation.PEOPLE, help="of best of n: people, or as --against"
        )
        parser.add_argument("--wait", action="store_true", help="end when it is evaluated")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, number: int, **options: Any) -> None:
        project = find_project(slug)
        model = find_reward_model(project, number)
        try:
            run = reward_evaluation.start(
                reward_model=model,
                by=None,
                splits=options["split"] or [Split.TEST.value],
                tag=options["tag"],
                import_run=options["import_run"],
                most=options["most"],
                against=options["against"],
                gold=options["gold"],
            )
        except AppError as error:
            raise waiting.as_command_error(error) from error
        if not (options["wait"] or options["json"]):
            base.send(run)
            self.stdout.write(f"Run {run.pk} is queued.")
            return
        run = waiting.see_through(run, work=_work, say=self.stderr.write)
        waiting.require_done(run)
        self.stdout.write(json.dumps(run.result) if options["json"] else in_words(run.result))


def in_words(result: dict[str, Any]) -> str:
    """A result in a few lines: every number with its interval and count."""
    found = result["figures"]
    lines = [
        f"Run {result['run']}: rm-{result['reward_model']} on {result['pairs']:,} pairs",
        _line("right", found["accuracy"], "pairs"),
        _line("longer wins", found["longer"], "pairs"),
    ]
    if found["ceiling"]:
        lines.append(_line("people with people", found["ceiling"], "votes"))
    if result["ece"]:
        lines.append(_line("calibration error", result["ece"], "pairs"))
    lines += [
        _line(f"less {one['label']}", one["difference"], "shared pairs") for one in found["rivals"]
    ]
    if found["best_of_n"]:
        lines.append(f"  {found['best_of_n']['message']}")
    return "\n".join([*lines, *(f"  {note}" for note in found["notes"])])


def _line(name: str, one: dict[str, Any], of: str) -> str:
    value = formats.percent(one["value"])
    spread = f" {formats.interval(one['low'], one['high'])}" if one["low"] is not None else ""
    return f"  {name}: {value}{spread}, {one['n']:,} {of}"


def _work(run_id: int) -> None:
    evaluate(run_id=run_id)
