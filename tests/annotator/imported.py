"""Files to import and what is in the tables after it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from annotator.models import (
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    Run,
    Task,
)
from annotator.services import imports

TABLES = (Prompt, Response, Task, Judgment, Preference, Rater)


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A TRL preference row of its own prompt."""
    return {
        "prompt": f"Question {number}?",
        "chosen": f"Good answer {number}.",
        "rejected": f"Bad answer {number}.",
        **more,
    }


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def zipped(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data))
    return path


def read(project: Project, path: Path, **how: Any) -> dict[str, Any]:
    """Import a file now; the run's result."""
    return imports.import_file(project=project, path=path, **how).result


def counts(project: Project) -> dict[str, int]:
    return {table.__name__: table.objects.filter(project=project).count() for table in TABLES}


def last_run(project: Project) -> Run:
    return Run.objects.filter(project=project).latest("pk")
