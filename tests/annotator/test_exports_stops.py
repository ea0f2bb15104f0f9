"""Builds that are canceled or killed at any stage: nothing half on offer, and an end after resume."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotator.jobs import exports as jobs
from annotator.models import DatasetVersion, Project, Run, RunState
from annotator.services import exports, runs
from tests import factories, serving
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import leftovers, rows_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    project = factories.project()
    people = raters(project, 1)
    for _ in range(3):
        judged_pair(project, [1], by=people)
    return project


def queued(project: Project) -> Run:
    return exports.start(project=project, format="trl-preference", options={}, by=None)


@pytest.mark.parametrize("stage", ["read", "health", "verify"])
def test_a_build_is_canceled_at_any_stage_and_ends_after_resume(
    project: Project, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, enter = queued(project), runs.Work.stage
    monkeypatch.setattr(exports, "CHECK_SECONDS", 0)

    def canceled_there(self: runs.Work, key: str, label: str) -> None:
        enter(self, key, label)
        if key == stage:
            runs.cancel(run=self.run, by=None)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Work, "stage", canceled_there)
        jobs.export(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.CANCELED
    assert leftovers(run) == []
    assert not DatasetVersion.objects.exists()
    runs.resume(run=run, by=None)
    jobs.export(run_id=run.pk)
    assert_whole(run)


def test_a_build_that_is_canceled_while_it_is_published_is_there_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, publish = queued(project), exports._publish

    def canceled_there(*args: Any) -> DatasetVersion:
        runs.cancel(run=run, by=None)
        return publish(*args)

    monkeypatch.setattr(exports, "_publish", canceled_there)
    jobs.export(run_id=run.pk)
    assert_whole(run)


@pytest.mark.parametrize("stage", ["read", "verify", "publish"])
def test_a_killed_build_offers_nothing_and_ends_after_it_is_picked_up(
    project: Project, stage: str
) -> None:
    run = queued(project)
    done = subprocess.run(
        [sys.executable, "-m", "tests.annotator.killed_build", str(run.pk), stage],
        cwd=serving.ROOT,
        env=serving.child_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert leftovers(run), "it was killed with files on the disk"
    assert not DatasetVersion.objects.exists()
    Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert [one.pk for one in runs.reap()] == [run.pk]
    jobs.export(run_id=run.pk)
    assert_whole(run)
    assert DatasetVersion.objects.get().run.attempt == 2


def assert_whole(run: Run) -> None:
    run.refresh_from_db()
    version = DatasetVersion.objects.get()
    assert (run.state, version.run_id, version.rows) == (RunState.DONE, run.pk, 3)
    assert leftovers(run) == [exports.FOLDER]
    assert len(rows_of(version)["train"]) == 3
