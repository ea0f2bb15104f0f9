"""Serve the simulated judge: an OpenAI-compatible endpoint whose verdicts are simulated."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.services import demo_judges
from rubrics.simulated.app import SimulatedApp
from rubrics.simulated.dials import MODELS, named, read_dials
from rubrics.simulated.serving import serve


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        host, port = demo_judges.address()
        parser.add_argument("--host", default=host)
        parser.add_argument("--port", type=int, default=port)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--dial",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="turn a dial of every model, such as too_many=0.1; may be given again",
        )
        parser.add_argument("--api-key", default="", help="the key that callers must present")
        parser.add_argument(
            "--no-demo", action="store_true", help="go by what answers look like only"
        )

    def handle(
        self,
        *,
        host: str,
        port: int,
        seed: int,
        dial: list[str],
        api_key: str,
        no_demo: bool,
        **options: Any,
    ) -> None:
        try:
            changes = read_dials(dial)
            models = {name: dials.but(**changes) for name, dials in named().items()}
        except ValueError as error:
            raise CommandError(str(error)) from error
        known = {} if no_demo else demo_judges.known()
        self._say(f"Simulated judge at http://{host}:{port}/v1: all its verdicts are simulated.")
        for name, row in MODELS.items():
            self._say(f"  {name:<13} {row.summary}")
        app = SimulatedApp(models, known=known, seed=seed, api_key=api_key)
        try:
            serve(app, host=host, port=port)
        except OSError as error:
            raise CommandError(f"{host}:{port}: {error.strerror}") from error

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        sys.stdout.flush()
