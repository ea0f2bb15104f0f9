"""Training by real workers: killed, taken over, canceled, failing, two at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from annotator.celery import app
from annotator.jobs import base
from annotator.jobs.training import train
from annotator.models import RewardModel, Run, RunPoint, RunState
from annotator.services import devices, runs, training
from tests import serving
from tests.annotator import planted

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural, pytest.mark.slow]

# Slow on purpose: one pair per update, a checkpoint every few of them.
SLOW = {"batch_size": 1, "epochs": 10, "checkpoint_every": 50, "evaluate_every": 1000}
STALE_SECONDS = 12  # a little over two heartbeats, so that the test does not wait for long


def started(**options: Any) -> Run:
    run = training.start(
        project=planted.preferences(150),
        objective="bradley-terry",
        backbone="hashing",
        options=SLOW | options,
        by=None,
    )
    base.send(run)
    return run


@dataclass
class Worker:
    """A gpu worker as documented: one process, solo pool."""

    process: subprocess.Popen
    log: Path

    def kill(self) -> None:
        """SIGKILL to the worker alone: its child must notice by itself."""
        self.process.kill()
        self.process.wait()


@contextmanager
def worker(log: Path, name: str = "gpu") -> Iterator[Worker]:
    command = [sys.executable, "-m", "celery", "-A", "annotator", "worker", "-Q", "gpu"]
    command += ["--pool=solo", "--without-gossip", "--without-mingle", "-n", f"{name}@%h"]
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    env = serving.child_env(
        QUEUE_PREFIX=prefix, RUN_STALE_SECONDS=str(STALE_SECONDS), OMP_NUM_THREADS="1"
    )
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--loglevel=INFO"], cwd=serving.ROOT, env=env, stdout=output, stderr=output
        )
    try:
        yield Worker(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)  # at once, its task is given up
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(run: Run, seen: Callable[[Run], object], log: Path, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run.refresh_from_db()
        if seen(run):
            return
        time.sleep(0.1)
    raise TimeoutError(f"run is {run.state}: {run.error}\n{run.log}\n{log.read_text()}")


def training_processes(run: Run) -> list[int]:
    """Processes that train in the run's folder, from the process table."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"models.neural.train" in words and str(run.folder).encode() in words:
            found.append(int(entry.parent.name))
    return found


def weights(run: Run) -> bytes:
    return (run.folder / "artifact" / "model.safetensors").read_bytes()


def test_killed_worker_is_replaced_and_training_resumes_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    run, log = started(), tmp_path / "worker.log"
    with worker(log, "first") as first:
        wait_for(run, lambda run: "checkpoint step-100" in run.log, log)
        assert len(training_processes(run)) == 1
        first.kill()
    killed_at = time.monotonic()
    while training_processes(run):
        assert time.monotonic() - killed_at < 20, "the child outlives its worker"
        time.sleep(0.1)
    run.refresh_from_db()
    assert run.state == RunState.RUNNING, "nobody could say that it was killed"
    with worker(log, "second"):
        wait_for(run, lambda run: run.state in (RunState.DONE, RunState.FAILED), log)
    assert (run.state, run.error) == (RunState.DONE, "")
    assert run.attempt == 2
    assert run.resumed_from.startswith("step ")
    step = int(run.resumed_from.removeprefix("step ").replace(",", ""))
    assert 100 <= step < run.total
    assert f"resumed from {run.resumed_from}" in run.log
    assert "queued again" in run.log, "the log says that its worker was lost"
    assert RewardModel.objects.get().run == run
    assert not RunPoint.objects.filter(run=run, step__gt=run.total).exists()

    undisturbed = Run.objects.create(
        project=run.project, kind=run.kind, title=run.title, config=run.config
    )
    train(run_id=undisturbed.pk)
    undisturbed.refresh_from_db()
    assert undisturbed.state == RunState.DONE
    assert undisturbed.resumed_from == ""
    assert weights(undisturbed) == weights(run), "the same weights, as if nothing had happened"


