"""Measure how far a project's judgments can be trusted, and write the consensus of its tasks.

With --wait the command ends when the report is there: a worker that answers makes it, else this
process does. Without it the run is only queued.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotator import formats
from annotator.jobs import base
from annotator.jobs.quality import measure
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.services import quality


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--wait", action="store_true", help="end when the report is there")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        run, is_new = quality.start(project=project, by=None)
        if not wait:
            if is_new:
                base.send(run)
            self._say({"run": run.pk, "state": run.state}, f"Run {run.pk} is queued.", options)
            return
        run = waiting.see_through(
            run, work=lambda run_id: measure(run_id=run_id), say=self.stderr.write
        )
        waiting.require_done(run)
        self._say(run.result, in_words(run.result), options)

    def _say(self, result: dict[str, Any], text: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(result) if options["json"] else text)


def in_words(result: dict[str, Any]) -> str:
    """A result in two lines: every number with its interval and count."""
    alpha = result["alpha"]
    agreement = "Krippendorff's alpha: no task has two votes"
    if alpha and alpha["value"] is not None:
        spread = formats.interval(alpha["low"], alpha["high"], digits=4, scale=1)
        agreement = f"Krippendorff's alpha {alpha['value']:.4f} {spread}, {alpha['units']:,} items"
    return (
        f"Consensus of {result['tasks']:,} tasks from {result['judgments']:,} judgments by "
        f"{result['aggregator']}, {result['seconds']} s\n{agreement}"
    )
