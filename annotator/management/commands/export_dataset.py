"""Export a project's preferences as a dataset that a trainer loads.

With --out (or --wait) the command ends when the dataset is there: a worker that answers builds
it, else this process does. Without either it is only queued.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.exporters import EXPORTERS
from annotator.exporters.manifest import MANIFEST
from annotator.jobs import base
from annotator.jobs.exports import export
from annotator.management import options as given
from annotator.management import waiting
from annotator.models import DatasetVersion, Project, Run
from annotator.services import deliveries, exports


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--format", default="trl-preference", help=f"one of {', '.join(EXPORTERS)}"
        )
        given.add_option_argument(parser)
        parser.add_argument("--out", type=Path, metavar="DIR", help="where copies are put")
        parser.add_argument("--wait", action="store_true", help="end when the dataset is built")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(
        self, *, slug: str, format: str, out: Path | None, wait: bool, **options: Any
    ) -> None:
        if out is not None and out.exists() and not out.is_dir():
            raise CommandError(f"{out} is not a folder.")
        try:
            run = self._start(slug, format, options["option"])
            if not wait and out is None:
                base.send(run)
                self._say({"run": run.pk, "state": run.state}, f"Run {run.pk} is queued.", options)
                return
            run = waiting.see_through(run, work=_work, say=self.stderr.write)
            waiting.require_done(run)
            self._show(run, out, options)
        except AppError as error:
            raise waiting.as_command_error(error) from error
        except OSError as error:
            raise CommandError(f"{error.filename or out}: {error.strerror}") from error

    def _start(self, slug: str, format: str, pairs: list[str]) -> Run:
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            raise CommandError(f"There is no project {slug!r}.")
        if format not in EXPORTERS:
            raise CommandError(f"There is no format {format!r}. Known: {', '.join(EXPORTERS)}.")
        values = given.parse_options(pairs, EXPORTERS[format].load_options())
        return exports.start(project=project, format=format, options=values, by=None)

    def _show(self, run: Run, out: Path | None, options: dict[str, Any]) -> None:
        version = DatasetVersion.objects.select_related("project").get(run=run)
        folder = out.resolve() if out else deliveries.folder_of(version)
        if out:
            deliveries.deliver(version, out)
        counts = version.manifest["counts"]
        result = {
            "version": version.number,
            "rows": version.rows,
            "files": [entry | {"path": str(folder / entry["name"])} for entry in version.files],
            "manifest": str(folder / MANIFEST),
            "pairs": counts["in"],
            "dropped": counts["dropped"],
            "checksum": version.checksum,
            "run": run.pk,
        }
        dropped = ", ".join(f"{count:,} {key}" for key, count in counts["dropped"].items())
        self._say(
            result,
            f"{version}: {counts['in']:,} pairs in, {version.rows:,} rows out"
            f" (dropped: {dropped or 'none'}), in {folder}",
            options,
        )

    def _say(self, result: dict[str, Any], line: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(result) if options["json"] else line)


def _work(run_id: int) -> None:
    export(run_id=run_id)
