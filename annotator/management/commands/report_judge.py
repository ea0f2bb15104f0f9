"""Set a judge beside people: agreement, position, length, calibration, cost.

With --wait the command ends when the report is there and gives its figures: a worker that answers
makes it, else this process does. Without it the run is only queued.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotator import formats
from annotator.jobs import base
from annotator.jobs.reports import report
from annotator.management import waiting
from annotator.management.commands.run_judge import find_judge
from annotator.management.finding import find_project
from annotator.models import JudgeReport
from annotator.services import judge_report


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--judge", required=True, help="NAME, or NAME@vN for a version")
        parser.add_argument("--wait", action="store_true", help="end when the report is there")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, judge: str, wait: bool, **options: Any) -> None:
        project = find_project(slug)
        found = find_judge(project, judge)
        run, is_new = judge_report.start(judge=found, by=None)
        if not wait:
            if is_new:
                base.send(run)
            self._say({"run": run.pk, "state": run.state}, f"Run {run.pk} is queued.", options)
            return
        run = waiting.see_through(
            run, work=lambda run_id: report(run_id=run_id), say=self.stderr.write
        )
        waiting.require_done(run)
        figures = JudgeReport.objects.get(run=run).figures
        self._say({"run": run.pk, "report": figures}, in_words(figures), options)

    def _say(self, result: dict[str, Any], text: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(result) if options["json"] else text)


def in_words(figures: dict[str, Any]) -> str:
    """The report in a few lines: every number with its interval and count."""
    agreement, position, calibration = (
        figures[name] for name in ("agreement", "position", "calibration")
    )
    lines = [f"{figures['about']['title']}: {figures['counts']['judgments']:,} judgments"]
    if agreement is None:
        lines.append(figures["missing"]["agreement"])
    else:
        exact = agreement["exact"]
        lines.append(_line("agrees with people", exact["judge"], "pairs"))
        if exact["ceiling"]:
            lines.append(_line("one person with another", exact["ceiling"], "votes"))
    if position is not None:
        lines.append(_line("same answer in both orders", position["same"], "pairs"))
    if calibration is not None:
        lines.append(_line("calibration error", calibration["ece"], "pairs"))
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any], of: str) -> str:
    if found["value"] is None:
        return f"{name}: unknown"
    spread = ""
    if found["low"] is not None:
        spread = f" {formats.interval(found['low'], found['high'], digits=1, scale=100)}"
    return f"{name}: {found['value']:.1%}{spread}, {found['n']:,} {of}"
