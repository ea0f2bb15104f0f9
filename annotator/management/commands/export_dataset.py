"""Export a project's preferences as a dataset that a trainer loads.

What becomes a row is said by --recipe, by --option, or by both: an option overrides the recipe's.
With --out (or --wait) the command ends when the dataset is there: a worker that answers builds
it, else this process does. Without either it is only queued.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.exporters import EXPORTERS
from annotator.exporters.manifest import MANIFEST
from annotator.jobs import base
from annotator.jobs.exports import export
from annotator.management import options as given
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.models import DatasetVersion, Project, RecipeVersion, Run
from annotator.services import deliveries, exports, recipe_files, recipes

DEFAULT: Final = "trl-preference"  # the format where neither it nor a recipe is named


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--format",
            default="",
            help=f"one of {', '.join(EXPORTERS)}; else the recipe's, else {DEFAULT}",
        )
        parser.add_argument(
            "--recipe",
            default="",
            metavar="FILE|NAME",
            help="a file (JSON or TOML), or a recipe of the project as NAME or NAME:vN;"
            " --format and --option override it",
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
            run = self._start(slug, format, options["recipe"], options["option"])
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

    def _start(self, slug: str, format: str, recipe: str, pairs: list[str]) -> Run:
        project = find_project(slug)
        told, version = _recipe(project, recipe)
        format = format or told.format
        if format not in EXPORTERS:
            raise CommandError(f"There is no format {format!r}. Known: {', '.join(EXPORTERS)}.")
        values = given.parse_options(pairs, EXPORTERS[format].load_options())
        # Options of one format mean nothing to another.
        known = told.options if format == told.format else {}
        return exports.start(
            project=project, format=format, options=known | values, by=None, recipe=version
        )

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
            "health": version.manifest["health"],
            "checked": version.manifest.get("checked", []),
            "recipe": _name_of(version),
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


def _recipe(project: Project, given: str) -> tuple[recipe_files.Told, RecipeVersion | None]:
    """Format and options to begin with, and the saved version that they are of."""
    if not given:
        return recipe_files.Told(DEFAULT, {}), None
    if recipe_files.is_file(given):
        return recipe_files.load(Path(given)), None
    version = recipes.named(project, given)
    return recipe_files.Told(version.format, version.options), version


def _name_of(version: DatasetVersion) -> str | None:
    """The recipe that was built as it was saved; None where something else was asked for."""
    return recipes.reference_of(version.recipe_version) if version.recipe_version else None


def _work(run_id: int) -> None:
    export(run_id=run_id)
