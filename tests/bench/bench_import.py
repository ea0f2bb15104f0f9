"""Pairs per second and peak memory of an import, from a file into PostgreSQL.

    python -m tests.bench.bench_import [--full] [--json]

Makes its own database beside the configured one and reads each file in a process of its own, as
a worker would, so that peaks do not mix. Each pair is a prompt, two responses, a task, a vote and
its edge: six rows. ``--full`` adds a file of 1,000,000 pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.database import own_database

DATABASE: Final = "bench_import"
PAIRS: Final = 200_000
FULL: Final = 1_000_000
BATCH: Final = 10_000


def pairs(count: int) -> Iterator[dict[str, str]]:
    """trl-preference rows of short text: a dozen words to ask, two dozen to answer."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 8))) for _ in range(5000)]
    for number in range(count):
        text = dice.choices(words, k=60)
        yield {
            "prompt": f"{number}: {' '.join(text[:12])}?",
            "chosen": " ".join(text[12:36]),
            "rejected": " ".join(text[36:]),
        }


def write_jsonl(path: Path, count: int) -> None:
    with path.open("w") as file:
        for row in pairs(count):
            file.write(f"{json.dumps(row)}\n")


def write_parquet(path: Path, count: int) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, "string") for name in ("prompt", "chosen", "rejected")])
    with parquet.ParquetWriter(path, schema) as writer:
        batch = []
        for row in pairs(count):
            batch.append(row)
            if len(batch) == BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def read(path: str) -> dict[str, Any]:
    """Import one file into a fresh project; figures of this process."""
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
    django.setup()
    from annotator.models import Project, ProjectSettings
    from annotator.services import imports

    project = Project.objects.create(
        slug=f"bench-{os.getpid()}",
        name="Bench",
        settings=ProjectSettings().model_dump(mode="json"),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    began = time.perf_counter()
    run = imports.import_file(project=project, path=path)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pairs": run.result["tasks"],
        "seconds": round(seconds, 2),
        "pairs_per_second": round(run.result["tasks"] / seconds),
        "python_seconds": round(used.ru_utime - before, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def run(*, full: bool) -> list[dict[str, Any]]:
    cases = [
        ("JSON Lines", write_jsonl, PAIRS // 10),
        ("JSON Lines", write_jsonl, PAIRS),
        ("Parquet", write_parquet, PAIRS),
    ]
    if full:
        cases.append(("JSON Lines", write_jsonl, FULL))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, write, count in cases:
            path = Path(folder) / "pairs"
            write(path, count)
            command = [sys.executable, "-m", "tests.bench.bench_import", "--read", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"case": name, **json.loads(done.stdout.strip().splitlines()[-1])})
            path.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also 1,000,000 pairs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    with own_database(DATABASE):
        rows = run(full=options.full)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            "{case:<10} {pairs:>9,} pairs {seconds:7.1f} s {pairs_per_second:>7,} pairs/s"
            "  peak {peak_mb:,} MB".format(**row)
        )


if __name__ == "__main__":
    main()
