"""Add an AI judge to a project. The same settings under the same name are the same version."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.management import options as given
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.models import Endpoint, Judge, Project, Rubric, RubricVersion
from annotator.queries import rubrics as queries
from annotator.services import judges
from rubrics.judging import JUDGES
from rubrics.registry import find


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", required=True)
        parser.add_argument("--kind", required=True, choices=list(JUDGES))
        parser.add_argument("--endpoint", help="by its name; for kinds llm and rubric")
        parser.add_argument(
            "--rubric",
            metavar="NAME[:vN]",
            help="whose criteria count, for kinds llm and rubric: the newest approved version, or N",
        )
        given.add_option_argument(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, name: str, kind: str, **options: Any) -> None:
        project = find_project(slug)
        values = given.parse_options(options["option"], find(JUDGES, kind).load_options())
        try:
            judge = judges.add(
                project=project,
                name=name,
                kind=kind,
                options=values,
                endpoint=find_endpoint(project, options["endpoint"]),
                by=None,
                by_operator=True,
                rubric_version=find_version(project, options["rubric"]),
            )
        except AppError as error:
            raise waiting.as_command_error(error) from error
        self.stdout.write(
            json.dumps(as_json(judge)) if options["json"] else f"{judge} of {project}: {kind}."
        )


def find_endpoint(project: Project, name: str | None) -> Endpoint | None:
    if not name:
        return None
    found = Endpoint.objects.filter(project=project, name=name, archived_at=None).first()
    if found is None:
        rows = Endpoint.objects.filter(project=project, archived_at=None).order_by("name")
        known = ", ".join(rows.values_list("name", flat=True)[:100]) or "none"
        raise CommandError(f"There is no endpoint {name!r}. Known: {known}.")
    return found


def find_version(project: Project, named: str | None) -> RubricVersion | None:
    """The version that NAME or NAME:vN names; the newest approved one where no number is given."""
    if not named:
        return None
    found = queries.named(project, named, only_approved=True)
    if found is not None:
        return found
    rows = Rubric.objects.filter(project=project).order_by("name")
    if rows.filter(name=named).exists():
        raise CommandError(f"No version of {named!r} is approved. Approve it first.")
    known = ", ".join(rows.values_list("name", flat=True)[:100]) or "none"
    raise CommandError(f"There is no rubric {named!r}. Known: {known}.")


def as_json(judge: Judge) -> dict[str, Any]:
    return {
        "judge": judge.pk,
        "name": judge.name,
        "version": judge.version,
        "kind": judge.kind,
        "model": judge.model,
        "rater": judge.rater.name,
        "digest": judge.digest,
        "rubric": str(judge.rubric_version) if judge.rubric_version else None,
    }
