"""A worker that is killed in the middle of a judge's run, and the one that goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotator.celery import app
from annotator.jobs import base
from annotator.jobs.judging import judge as judge_job
from annotator.models import (
    Endpoint,
    JudgeOutcome,
    Judgment,
    LlmCall,
    Preference,
    Rater,
    Run,
    RunState,
)
from annotator.services import endpoints, judges, judging, runs
from tests import factories, serving
from tests.simulated import simulated

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

PAIRS = 60
WORK = (
    "import sys, django; django.setup()\n"
    "from annotator.jobs.judging import judge\n"
    "judge(run_id=int(sys.argv[1]))\n"
)


def wait_until_some_are_judged(worker: subprocess.Popen, run: Run) -> None:
    deadline = time.monotonic() + 120
    while JudgeOutcome.objects.count() < PAIRS // 4:
        run.refresh_from_db()
        assert worker.poll() is None, (run.state, run.error, run.log)
        assert time.monotonic() < deadline, "it does not get on"
        time.sleep(0.02)


def test_killed_worker_is_resumed_and_nothing_is_lost_doubled_or_paid_twice(settings: Any) -> None:
    project = factories.project("letters")
    for _ in range(PAIRS):
        factories.pairwise_task(project)
    with simulated(latency_ms=60) as server:
        settings.LLM_HOSTS = [server.host]
        endpoint = endpoints.add(
            project=project, name="sim", base_url=server.url, by=None, concurrency=4
        )
        judge = judges.add(
            project=project, name="sim", kind="llm", options={"models": ["sim"]},
            endpoint=endpoint, by=None,
        )  # fmt: skip
        run = judging.start(project=project, judge=judge, by=None)
        env = serving.child_env(
            DJANGO_SETTINGS_MODULE="annotator.settings",
            LLM_HOSTS=server.host,
            QUEUE_PREFIX=app.conf.broker_transport_options["global_keyprefix"],
            OMP_NUM_THREADS="1",
        )
        worker = subprocess.Popen(
            [sys.executable, "-c", WORK, str(run.pk)], cwd=serving.ROOT, env=env
        )
        try:
            wait_until_some_are_judged(worker, run)
        finally:
            worker.kill()
            worker.wait()
        run.refresh_from_db()
        assert run.state == RunState.RUNNING, "nobody could say that it was killed"
        before = JudgeOutcome.objects.count()
        assert before < PAIRS

        Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        assert runs.reap() == [run]
        server.turn(latency_ms=0)
        # The dead worker's places come back when their lease ends: here there are more at once.
        Endpoint.objects.filter(pk=endpoint.pk).update(concurrency=8)
        judge_job(run_id=run.pk)
        run.refresh_from_db()
        stats = server.stats()
    assert (run.state, run.error, run.attempt) == (RunState.DONE, "", 2)
    assert run.resumed_from.startswith("task ")
    assert JudgeOutcome.objects.filter(error="").count() == PAIRS
    assert Judgment.objects.count() == Preference.objects.count() == PAIRS
    assert Rater.objects.get(pk=judge.rater_id).judged == PAIRS
    assert stats["charged_per_key_max"] == 1
    assert LlmCall.objects.count() == 2 * PAIRS
    # What the dead worker used is counted too, though it had no time to write it down.
    used = run.counters
    assert (used["judged"], used["failed"], used["calls"]) == (PAIRS, 0, 2 * PAIRS)
    assert used["tokens_in"] == sum(LlmCall.objects.values_list("tokens_in", flat=True))
    assert (run.progress, run.total) == (PAIRS, PAIRS)


def test_every_kind_of_run_has_a_task_that_workers_know() -> None:
    assert set(base.TASKS) == set(Run.Kind)
    script = (
        "from annotator.celery import app\n"
        "app.loader.init_worker()\n"
        "app.finalize()\n"
        "print(*app.tasks)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=serving.ROOT,
        env=serving.child_env(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert set(base.TASKS.values()) <= set(told.stdout.split())


def test_judges_wait_in_the_queue_of_their_kind() -> None:
    project = factories.project()
    asking = factories.judge(project)
    assert judges.queue_of(asking) == "llm"
    assert judges.queue_of(factories.judge(project, kind="yes-no")) == "gpu"
    assert judges.queue_of(factories.judge(project, kind="program")) == "default"
    run = judging.start(project=project, judge=factories.judge(project, kind="program"), by=None)
    assert base.routing(run) == {"queue": "default"}
