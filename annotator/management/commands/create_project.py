"""Create a project: ``create_project SLUG [--name N] [--modality text] [--overlap N]``."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from pydantic import ValidationError

from annotator.errors import AppError
from annotator.models import Project, ProjectSettings, User
from annotator.services import projects

NO_OWNER = "It has no owner yet: add one on the operator pages, or by --owner."


class Command(BaseCommand):
    help = (
        "Create a project. Its owner is the account named by --owner; without it, the server's "
        "only superuser, if there is exactly one. Otherwise it has no owner until an operator "
        "adds one. A slug that is taken is an error and changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="its address: letters, digits, - and _")
        parser.add_argument("--name", default="", help="as people read it; made from the slug")
        parser.add_argument(
            "--modality", default=Project.Modality.TEXT, choices=Project.Modality.values
        )
        parser.add_argument("--overlap", type=int, default=1, help="judgments per task")
        parser.add_argument("--owner", default="", metavar="EMAIL", help="an existing account")
        parser.add_argument("--json", action="store_true", help="print one JSON object at the end")

    def handle(self, *, slug: str, json: bool, **given: Any) -> None:
        try:
            options = ProjectSettings(overlap=given["overlap"])
        except ValidationError as error:
            raise CommandError(f"--overlap: {error.errors()[0]['msg']}") from None
        owner = self._owner(given["owner"])
        try:
            project = projects.create(
                slug=slug,
                name=given["name"] or slug.replace("-", " ").replace("_", " ").capitalize(),
                owner=owner,
                modality=given["modality"],
                options=options,
            )
        except AppError as error:
            raise CommandError(error.message) from error
        self._report(project, owner=owner, as_json=json)

    def _owner(self, email: str) -> User | None:
        if email:
            owner = User.objects.filter(email=email.lower(), is_active=True).first()
            if owner is None:
                raise CommandError(f"There is no active account {email}.")
            return owner
        operators = list(User.objects.filter(is_superuser=True, is_active=True)[:2])
        return operators[0] if len(operators) == 1 else None

    def _report(self, project: Project, *, owner: User | None, as_json: bool) -> None:
        if as_json:
            report = {
                "project": project.slug,
                "id": project.pk,
                "name": project.name,
                "modality": project.modality,
                "overlap": project.options.overlap,
                "owner": owner.email if owner else None,
            }
            if owner is None:
                self.stderr.write(NO_OWNER)
            self.stdout.write(json.dumps(report))
            return
        self.stdout.write(f"Created {project.slug} ({project.name}).")
        if owner is None:
            self.stdout.write(NO_OWNER)
        else:
            self.stdout.write(f"Its owner is {owner.email}.")
