"""Facts of a dataset's health that the rows alone do not tell, read from the snapshot they are from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from annotator.exporters.build import Built
from annotator.exporters.health import Health
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.split_health import splits
from annotator.models import Project
from annotator.queries import dataset_health as queries
from annotator.queries.datasets import RaterVotes


def beside_rows(
    project: Project,
    options: ExportOptions,
    built: Built,
    *,
    raters: list[RaterVotes],
    earlier: Iterable[tuple[int, Path]],
    connection: psycopg.Connection,
) -> dict[str, Any]:
    """Noise of the labels, sources, splits, control questions and skips.

    ``earlier``: number and folder of the versions built before, the newest first.
    """
    health = built.health
    if not isinstance(health, Health) or not len(health.rows):
        return {}
    records = built.index.records()
    golds = queries.gold_votes(project, options.selection(), connection=connection)
    return {
        "noise": health.noise(options, golds=golds),
        "sources": {
            "votes": queries.votes_by_kind(raters),
            **queries.prompts_by_source(project, records["prompt"], connection=connection),
        },
        "splits": splits(records, earlier),
        "golds": queries.golds_left_out(project, connection=connection),
        "skips": queries.skips(project, connection=connection),
    }


def with_near_duplicates(health: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The same health, with what the rule of near-duplicates found, or why nothing is known."""
    if "duplicates" not in health:
        return health
    near = manifest.get("near_duplicates")
    reason = "" if near else "not looked for: the recipe's near_duplicates is 0"
    return health | {"duplicates": health["duplicates"] | {"near": near, "near_reason": reason}}
