"""Import a file of preference pairs, or prompts with responses, into a project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.importers import IMPORTERS
from annotator.jobs import base
from annotator.management.finding import find_project
from annotator.models import Run, RunState
from annotator.services import imports

SHOWN = ("prompts", "responses", "tasks", "judgments", "skipped_duplicates", "bad_rows")


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("file", help="a path, or hf://org/name[:split]")
        parser.add_argument("--format", default="", help=f"one of {', '.join(IMPORTERS)}")
        parser.add_argument(
            "--map", action="append", default=[], metavar="FIELD=COLUMN", help="repeatable"
        )
        parser.add_argument("--rater", default="", help="who gave labels that name nobody")
        parser.add_argument(
            "--judges",
            default="",
            metavar="NAME,...",
            help="raters, or columns of labels, that are AI judges; * for all",
        )
        parser.add_argument("--labels", default="", help="how labels are written")
        parser.add_argument("--pairs", default="", help="which answers are compared")
        parser.add_argument("--kind", default="", help="kind of task; else that of the labels")
        parser.add_argument(
            "--labels-only", action="store_true", help="keep the labels, ask nobody to judge"
        )
        parser.add_argument(
            "--values", default="", metavar="WORD=N,...", help="what answers in words count"
        )
        parser.add_argument(
            "--stand-ins", action="store_true", help="keep names in place of missing images"
        )
        parser.add_argument("--strict", action="store_true", help="refuse a file with a bad row")
        parser.add_argument("--simulated", action="store_true", help="its raters are simulated")
        parser.add_argument("--json", action="store_true")

    def handle(self, *, slug: str, file: str, **options: Any) -> None:
        try:
            run = self._run(slug, file, options)
        except KeyboardInterrupt:
            raise CommandError("Canceled; nothing was imported.", returncode=130) from None
        except AppError as error:
            raise CommandError(" ".join(filter(None, [error.message, error.advice]))) from error
        if run.state != RunState.DONE:
            raise CommandError(" ".join(filter(None, [run.error or run.state, run.advice])))
        self._say(run, as_json=options["json"])

    def _run(self, slug: str, file: str, options: dict[str, Any]) -> Run:
        project = find_project(slug, advice=f"Make it: create_project {slug}")
        where = file if file.startswith("hf://") else str(Path(file).resolve())
        config = {
            "path": where,
            "format": options["format"],
            "strict": options["strict"],
            "simulated": options["simulated"],
            "options": _options(options),
        }
        run = imports.start(project=project, name=Path(file).name, config=config, by=None)
        base.perform(run.pk, imports.perform)
        run.refresh_from_db()
        return run

    def _say(self, run: Run, *, as_json: bool) -> None:
        result = run.result
        if as_json:
            total = result["bad_rows_total"]
            shown = {name: result[name] for name in SHOWN}
            self.stdout.write(json.dumps({**shown, "bad_rows_total": total, "run": run.pk}))
            return
        self.stdout.write(
            "{prompts:,} prompts, {responses:,} responses, {tasks:,} tasks, {judgments:,}"
            " judgments; {skipped_duplicates:,} were there already, {bad_rows_total:,} bad rows"
            " ({format}, {seconds} s)".format(**result)
        )
        for bad in result["bad_rows"]:
            self.stderr.write(f"line {bad['line']}: {bad['reason']}")
        if result["bad_rows_total"] > len(result["bad_rows"]):
            self.stderr.write(f"and more: see run {run.pk}")


def _options(options: dict[str, Any]) -> dict[str, Any]:
    mapping: dict[str, list[str]] = {}
    for pair in options["map"]:
        name, found, columns = pair.partition("=")
        if not found:
            raise CommandError(f"--map {pair!r} is not FIELD=COLUMN")
        mapping.setdefault(name, []).extend(columns.split(","))
    named: dict[str, Any] = {
        name: options[name] for name in ("rater", "labels", "pairs", "kind") if options[name]
    }
    if options["judges"]:
        named["judges"] = [one.strip() for one in options["judges"].split(",") if one.strip()]
    if options["labels_only"]:
        named["people"] = "labels-only"
    if options["stand_ins"]:
        named["stand_ins"] = True
    if options["values"]:
        named["values"] = dict(_value(part) for part in options["values"].split(","))
    return {"mapping": mapping, **named}


def _value(part: str) -> tuple[str, int]:
    word, found, number = part.rpartition("=")
    try:
        return word.strip(), int(number) if found else int("")
    except ValueError:
        raise CommandError(f"--values {part!r} is not WORD=N") from None
