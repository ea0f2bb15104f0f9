"""Have an AI judge judge a project's tasks.

With --wait the command ends when they are judged: a worker that answers does it, else this
process. Without it the run is only queued. What the judge has judged before is left out.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.judging import judge as judge_job
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.models import Judge, Project
from annotator.queries import judging as queries
from annotator.services import judging
from rubrics.llm.budget import Budget


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--judge", required=True, metavar="NAME[@vN]", help="the newest version unless named"
        )
        parser.add_argument(
            "--tasks",
            default=queries.ALL,
            help="all, unlabeled or labeled (by people), or NAME=VALUE with commas, names: "
            + ", ".join(queries.FIELDS),
        )
        parser.add_argument("--limit", type=int, help="judge at most so many tasks")
        parser.add_argument("--calls", type=int, help="budget: make at most so many paid calls")
        parser.add_argument("--tokens", type=int, help="budget: tokens sent and received")
        parser.add_argument("--money", type=float, help="budget, in the unit of the prices")
        parser.add_argument(
            "--retry", choices=[judging.FAILED], default="", help="take what it failed on before"
        )
        parser.add_argument("--wait", action="store_true", help="end when the tasks are judged")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        try:
            run = judging.start(
                project=project,
                judge=find_judge(project, options["judge"]),
                by=None,
                tasks=options["tasks"],
                limit=options["limit"],
                budget=Budget(**{name: options[name] for name in ("calls", "tokens", "money")}),
                retry=options["retry"],
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


def find_judge(project: Project, name: str) -> Judge:
    found = queries.find_judge(project, name)
    if found is None:
        names = Judge.objects.filter(project=project).order_by("name").values_list("name")
        known = ", ".join(sorted({one for (one,) in names[:100]})) or "none"
        raise CommandError(f"There is no judge {name!r}. Known: {known}.")
    return found


def in_words(result: dict[str, Any]) -> str:
    """A result in a few lines."""
    lines = [
        f"Run {result['run']}: {result['judged']:,} judged, {result['failed']:,} failed.",
        f"  {result['calls']:,} calls paid, {result['cached']:,} from the cache",
        f"  {result['tokens']:,} tokens, cost {result['cost']:.6g}",
    ]
    if result["stopped"]:
        lines.append(f"  Stopped early: {result['stopped']}.")
    for error, count in result["failures"].items():
        lines.append(f"  {count:,} failed: {queries.reason(error)}")
    return "\n".join(lines)


def _work(run_id: int) -> None:
    judge_job(run_id=run_id)
