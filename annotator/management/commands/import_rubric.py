"""Read a rubric from a file: a draft for people to decide on. Reads standard input for -."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.services import rubric_files


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("file")
        parser.add_argument("--name", default="", help="of the rubric; as the file says if empty")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, file: str, name: str = "", **options: Any) -> None:
        project = find_project(slug)
        try:
            version = rubric_files.read(project=project, data=_bytes(file), name=name, by=None)
        except AppError as error:
            raise waiting.as_command_error(error) from error
        count = version.criteria.count()
        if options["json"]:
            names = {"rubric": version.rubric.name, "rubric_id": version.rubric_id}
            found = names | {"version": version.number, "criteria": count}
            self.stdout.write(json.dumps(found, ensure_ascii=False))
            return
        self.stdout.write(f"{version}: {count:,} criteri{'on' if count == 1 else 'a'}, a draft.")


def _bytes(file: str) -> bytes:
    """As much of a file as a rubric may be, and one byte more, so that a longer one is refused."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(rubric_files.MAX_BYTES + 1)
        with Path(file).open("rb") as source:
            return source.read(rubric_files.MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