def test_canceled_training_keeps_its_checkpoint_and_resumes(tmp_path: Path) -> None:
    run, log = started(), tmp_path / "worker.log"
    with worker(log):
        wait_for(run, lambda run: "checkpoint step-100" in run.log, log)
        runs.cancel(run=run, by=None)
        wait_for(run, lambda run: not run.is_active, log, 30)
        assert run.state == RunState.CANCELED
        assert not training_processes(run)
        assert list((run.folder / "checkpoints").glob("step-*"))
        assert not RewardModel.objects.exists()
        runs.resume(run=run, by=None)
        base.send(run)
        wait_for(run, lambda run: not run.is_active, log)
    assert (run.state, run.error) == (RunState.DONE, "")
    assert run.resumed_from
    assert run.result["reward_model"] == RewardModel.objects.get().number
    assert not (run.folder / "checkpoints").exists(), "several times the model, of no more use"


def test_failing_training_ends_with_advice_and_the_worker_lives(
    tmp_path: Path, settings: Any
) -> None:
    empty = tmp_path / "models" / "empty"
    empty.mkdir(parents=True)
    (empty / "config.json").write_text("{}")
    settings.MODEL_ROOTS = [tmp_path / "models"]
    bad = training.start(
        project=planted.preferences(60),
        objective="bradley-terry",
        backbone=f"hf:{empty}",
        options={},
        by=None,
    )
    good = started(epochs=1, checkpoint_every=0, evaluate_every=0)
    base.send(bad)
    log = tmp_path / "worker.log"
    with worker(log):
        wait_for(bad, lambda run: not run.is_active, log)
        wait_for(good, lambda run: not run.is_active, log)
    assert bad.state == RunState.FAILED
    assert "cannot be loaded" in bad.error
    assert "Check the id or path" in bad.advice
    assert [s["state"] for s in bad.stages][:2] == ["done", "failed"]
    assert good.state == RunState.DONE


def test_run_taken_over_by_another_is_let_go_of(tmp_path: Path) -> None:
    """A worker that was presumed dead stops its child and writes nothing more."""
    run, log = started(), tmp_path / "worker.log"
    with worker(log):
        wait_for(run, lambda run: "checkpoint step-100" in run.log, log)
        other = "11111111-1111-1111-1111-111111111111"
        Run.objects.filter(pk=run.pk).update(token=other, log="theirs", worker="another")
        deadline = time.monotonic() + 30
        while training_processes(run):
            assert time.monotonic() < deadline, "it goes on training another's run"
            time.sleep(0.1)
        time.sleep(1)
        run.refresh_from_db()
        assert (run.log, run.worker, str(run.token)) == ("theirs", "another", other)
        assert run.state == RunState.RUNNING
        assert not RewardModel.objects.exists()


def test_second_training_waits_for_the_device(tmp_path: Path) -> None:
    run, log = started(epochs=1, checkpoint_every=0, evaluate_every=0), tmp_path / "worker.log"

    def unexpected(other: str) -> None:
        raise AssertionError(f"the device is held by {other}")

    with worker(log):
        with devices.hold(holder="run 7", on_wait=unexpected):
            wait_for(run, lambda run: "waits for the device" in run.message, log)
            assert "run 7 holds it" in run.message
            assert run.state == RunState.RUNNING
            assert not training_processes(run)
        wait_for(run, lambda run: not run.is_active, log)
    assert (run.state, run.error) == (RunState.DONE, "")


def test_waiting_for_the_device_can_be_canceled(tmp_path: Path) -> None:
    run, log = started(), tmp_path / "worker.log"
    with worker(log), devices.hold(holder="run 7", on_wait=lambda other: None):
        wait_for(run, lambda run: "waits for the device" in run.message, log)
        runs.cancel(run=run, by=None)
        wait_for(run, lambda run: not run.is_active, log, 15)
    assert run.state == RunState.CANCELED


def test_device_is_free_again_after_kill_and_not_before_the_child_ends(
    tmp_path: Path, settings: Any
) -> None:
    """The child inherits the lock: nobody else trains while it still holds memory."""
    script = (
        "import os, subprocess, sys, django; django.setup()\n"
        "from annotator.services import devices\n"
        "with devices.hold(holder='run 7', on_wait=print) as locks:\n"
        "    child = subprocess.Popen(['sleep', '3'], pass_fds=locks, start_new_session=True)\n"
        "    print('held', flush=True)\n"
        "    import time; time.sleep(60)\n"
    )
    env = serving.child_env(DJANGO_SETTINGS_MODULE="annotator.settings")
    holder = subprocess.Popen(
        [sys.executable, "-c", script], cwd=serving.ROOT, env=env, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    waited: list[str] = []
    with devices.hold(holder="run 8", on_wait=waited.append):
        assert waited
        assert set(waited) == {"run 7"}
    connection.close()
