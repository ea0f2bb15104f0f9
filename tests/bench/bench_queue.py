"""Submit and next over real HTTP: rate and latency by clients and by size of the project.

    python -m tests.bench.bench_queue [--seconds 10] [--json]

Makes its own database beside the configured one. gunicorn serves from processes of its own;
the clients run in other processes on the same cores and take their share of them, so the rates
are of the whole machine, not of the server alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import time
from typing import Any, Final

import psutil

from tests.bench.database import own_database

DATABASE: Final = "bench_queue"
SIZES: Final = (1_000, 200_000)
CLIENTS: Final = (1, 8, 32)
OVERLAP: Final = 5

FILL: Final = """
INSERT INTO annotator_prompt (project_id, content_hash, messages, split,
                              external_id, tags, extra, created_at)
SELECT %(project)s, decode(md5('p' || i), 'hex'),
       jsonb_build_array(jsonb_build_object('role', 'user', 'content',
           'Question ' || i || ': ' || repeat('how would you explain this? ', 5))),
       'train', '', '[]', '{}', now()
FROM generate_series(1, %(tasks)s) i;
INSERT INTO annotator_response (project_id, prompt_id, content_hash, text, generator,
                                sampling, extra, created_at)
SELECT project_id, id, decode(md5(side || id::text), 'hex'),
       'Answer ' || side || E'.\\n\\n' || repeat('It *depends* on the `case`. ', 20)
           || E'\\n\\n- first\\n- second\\n', 'm', '{}', '{}', now()
FROM annotator_prompt, (VALUES ('a'), ('b')) sides (side) WHERE project_id = %(project)s
ORDER BY id;
INSERT INTO annotator_task (project_id, prompt_id, kind, response_ids, content_hash, overlap,
                            judged, free, priority, position, is_gold, created_at)
SELECT project_id, prompt_id, 'pairwise', array_agg(id ORDER BY id),
       decode(md5('t' || prompt_id), 'hex'), %(overlap)s, 0, %(overlap)s, 0, prompt_id, false,
       now()
FROM annotator_response WHERE project_id = %(project)s GROUP BY project_id, prompt_id
ORDER BY prompt_id;
"""


def client(port: int, slug: str, session: str, until: float, seed: int, out: Any) -> None:
    """One person who judges as fast as the server answers; sends the latencies in seconds."""
    from tests.serving import Annotator

    dice = random.Random(seed)
    annotator = Annotator(port=port, slug=slug, session=session)
    latencies = []
    task = annotator.open_desk()
    while task is not None and time.time() < until:
        began = time.perf_counter()
        task = annotator.submit(task, dice.choice(["a2", "a1", "tie", "b1", "b2"]))
        latencies.append(time.perf_counter() - began)
    out.put(latencies)


def server_cpu(pid: int) -> float:
    """Seconds of processor time that gunicorn and its workers have used."""
    master = psutil.Process(pid)
    times = [one.cpu_times() for one in (master, *master.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def measure(
    *, port: int, pid: int, slug: str, sessions: list[str], seconds: float
) -> dict[str, float]:
    spawn = multiprocessing.get_context("fork")
    out = spawn.Queue()
    until = time.time() + seconds
    people = [
        spawn.Process(target=client, args=(port, slug, session, until, seed, out))
        for seed, session in enumerate(sessions)
    ]
    began, cpu = time.perf_counter(), server_cpu(pid)
    for person in people:
        person.start()
    latencies = sorted(value for _ in people for value in out.get())
    took, cpu = time.perf_counter() - began, server_cpu(pid) - cpu
    for person in people:
        person.join()
    return {
        "clients": len(sessions),
        "judgments": len(latencies),
        "per_second": len(latencies) / took,
        "p50_ms": 1000 * statistics.median(latencies),
        "p95_ms": 1000 * latencies[int(0.95 * len(latencies))],
        "server_cpu_ms": 1000 * cpu / len(latencies),
    }


def run(seconds: float) -> list[dict[str, float]]:
    from django.db import connection, connections

    from annotator.models import Rater
    from annotator.services import raters
    from tests import factories, serving

    rows = []
    for size in SIZES:
        project = factories.project(f"bench-{size}", settings={"overlap": OVERLAP})
        with connection.cursor() as cursor:
            values = {"project": project.pk, "tasks": size, "overlap": OVERLAP}
            for statement in FILL.split(";\n")[:3]:
                cursor.execute(statement, values)
            cursor.execute("ANALYZE")
        people = [factories.member(project) for _ in range(max(CLIENTS))]
        for person in people:
            raters.for_member(project=project, user=person)
        sessions = [serving.session_cookie(person) for person in people]
        with serving.web(workers=2, debug=False) as server:
            for clients in CLIENTS:
                connections.close_all()  # forked clients must not share the parent's socket
                row = measure(
                    port=server.port,
                    pid=server.pid,
                    slug=project.slug,
                    sessions=sessions[:clients],
                    seconds=seconds,
                )
                rows.append({"tasks": size, **row})
        assert Rater.objects.filter(project=project, judged__gt=0).exists()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with own_database(DATABASE):
        rows = run(options.seconds)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            "{tasks:>8,} tasks {clients:>3} clients {per_second:8.1f} judgments/s"
            "  p50 {p50_ms:7.1f} ms  p95 {p95_ms:7.1f} ms"
            "  server {server_cpu_ms:5.1f} ms CPU each".format(**row)
        )


if __name__ == "__main__":
    main()
