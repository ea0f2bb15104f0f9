"""Push a built dataset to a Hugging Face hub, as one commit.

The endpoint and its token are the settings HF_ENDPOINT and HF_TOKEN; its host, and the hosts that
take its large files, must be in HUB_HOSTS. The token is never shown or logged.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.queries import datasets as queries
from annotator.services import hub


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("number", type=int, help="of the version")
        parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
        parser.add_argument(
            "--private", action="store_true", help="where the repository is not there yet"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, number: int, repo: str, private: bool, **options: Any) -> None:
        project = find_project(slug)
        version = queries.find(project, number) if 0 < number < 2**31 else None
        if version is None:
            raise CommandError(f"{slug} has no dataset {number}.")
        try:
            address = hub.push(version=version, repo=repo, is_private=private, by=None)
        except AppError as error:
            raise waiting.as_command_error(error) from error
        result = {"version": version.number, "rows": version.rows, "repo": repo, "commit": address}
        self.stdout.write(
            json.dumps(result) if options["json"] else f"{version} is at {address or repo}"
        )
