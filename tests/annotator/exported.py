"""Exports of any format, built as a worker would and read back from the files alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
from pyarrow import parquet

from annotator.exporters import csv_files
from annotator.jobs import exports as jobs
from annotator.models import DatasetVersion, Project, Run, RunState
from annotator.services import deliveries, exports


def run_of(project: Project, format: str, **options: Any) -> Run:
    run = exports.start(project=project, format=format, options=options, by=None)
    jobs.export(run_id=run.pk)
    run.refresh_from_db()
    return run


def built(project: Project, format: str, **options: Any) -> DatasetVersion:
    run = run_of(project, format, **options)
    assert (run.state, run.error, run.advice) == (RunState.DONE, "", ""), run.log
    return run.dataset_version


def paths_of(version: DatasetVersion) -> dict[str, list[Path]]:
    """Files by split."""
    found: dict[str, list[Path]] = {}
    for entry in version.files:
        found.setdefault(entry["split"], []).append(deliveries.path_of(version, entry["name"]))
    return found


def rows_by_split(version: DatasetVersion) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [row for path in paths for row in read(path)]
        for split, paths in paths_of(version).items()
    }


def rows_of(version: DatasetVersion) -> list[dict[str, Any]]:
    return [row for rows in rows_by_split(version).values() for row in rows]


def read(path: Path) -> list[dict[str, Any]]:
    """A file's rows; cells of CSV are texts."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".csv":
        import csv

        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: csv_files.unescaped(cell) for name, cell in row.items()}
                for row in csv.DictReader(file)
            ]
    data = path.read_bytes()
    lines = gzip.decompress(data) if path.suffix == ".gz" else data
    return [orjson.loads(line) for line in lines.splitlines()]


def chat(*contents: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
