"""Rows per second and peak memory of an export, from PostgreSQL to verified files.

    python -m tests.bench.bench_export [--full | --pairs N] [--container NAME ...] [--json]

Makes its own database beside the configured one, fills it, and builds each container through
the same service that a worker calls, each in a process of its own so that peaks do not mix. Rows
per second are of reading and writing, and of the whole run with verification. One person submits
judgments of another project four times a second, before each build and while it lasts.
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
from collections.abc import Sequence
from typing import Any, Final

from tests.bench.bench_judging import Probe
from tests.bench.database import own_database

DATABASE: Final = "bench_export"
PAIRS: Final = 200_000
FULL: Final = 1_000_000
CONTAINERS: Final = ("jsonl", "parquet", "jsonl.gz")
SLUG: Final = "bench"
DESK: Final = "desk"
TASKS: Final = 20_000  # for the person who judges meanwhile
PAUSE: Final = 0.25  # seconds between two submits
IDLE_SUBMITS: Final = 40

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


def fill_desk(*, tasks: int) -> Any:
    """A small project for the person who judges meanwhile."""
    from django.db import connection

    from annotator.models import Project, ProjectSettings
    from tests.bench.bench_queue import FILL as FILL_QUEUE

    settings = ProjectSettings(overlap=5, gold_rate=0).model_dump(mode="json")
    project = Project.objects.create(slug=DESK, name="Desk", settings=settings)
    with connection.cursor() as cursor:
        cursor.execute(FILL_QUEUE, {"project": project.pk, "tasks": tasks, "overlap": 5})
        cursor.execute("ANALYZE annotator_prompt, annotator_response, annotator_task")
    return project


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
    began, spent = time.perf_counter(), time.process_time()
    jobs.export(run_id=run.pk)
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    run = Run.objects.get(pk=run.pk)
    if run.state != "done":
        raise SystemExit(f"{container}: {run.error} {run.log}")
    rows, stages = run.result["rows"], {one["key"]: round(one["seconds"], 2) for one in run.stages}
    own, others = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "case": f"export, {container}",
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "rows_per_second_written": round(rows / stages["read"]),
        "rows_per_second_with_health": round(rows / (stages["read"] + stages["health"])),
        "rows_per_cpu_second": round(rows / spent),
        "health_seconds": stages["health"],
        "verify_seconds": stages["verify"],
        "megabytes": round(run.result["bytes"] / 1e6),
        "peak_mib": round(own),
        "peak_mib_of_children": round(others),
    }


def measure(container: str, probe: Probe) -> dict[str, Any]:
    """Figures of one build and of submits before and meanwhile."""
    load = os.getloadavg()[0]
    for _ in range(IDLE_SUBMITS):
        probe.submit()
        time.sleep(PAUSE)
    idle = probe.take()
    command = [sys.executable, "-m", "tests.bench.bench_export", "--build", container]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while child.poll() is None:
        probe.submit()
        time.sleep(PAUSE)
    assert child.stdout is not None
    if child.returncode:
        raise SystemExit(f"{container} ended with {child.returncode}")
    busy = probe.take()
    return json.loads(child.stdout.read().splitlines()[-1]) | {
        "submit_p50_idle": idle[0],
        "submit_p50": busy[0],
        "submit_p95_idle": idle[1],
        "submit_p95": busy[1],
        "load_before": load,
    }


def run(*, pairs: int, containers: Sequence[str]) -> list[dict[str, Any]]:
    """Figures of every container, each built in a process of its own."""
    with own_database(DATABASE), tempfile.TemporaryDirectory() as work:
        os.environ["TOUCHSTONE_WORK"] = work
        from tests.serving import web

        fill(pairs=pairs)
        desk = fill_desk(tasks=TASKS)
        with web(workers=2) as site:
            probe = Probe(site.port, desk)
            figures = []
            for container in containers:
                figures.append(measure(container, probe))
                print(told(figures[-1]), file=sys.stderr, flush=True)
    return figures


def told(row: dict[str, Any]) -> str:
    return (
        "{case:<20} {rows:>10,} rows {seconds:>6} s {rows_per_second:>8,}/s"
        " ({rows_per_second_written:,}/s written, {rows_per_cpu_second:,} per CPU second,"
        " {health_seconds} s of health, {verify_seconds} s verified) {megabytes:>6,} MB,"
        " peak {peak_mib:,} MiB, of children {peak_mib_of_children:,};"
        " submit {submit_p50_idle:.0f} -> {submit_p50:.0f} ms,"
        " p95 {submit_p95_idle:.0f} -> {submit_p95:.0f}; load {load_before:.1f}".format(**row)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000,000 pairs")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--container", action="append", choices=CONTAINERS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
        django.setup()
        print(json.dumps(build(container=options.build)))
        return
    rows = run(
        pairs=FULL if options.full else options.pairs, containers=options.container or CONTAINERS
    )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
