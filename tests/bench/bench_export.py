"""Rows per second and peak memory of an export, from PostgreSQL to verified files.

    python -m tests.bench.bench_export [--pairs 1000000] [--keep]

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

DATABASE: Final = "touchstone_bench_export"
CONTAINERS: Final = ("jsonl", "parquet", "jsonl.gz")
SLUG: Final = "bench"

# One vote per pair, one pair per prompt: the most text per vote there can be. Texts of about
# 470 characters for a prompt and 190 for a response, the means of HH-RLHF (harmless, test).
FILL: Final = """
INSERT INTO annotator_prompt (project_id, content_hash, messages, source_image, mask_image, split,
                              external_id, tags, extra, created_at)
SELECT %(project)s, decode(md5('p' || i), 'hex'),
       jsonb_build_array(jsonb_build_object('role', 'user', 'content',
           'Question ' || i || ': ' || repeat('how would you explain this? ', 16))),
       '', '', CASE i %% 10 WHEN 0 THEN 'test' WHEN 1 THEN 'validation' ELSE 'train' END,
       '', '[]', '{}', now()
FROM generate_series(1, %(pairs)s) i;

INSERT INTO annotator_response (project_id, prompt_id, content_hash, text, image, generator,
                                sampling, extra, created_at)
SELECT project_id, id, decode(md5(side || id::text), 'hex'),
       'Answer ' || side || ' to ' || id || '.' || chr(10) || repeat('Well, "it" depends – a little. ', 6),
       '', '', '{}', '{}', now()
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
        "container": container,
        "rows": run.result["rows"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(run.result["rows"] / seconds),
        "megabytes": round(run.result["bytes"] / 1e6),
        "peak_mib": round(peak),
    }


def run(*, pairs: int = 1_000_000, keep: bool = False) -> list[dict[str, Any]]:
    """Figures of every container. The database is dropped afterwards unless ``keep``."""
    import psycopg
    from django.conf import settings

    entry = settings.DATABASES["default"]
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    where = {names[key]: entry[key] for key in names if entry.get(key)}
    admin = psycopg.connect(**where, dbname=entry["NAME"], autocommit=True)
    there = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
    url = psycopg.conninfo.make_conninfo(**where, dbname=DATABASE)
    with tempfile.TemporaryDirectory() as work:
        environ = {
            **os.environ,
            "DATABASE_URL": url,
            "REDIS_URL": settings.REDIS_URL,
            "TOUCHSTONE_WORK": work,
        }

        def child(*args: str) -> str:
            command = [sys.executable, "-m", "tests.bench.bench_export", *args]
            done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
            return done.stdout.decode()

        if not (keep and there):
            admin.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
            admin.execute(f"CREATE DATABASE {DATABASE}")
            child("--fill", str(pairs))
        figures = [json.loads(child("--build", container)) for container in CONTAINERS]
    if not keep:
        admin.execute(f"DROP DATABASE {DATABASE}")
    admin.close()
    return figures


def main() -> None:
    import django

    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="keep and reuse the filled database")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--build", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
    django.setup()
    if args.fill:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        fill(pairs=args.fill)
    elif args.build:
        print(json.dumps(build(container=args.build)))
    else:
        print(
            f"{'container':<10} {'rows':>10} {'seconds':>8} {'rows/s':>8} {'MB':>7} {'peak MiB':>9}"
        )
        for row in run(pairs=args.pairs, keep=args.keep):
            print(
                "{container:<10} {rows:>10,} {seconds:>8} {rows_per_second:>8,}"
                " {megabytes:>7,} {peak_mib:>9,}".format(**row)
            )


if __name__ == "__main__":
    main()
