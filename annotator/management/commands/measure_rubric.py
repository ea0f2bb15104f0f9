"""Measure a version of a rubric on prompts that took no part in finding it."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.jobs import base
from annotator.jobs.induction import measure
from annotator.management import waiting
from annotator.management.commands.induce_rubric import beside
from annotator.management.commands.run_judge import find_judge
from annotator.management.finding import find_project
from annotator.models import Project, RubricVersion
from annotator.queries import rubrics as queries
from annotator.services import rubric_measure
from rubrics.llm.budget import Budget


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("name", metavar="NAME[:vN]", help="its newest version if not said")
        parser.add_argument(
            "--judge", metavar="NAME[@vN]", help="who is asked; the version's own if not given"
        )
        parser.add_argument("--held", type=int, help="score at most so many held-out pairs")
        parser.add_argument("--learned", type=int, help="fit weights on at most so many others")
        parser.add_argument(
            "--judged", type=int, default=rubric_measure.JUDGED, help="held-out pairs for judges"
        )
        parser.add_argument("--calls", type=int, help="budget: make at most so many paid calls")
        parser.add_argument("--tokens", type=int, help="budget: tokens sent and received")
        parser.add_argument("--money", type=float, help="budget, in the unit of the prices")
        parser.add_argument("--wait", action="store_true", help="end when it is measured")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, name: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        judge = find_judge(project, options["judge"]) if options["judge"] else None
        try:
            run = rubric_measure.start(
                version=find_version(project, name),
                verify_with=judge,
                held=options["held"],
                learned=options["learned"],
                judged=options["judged"],
                budget=Budget(**{key: options[key] for key in ("calls", "tokens", "money")}),
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
        result = run.result
        lines = [f"Run {run.pk}: {result['rubric']} v{result['version']}"]
        self._say(result, "\n".join(lines + beside(result)), options)

    def _say(self, result: dict[str, Any], text: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(result) if options["json"] else text)


def find_version(project: Project, name: str) -> RubricVersion:
    """As queries.rubrics.named reads it. Raises CommandError."""
    found = queries.named(project, name)
    if found is None:
        raise CommandError(f"There is no rubric {name!r} in {project.slug!r}.")
    return found


def _work(run_id: int) -> None:
    measure(run_id=run_id)
