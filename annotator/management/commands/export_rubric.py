"""Write a version of a rubric to standard output, as the file that import_rubric reads.

Without a number: the newest approved version, or the draft where none is approved.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.models import Project, RubricVersion
from annotator.queries import rubrics as queries
from annotator.services import rubric_files


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("name", metavar="NAME[:vN]")
        parser.add_argument("--markdown", action="store_true", help="for people to read")

    def handle(self, *, slug: str, name: str, markdown: bool, **options: Any) -> None:
        version = find(slug, name)
        if markdown:
            self.stdout.write(rubric_files.as_markdown(version), ending="")
            return
        text = json.dumps(rubric_files.as_json(version), ensure_ascii=False, indent=2)
        self.stdout.write(text)


def find(slug: str, name: str) -> RubricVersion:
    """The version that NAME or NAME:vN means. Raises CommandError."""
    project = Project.objects.filter(slug=slug).first()
    found = None
    if project is not None:
        found = queries.named(project, name, only_approved=True) or queries.named(project, name)
    if found is None:
        raise CommandError(f"There is no rubric {name!r} in a project {slug!r}.")
    return found
