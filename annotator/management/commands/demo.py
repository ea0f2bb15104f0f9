"""Load the demo set, run the loop once, and serve the product until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from annotator import supervisor
from annotator.jobs import base
from annotator.models import Project, Run
from annotator.services import demo, demo_judges, demo_scenes, exports, training


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--load-only", action="store_true", help="load the set and end")

    def handle(self, *, host: str, port: int, load_only: bool, **options: Any) -> None:
        if not load_only and not supervisor.port_is_free(host, port):
            raise CommandError(f"{host}:{port} is taken. Choose another: make demo PORT=8001")
        call_command("migrate", verbosity=0)
        loaded, scenes = demo.load(), demo_scenes.load(demo.people())
        for one in (loaded, scenes):
            judges = ", ".join(judge.name for judge in demo_judges.add_judges(one.project))
            self._say(
                f"{one.project.name}: {one.prompts} prompts, {one.tasks} tasks,"
                f" {one.votes} votes of simulated raters, simulated judges {judges or 'none'}"
            )
        if load_only:
            return
        call_command("collectstatic", interactive=False, verbosity=0)
        supervisor.run(
            [*supervisor.children(bind=f"{host}:{port}"), *self._simulated_judge()],
            say=self._say,
            meanwhile=lambda: self._welcome(
                [loaded.project, scenes.project], f"http://{host}:{port}"
            ),
        )

    def _simulated_judge(self) -> list[supervisor.Child]:
        host, port = demo_judges.address()
        if supervisor.port_is_free(host, port):
            return [supervisor.simulated_judge(host, port)]
        self._say(
            f"{host}:{port} is taken: the simulated judge is not started, and its judges get no"
            " answers. SIMULATED_JUDGE=127.0.0.1:8791 make demo takes another port."
        )
        return []

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        sys.stdout.flush()

    def _welcome(self, projects: Sequence[Project], address: str) -> None:
        started = [run for project in projects for run in start_loop(project)]
        self._say(f"\nTouchstone serves at {address} until Ctrl-C.\n")
        for email, _, role in demo.ACCOUNTS:
            self._say(f"  {role.label:<10} {email:<24} {demo.PASSWORD}")
        if started:
            self._say("\nThe worker is going once round the loop:")
            for run in started:
                self._say(f"  {run.title}: {address}/p/{run.project.slug}/runs/{run.pk}/")
        self._say("")


def start_loop(project: Project) -> list[Run]:
    """One reward model and one data set, unless the project has had them: seconds of work."""
    started = []
    is_images = project.modality == Project.Modality.IMAGE
    with transaction.atomic():
        if not project.runs.filter(kind=Run.Kind.TRAIN).exists():
            started.append(
                training.start(
                    project=project,
                    objective="bradley-terry",
                    backbone="pixels" if is_images else "hashing",
                    options={},
                    by=None,
                )
            )
        if not is_images and not project.runs.filter(kind=Run.Kind.EXPORT).exists():
            started.append(
                exports.start(project=project, format="trl-preference", options={}, by=None)
            )
        for run in started:
            base.enqueue(run)
    return started
