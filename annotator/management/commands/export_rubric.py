"""Write a version of a rubric to standard output, as the file that import_rubric reads.

Without a number: the newest approved version, or the draft where none is approved.
"""

from __future__ import annotations

import json
import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.models import RubricVersion
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
    rows = RubricVersion.objects.select_related("rubric", "approved_by")
    rows = rows.filter(rubric__project__slug=slug)
    numbered = re.fullmatch(r"(.+):v([0-9]{1,9})", name, re.DOTALL)
    found = rows.filter(rubric__name=name).order_by("state", "-number").first()
    if found is None and numbered:
        found = rows.filter(rubric__name=numbered[1], number=int(numbered[2])).first()
    if found is None:
        raise CommandError(f"There is no rubric {name!r} in a project {slug!r}.")
    return found
