"""Seconds and peak memory of a whole quality run, from PostgreSQL to consensus and report.

    python -m tests.bench.bench_quality [--judgments N] [--json]

Makes its own database beside the configured one, fills it with pairs that three of 300 raters
judged each, and runs what a worker runs, in a process of its own, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any, Final

from tests.bench.bench_export import SLUG
from tests.bench.database import own_database

DATABASE: Final = "bench_quality"
JUDGMENTS: Final = 1_000_000
RATERS: Final = 300
OVERLAP: Final = 3
ONE_CORE: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# A rater is right on .55 to .95 of the pairs; one verdict in ten is a tie; spread over 20 weeks.
FILL: Final = """
INSERT INTO annotator_rater (project_id, kind, name, is_simulated, created_at, judged, skipped,
                             claims_since_mark)
SELECT %(project)s, 'imported', 'rater ' || i, true, now(), 0, 0, 0
FROM generate_series(1, %(raters)s) i;

INSERT INTO annotator_prompt (project_id, content_hash, messages, split, external_id, tags,
                              extra, created_at)
SELECT %(project)s, decode(md5('p' || i), 'hex'), '[]', 'train', '',
       jsonb_build_array('tag ' || i %% 12), '{}', now()
FROM generate_series(1, %(pairs)s) i;

INSERT INTO annotator_response (project_id, prompt_id, content_hash, text, generator, sampling,
                                extra, created_at)
SELECT project_id, id, decode(md5(side || id::text), 'hex'), '',
       'model ' || (id * 7 + side * (1 + id %% 5)) %% 8, '{}', '{}', now()
FROM annotator_prompt, generate_series(1, 2) side WHERE project_id = %(project)s;

INSERT INTO annotator_task (project_id, prompt_id, kind, response_ids, content_hash, overlap,
                            judged, free, priority, position, is_gold, created_at)
SELECT project_id, prompt_id, 'pairwise', array_agg(id ORDER BY id),
       decode(md5('t' || prompt_id), 'hex'), %(overlap)s, %(overlap)s, 0, 0, prompt_id, false, now()
FROM annotator_response WHERE project_id = %(project)s GROUP BY project_id, prompt_id;

CREATE TEMPORARY TABLE said AS
SELECT t.id AS task, r.first + (t.id * 31 + n * 101) %% %(raters)s AS rater,
       CASE WHEN random() < .1 THEN 0
            WHEN random() < .55 + .4 * ((t.id * 31 + n * 101) %% %(raters)s) / %(raters)s
            THEN 1 - 2 * (t.id %% 2) ELSE 2 * (t.id %% 2) - 1 END AS outcome
FROM annotator_task t, generate_series(1, %(overlap)s) n,
     (SELECT min(id) AS first FROM annotator_rater WHERE project_id = %(project)s) r
WHERE t.project_id = %(project)s;

INSERT INTO annotator_judgment (project_id, task_id, rater_id, kind, revision, is_current,
                                is_counted, ranks, strength, both_bad, rationale, reasons,
                                shown_order, active_ms, submitted_at)
SELECT %(project)s, task, rater, 'vote', 1, true, true,
       CASE outcome WHEN 1 THEN '{1,2}'::smallint[] WHEN -1 THEN '{2,1}' ELSE '{1,1}' END,
       abs(outcome), false, '', '{}',
       CASE WHEN random() < .5 THEN '{0,1}'::smallint[] ELSE '{1,0}' END,
       (5000 + random() * 60000)::int, now() - random() * interval '140 days'
FROM said;

INSERT INTO annotator_preference (project_id, judgment_id, task_id, prompt_id, rater_id, a_id,
                                  b_id, outcome, strength, both_bad, is_gold)
SELECT j.project_id, j.id, t.id, t.prompt_id, j.rater_id, t.response_ids[1], t.response_ids[2],
       sign(j.ranks[2] - j.ranks[1]), j.strength, false, false
FROM annotator_judgment j JOIN annotator_task t ON t.id = j.task_id
WHERE j.project_id = %(project)s;
"""


def fill(*, judgments: int) -> None:
    from django.db import connection

    from annotator.models import Project

    project = Project.objects.create(slug=SLUG, name="Bench", settings={"overlap": OVERLAP})
    with connection.cursor() as cursor:
        for statement in FILL.strip().split(";\n\n"):
            cursor.execute(
                statement,
                {
                    "project": project.pk,
                    "raters": RATERS,
                    "pairs": judgments // OVERLAP,
                    "overlap": OVERLAP,
                },
            )
        cursor.execute("ANALYZE")


def measure(*, again: bool) -> dict[str, Any]:
    """One quality run in this process."""
    import django

    django.setup()
    from annotator.jobs.quality import measure as work
    from annotator.models import Project
    from annotator.services import quality

    run, _ = quality.start(project=Project.objects.get(slug=SLUG), by=None)
    began = time.perf_counter()
    work(run_id=run.pk)
    seconds = time.perf_counter() - began
    run.refresh_from_db()
    if run.state != "done":
        raise SystemExit(f"the run is {run.state}: {run.error} {run.log}")
    stages = ", ".join(f"{stage['key']} {stage['seconds']}" for stage in run.stages)
    return {
        "run": "again, nothing new" if again else "first",
        "judgments": run.result["judgments"],
        "tasks": run.result["tasks"],
        "seconds": round(seconds, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "stages": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgments", type=int, default=JUDGMENTS)
    parser.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    parser.add_argument("--one", choices=("first", "again"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
        print(json.dumps(measure(again=given.one == "again")))
        return
    rows = []
    with own_database(DATABASE):
        fill(judgments=given.judgments)
        for one in ("first", "again"):
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.bench_quality", "--one", one],
                env=os.environ | ONE_CORE,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
