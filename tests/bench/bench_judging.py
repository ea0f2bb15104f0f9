"""A judge's run against the simulated server: what bounds it, what it costs, what others feel.

    python -m tests.bench.bench_judging [--pairs 10000] [--latency 50] [--json]

Every pair is asked in both orders. Server, worker and web are processes of their own on the same
cores; the client of the web process is this one. ``share`` is calls per second over what the
allowed concurrency and the latency make possible. CPU is what the worker used per call, memory
its peak resident size up to a quarter of the pairs and up to the last of them. Submits are one every quarter of a
second, before the run and while it lasts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Final

import psutil

from tests.bench.bench_queue import FILL
from tests.bench.database import own_database

DATABASE: Final = "bench_judging"
PAIRS: Final = 10_000
LATENCY_MS: Final = 50.0
CONCURRENCIES: Final = (8, 16, 32)
PAUSE: Final = 0.25  # seconds between two submits of the probe
IDLE_SUBMITS: Final = 20
MODEL: Final = "sim"


def serve(port: int, latency_ms: float) -> None:
    """The simulated server, until it is told to end."""
    from rubrics.simulated.app import SimulatedApp
    from rubrics.simulated.dials import Dials
    from rubrics.simulated.serving import serve as run_server

    app = SimulatedApp({MODEL: Dials(latency_ms=latency_ms)}, known={}, seed=0, api_key="")
    run_server(app, host="127.0.0.1", port=port)


def work(run_id: int) -> None:
    """A worker's share: the run, in this process."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
    django.setup()
    from annotator.jobs.judging import judge

    before = time.process_time()  # what is imported is not of the run
    judge(run_id=run_id)
    print(json.dumps({"cpu": time.process_time() - before}))


def queued(name: str, *, pairs: int, concurrency: int, url: str) -> Any:
    """A project of its own, so that no cache helps, and a run over all of it."""
    from django.db import connection

    from annotator.models import Project, ProjectSettings
    from annotator.services import endpoints, judges, judging

    settings = ProjectSettings(overlap=5, gold_rate=0).model_dump(mode="json")
    project = Project.objects.create(slug=name, name=name, settings=settings)
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"project": project.pk, "tasks": pairs, "overlap": 5})
        cursor.execute("ANALYZE annotator_prompt, annotator_response, annotator_task")
    endpoint = endpoints.add(
        project=project, name="sim", base_url=url, by=None, concurrency=concurrency
    )
    judge = judges.add(
        project=project, name="sim", kind="llm", options={"models": [MODEL]}, endpoint=endpoint,
        by=None,
    )  # fmt: skip
    return judging.start(project=project, judge=judge, by=None)


class Probe:
    """One person who judges now and then; ``latencies`` in milliseconds."""

    def __init__(self, port: int, project: Any) -> None:
        from annotator.models import Membership, Role, User
        from tests.serving import Annotator, session_cookie

        person = User.objects.create_user(
            email=f"{project.slug}@example.org", password="correct horse battery"
        )
        Membership.objects.create(project=project, user=person, role=Role.ANNOTATOR)
        self._desk = Annotator(port=port, slug=project.slug, session=session_cookie(person))
        self._task = self._desk.open_desk()
        self.latencies: list[float] = []

    def submit(self) -> None:
        assert self._task is not None
        began = time.perf_counter()
        self._task = self._desk.submit(self._task, "a1")
        self.latencies.append(1000 * (time.perf_counter() - began))

    def take(self) -> tuple[float, float]:
        """Median and 95th percentile since the last time."""
        known, self.latencies = self.latencies, []
        cuts = statistics.quantiles(known, n=20)
        return statistics.median(known), cuts[-1]


def measure(run: Any, probe: Probe, *, concurrency: int, latency_ms: float) -> dict[str, Any]:
    for _ in range(IDLE_SUBMITS):
        probe.submit()
        time.sleep(PAUSE / 5)
    idle = probe.take()
    command = [sys.executable, "-m", "tests.bench.bench_judging", "--work", str(run.pk)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process = psutil.Process(child.pid)
    resident: dict[str, float] = {"quarter": 0, "end": 0}
    while child.poll() is None:
        run.refresh_from_db()
        try:
            now = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            break
        is_judging = any(one["key"] == "judge" and one["state"] == "running" for one in run.stages)
        if is_judging:  # the report that follows is another thing
            resident["end"] = max(resident["end"], now)
            if run.total and run.progress <= run.total / 4:
                resident["quarter"] = max(resident["quarter"], now)
        probe.submit()
        time.sleep(PAUSE)
    assert child.stdout is not None
    used = json.loads(child.stdout.read().strip().splitlines()[-1])
    run.refresh_from_db()
    busy = probe.take()
    stage = next(stage for stage in run.stages if stage["key"] == "judge")
    rate = run.counters["calls"] / stage["seconds"]
    return {
        "concurrency": concurrency,
        "pairs": run.counters["judged"],
        "calls": run.counters["calls"],
        "seconds": stage["seconds"],
        "calls_per_second": rate,
        "share": rate * latency_ms / 1000 / concurrency,
        "cpu_ms_per_call": 1000 * used["cpu"] / run.counters["calls"],
        "mb_at_quarter": resident["quarter"],
        "mb_at_end": resident["end"],
        "submit_p50_idle": idle[0],
        "submit_p50": busy[0],
        "submit_p95_idle": idle[1],
        "submit_p95": busy[1],
        "load": os.getloadavg()[0],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*, pairs: int, latency_ms: float, concurrencies: list[int]) -> list[dict[str, Any]]:
    port = free_port()
    os.environ["LLM_HOSTS"] = f"127.0.0.1:{port}"  # before Django reads its settings
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve, args=(port, latency_ms), daemon=True)
    server.start()
    rows = []
    try:
        with own_database(DATABASE):
            from tests.serving import web

            with web(workers=2) as site:
                for concurrency in concurrencies:
                    url = f"http://127.0.0.1:{port}/v1"
                    name = f"judging-{concurrency}"
                    one = queued(name, pairs=pairs, concurrency=concurrency, url=url)
                    probe = Probe(site.port, one.project)
                    rows.append(measure(one, probe, concurrency=concurrency, latency_ms=latency_ms))
    finally:
        server.terminate()
        server.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--latency", type=float, default=LATENCY_MS, help="milliseconds")
    parser.add_argument("--concurrency", type=int, nargs="*", default=CONCURRENCIES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    rows = run(
        pairs=options.pairs, latency_ms=options.latency, concurrencies=list(options.concurrency)
    )
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            "{concurrency:>3} at once {calls:>7,} calls {calls_per_second:7.1f} calls/s"
            " {share:6.1%} of what is allowed  {cpu_ms_per_call:.2f} ms CPU a call"
            "  {mb_at_quarter:.0f} MB at 1/4, {mb_at_end:.0f} MB at the end"
            "  submit {submit_p50_idle:.0f} -> {submit_p50:.0f} ms".format(**row)
        )


if __name__ == "__main__":
    main()
