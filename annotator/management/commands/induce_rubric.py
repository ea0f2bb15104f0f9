"""Induce a rubric from a project's preferences: a draft of criteria for people to decide on.

With --wait the command ends when the draft is there: a worker that answers makes it, else this
process. Without it the run is only queued. What was asked before is not paid for again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator import formats
from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.induction import induce
from annotator.management import options as given
from annotator.management import waiting
from annotator.management.commands.run_judge import find_judge
from annotator.management.finding import find_project
from annotator.services import induction
from rubrics.generators import GENERATORS
from rubrics.llm.budget import Budget
from rubrics.registry import UnknownMethod, find


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--method", required=True, help=f"one of {', '.join(GENERATORS)}")
        parser.add_argument(
            "--judge", metavar="NAME[@vN]", help="whose endpoint and model are asked"
        )
        parser.add_argument("--name", default="", help="of the rubric; the method's if not given")
        parser.add_argument(
            "--raters",
            choices=[key for key, _ in induction.raters_offered()],
            default="all",
            help="whose votes are learned from",
        )
        parser.add_argument("--pairs", type=int, help="learn from at most so many preferences")
        parser.add_argument("--calls", type=int, help="budget: make at most so many paid calls")
        parser.add_argument("--tokens", type=int, help="budget: tokens sent and received")
        parser.add_argument("--money", type=float, help="budget, in the unit of the prices")
        given.add_option_argument(parser)
        parser.add_argument("--wait", action="store_true", help="end when the draft is there")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, method: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        try:
            model = find(GENERATORS, method).load_options()
        except UnknownMethod as error:
            raise CommandError(str(error)) from None
        values = given.parse_options(options["option"], model)
        judge = find_judge(project, options["judge"]) if options["judge"] else None
        try:
            run = induction.start(
                project=project,
                method=method,
                options=values,
                judge=judge,
                name=options["name"],
                raters=options["raters"],
                pairs=options["pairs"],
                budget=Budget(**{name: options[name] for name in ("calls", "tokens", "money")}),
                by=None,
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
    """A result in a few lines: the criteria, and how often they are right together."""
    lines = [f"Run {result['run']}: {result['rubric']} v{result['version']}, a draft to decide on"]
    for one in result["criteria"]:
        weight = "     " if one["weight"] is None else f"{one['weight']:+.2f}"
        lines.append(f"  {weight} {one['text']}")
    lines += [f"  {note}" for note in result["notes"]]
    return "\n".join(lines + beside(result))


BESIDE: Final = (
    ("equal_weights", "its criteria, equal weights"),
    ("parent", "the version before"),
    ("judge", "the judge without it"),
    ("judge_with_rubric", "the judge with it"),
    ("reward_model", "reward model"),
    ("longer_wins", "longer wins"),
    ("human_ceiling", "people with people"),
)


def beside(result: dict[str, Any]) -> list[str]:
    """How often it is right, beside what, and what it cost: one line each."""
    found = result["held_out"]
    lines = [f"  right on held-out pairs: {_estimate(found)}"]
    lines += [f"    {label}: {_estimate(found['baselines'][key])}" for key, label in BESIDE]
    for key, label in (("judge", "without"), ("judge_with_rubric", "with")):
        if told := found["baselines"]["position"][key]:
            gap = told["gap"]
            interval = formats.interval(gap["low"], gap["high"])
            lines.append(
                f"    shown first or second, {label} it: {formats.percent(gap['value'])} {interval}"
            )
    lines.append(f"  {result['calls']:,} calls paid, {result['tokens']:,} tokens")
    return lines


def _estimate(found: dict[str, Any]) -> str:
    if found.get("accuracy") is None:
        return str(found.get("reason") or "not measured")
    interval = formats.interval(*found["interval"])
    return f"{formats.percent(found['accuracy'])} {interval} of {found['n']:,}"


def _work(run_id: int) -> None:
    induce(run_id=run_id)
