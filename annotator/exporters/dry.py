"""A build without files: what a recipe would give, with some of its rows, while it is filled in.

A small project is read whole; of a large one a sample of prompts, each with all its pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import psycopg

from annotator.exporters.build import MakeFormat, passes
from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.row_pass import Plan, Shown
from annotator.exporters.shown import shown
from annotator.exporters.types import Shape
from annotator.exporters.verdicts import Ledger
from annotator.models import Project
from annotator.queries import datasets as queries
from annotator.queries.snapshot import snapshot

WHOLE: Final = 6_000  # votes up to which every pair is read
SAMPLE: Final = 500  # prompts read of a larger project
SAMPLE_PAIRS: Final = 6_000  # where the prompts of a sample hold more pairs, reading ends
ROWS: Final = 3
TIMEOUT_MS: Final = 8_000


@dataclass(frozen=True)
class Dry:
    """``ledger`` of the pairs read; ``is_whole``: those are all. ``rows`` as ``shown`` gives them."""

    ledger: Ledger
    is_whole: bool
    rows: list[dict[str, Any]]
    health: dict[str, Any]
    columns: list[str]
    style: str


class _Few:
    """Keeps some rows, each as likely as the next."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.columns, self._random = list(plan.columns), Random(seed)
        self.rows: list[Shown] = []
        self._seen = 0

    def write(self, split: str, rows: list[Row], shown: Sequence[Shown]) -> None:
        for one in shown:
            self._seen += 1
            if len(self.rows) < ROWS:
                self.rows.append(one)
            elif (place := self._random.randrange(self._seen)) < ROWS:
                self.rows[place] = one


def dry_run(
    project: Project, make_format: MakeFormat, options: ExportOptions, *, seed: int = 0
) -> Dry:
    """Raises Invalid for a recipe that cannot be built, OperationalError where it takes too long."""
    with snapshot() as connection:
        connection.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        is_whole = queries.has_at_most(project, WHOLE, connection=connection)
        prompts = None
        if not is_whole:
            prompts = queries.sample_prompts(project, SAMPLE, seed=seed, connection=connection)
            prompts = _fitting(project, prompts, connection)
        one_pass, sink, _ = passes(
            project,
            make_format,
            options,
            lambda plan: _Few(plan, seed),
            shape=Shape(*queries.shape_of(project, connection=connection)),
            connection=connection,
            on_pairs=lambda pairs: None,
            prompts=prompts,
        )
    return Dry(
        ledger=one_pass.ledger,
        is_whole=is_whole,
        rows=[shown(one) for one in sink.rows],
        health=one_pass.health.as_dict(),
        columns=sink.columns,
        style=one_pass.form.style,
    )


def _fitting(project: Project, prompts: list[int], connection: psycopg.Connection) -> list[int]:
    """As many of the prompts as hold a number of votes that is quickly read."""
    counts = queries.votes_of_prompts(project, prompts, connection=connection)
    kept, total = [], 0
    for prompt in prompts:
        total += counts.get(prompt, 0)
        if kept and total > SAMPLE_PAIRS:
            break
        kept.append(prompt)
    return kept
