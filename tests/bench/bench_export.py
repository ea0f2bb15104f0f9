"""Rows per second and peak memory of an export, from PostgreSQL to verified files.

    python -m tests.bench.bench_export [--full | --pairs N] [--json]

Makes its own database beside the configured one, fills it, and builds each container through
the same service that a worker calls, each in a process of its own so that peaks do not mix.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

from tests.bench.database import own_database

DATABASE: Final = "bench_export"
PAIRS: Final = 200_000
FULL: Final = 1_000_000
CONTAINERS: Final = ("jsonl", "parquet", "jsonl.gz")
SLUG: Final = "bench"

# One vote per pair, one pair per prompt: the most text per vote there can be. Texts of about
# 470 characters for a prompt and 190 for a response, the means of HH-RLHF (harmless, test).
FILL: Final = """
INSERT INTO annotator_prompt (project_id, content_hash, messages, split,
                              external_id, tags, extra, created_at)
SELECT %(project)s, decode(md5('p' || i), 'hex'),
       jsonb_build_array(jsonb_build_object('role', 'user', 'content',
           'Question ' || i || ': ' || repeat('how would you explain this? ', 16))),
       CASE i %% 10 WHEN 0 THEN 'test' WHEN 1 THEN 'validation' ELSE 'train' END,
       '', '[]', '{}', now()
FROM generate_series(1, %(pairs)s) i;

INSERT INTO annotator_response (project_id, prompt_id, content_hash, text, generator,
                                sampling, extra, created_at)
SELECT project_id, id, decode(md5(side || id::text), 'hex'),
       'Answer ' || side || ' to ' || id || '.' || chr(10) || repeat('Well, "it" depends – a little. ', 6),
       '', '{}', '{}', now()
FROM annotator_prompt, (VALUES ('a'), ('b')) sides (side)
WHERE project_id = %(project)s ORDER BY id;

INSERT INTO annotator_task (project_id, prompt_id, kind, response_ids, content_hash, overlap,
                            judged, free, priority, position, is_gold, created_at)
SELECT project_id, prompt_id, 'pairwise', array_agg(id ORDER BY id),
       decode(md5('t' || prompt_id), 'hex'), 1, 1, 0, 0, prompt_id, false, now()
FROM annotator_response WHERE project_id = %(project)s GROUP BY project_id, prompt_id
ORDER BY prompt_id;

INSERT INTO annotator_judgment (project_id, task_id, rater_id, kind, revision, is_current,
                                is_counted, ranks, strength, both_bad, rationale, reasons,
                                submitted_at)
SELECT project_id, id, %(rater)s, 'vote', 1, true, true, '{1,2}', 1, false, '', '{}', now()
FROM annotator_task WHERE project_id = %(project)s ORDER BY id;

INSERT INTO annotator_preference (project_id, judgment_id, task_id, prompt_id, rater_id, a_id,
                                  b_id, outcome, strength, both_bad, is_gold)
SELECT j.project_id, j.id, t.id, t.prompt_id, j.rater_id, t.response_ids[1], t.response_ids[2],
       CASE j.id %% 2 WHEN 0 THEN 1 ELSE -1 END, 1 + j.id %% 3, false, false
FROM annotator_judgment j JOIN annotator_task t ON t.id = j.task_id
WHERE j.project_id = %(project)s ORDER BY j.id;
"""


def fill(*, pairs: int) -> None:
    """A project of ``pairs`` voted pairs, each of its own prompt."""
    from django.db import connection

    from annotator.models import Project
    from annotator.services import raters

    project = Project.objects.create(slug=SLUG, name="Bench", settings={})
    rater = raters.imported(project=project, name="bench")
    with connection.cursor() as cursor:
        for statement in FILL.split(";\n"):
            if statement.strip():
                cursor.execute(
                    statement, {"project": project.pk, "rater": rater.pk, "pairs": pairs}
                )
        cursor.execute("VACUUM ANALYZE")


def build(*, container: str) -> dict[str, Any]:
    """Build one version as a worker would; figures of this process."""
    from annotator.jobs import exports as jobs
    from annotator.models import Project, Run
    from annotator.services import exports

    run = exports.start(
        project=Project.objects.get(slug=SLUG),
        format="trl-preference",
        options={"container": container},
        by=None,
    )
    began = time.perf_counter()
    jobs.export(run_id=run.pk)
    seconds = time.perf_counter() - began
    run = Run.objects.get(pk=run.pk)
    if run.state != "done":
        raise SystemExit(f"{container}: {run.error} {run.log}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "case": f"export, {container}",
        "rows": run.result["rows"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(run.result["rows"] / seconds),
        "megabytes": round(run.result["bytes"] / 1e6),
        "peak_mib": round(peak),
    }


def run(*, pairs: int) -> list[dict[str, Any]]:
    """Figures of every container, each built in a process of its own."""
    with own_database(DATABASE), tempfile.TemporaryDirectory() as work:
        os.environ["TOUCHSTONE_WORK"] = work
        fill(pairs=pairs)
        figures = []
        for container in CONTAINERS:
            command = [sys.executable, "-m", "tests.bench.bench_export", "--build", container]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000,000 pairs")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
        django.setup()
        print(json.dumps(build(container=options.build)))
        return
    rows = run(pairs=FULL if options.full else options.pairs)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            "{case:<20} {rows:>10,} rows {seconds:>6} s {rows_per_second:>8,}/s"
            " {megabytes:>6,} MB, peak {peak_mib:,} MiB".format(**row)
        )


if __name__ == "__main__":
    main()
