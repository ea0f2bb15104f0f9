"""Add an OpenAI-compatible server that a project's judges may ask.

Its host must be in LLM_HOSTS. The key comes from a file or from an environment variable, never
from the command line, where every user of the machine could read it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.errors import AppError
from annotator.management import waiting
from annotator.management.finding import find_project
from annotator.services import endpoints

MAX_KEY_FILE: Final = 10_000  # bytes
LIMITS: Final = {
    "concurrency": "calls at once, of all runs together",
    "per_minute": "requests per minute; 0 is no limit",
    "timeout_seconds": "longest wait for a reply",
}


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", required=True)
        parser.add_argument("--url", required=True, help="such as https://llm.example.org/v1")
        key = parser.add_mutually_exclusive_group()
        key.add_argument("--key-file", metavar="PATH", help="a file with the key; - is stdin")
        key.add_argument("--key-env", metavar="NAME", help="a variable that holds the key")
        for name, text in LIMITS.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=text)
        parser.add_argument("--no-schema", action="store_true", help="it takes no JSON schema")
        parser.add_argument("--logprobs", action="store_true", help="it gives token probabilities")
        parser.add_argument("--images", action="store_true", help="it reads images")
        parser.add_argument(
            "--price",
            action="append",
            default=[],
            metavar="MODEL=IN,OUT",
            help="per million tokens, repeatable; * is any other model",
        )
        parser.add_argument(
            "--simulated", action="store_true", help="its verdicts are labelled as simulated"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line")

    def handle(self, *, slug: str, name: str, url: str, **options: Any) -> None:
        project = find_project(slug)
        limits = {key: options[key] for key in LIMITS if options[key] is not None}
        try:
            endpoint = endpoints.add(
                project=project,
                name=name,
                base_url=url,
                by=None,
                secret=read_key(options["key_file"], options["key_env"]),
                simulated=options["simulated"],
                has_schema=not options["no_schema"],
                has_logprobs=options["logprobs"],
                has_images=options["images"],
                prices=read_prices(options["price"]),
                **limits,
            )
        except AppError as error:
            raise waiting.as_command_error(error) from error
        said = {"endpoint": endpoint.pk, "name": endpoint.name, "url": endpoint.base_url}
        text = f"{endpoint.name}: {endpoint.base_url}"
        self.stdout.write(json.dumps(said) if options["json"] else text)


def read_key(path: str | None, variable: str | None) -> str:
    """The key from where it is said to be; "" where none is. Never in a message."""
    if variable:
        if not os.environ.get(variable):
            raise CommandError(f"The environment has no {variable}.")
        return os.environ[variable].strip()
    if not path:
        return ""
    try:
        with Path("/dev/stdin" if path == "-" else path).open("rb") as file:
            return file.read(MAX_KEY_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The key cannot be read from {path}: {type(error).__name__}.") from None


def read_prices(given: list[str]) -> dict[str, list[float]]:
    prices = {}
    for pair in given:
        model, _, values = pair.rpartition("=")
        try:
            prices[model] = [float(value) for value in values.split(",")]
        except ValueError:
            raise CommandError(f"--price {pair!r} is not MODEL=IN,OUT.") from None
    return prices
