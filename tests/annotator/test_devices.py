"""Devices of a worker: which ones it has, who holds them, one training on several."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from annotator.jobs.training import train
from annotator.models import RewardModel, Run, RunState
from annotator.services import devices, runs, training, workers
from tests.annotator import planted

LISTS = {
    "0,1": ["0", "1"],
    "3": ["3"],
    " 2 , 0 ,": ["2", "0"],
    "1,1": ["1"],
    "GPU-4f1c,GPU-77aa": ["GPU-4f1c", "GPU-77aa"],
    "": ["0"],
    ",": ["0"],
}


class Busy(Exception):
    """Somebody else holds the device."""


def busy(holder: str) -> None:
    raise Busy(holder)


@pytest.mark.parametrize("visible", LISTS)
def test_a_worker_has_the_devices_that_are_visible_to_it(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.names() == LISTS[visible]
    assert devices.device() == LISTS[visible][0]


def test_a_training_on_several_devices_holds_each_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def visible(names: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)

    visible("2,0,1")
    with devices.hold(holder="run 5", on_wait=busy, count=2) as held:
        assert len(held) == 2
        assert devices.holder() == "run 5"
        for taken in ("2", "0", "0,1"):
            visible(taken)
            with (
                pytest.raises(Busy, match="run 5"),
                devices.hold(holder="run 6", on_wait=busy, count=2),
            ):
                pass
        visible("1")
        assert devices.holder() == ""
        with devices.hold(holder="run 6", on_wait=busy):
            visible("2,0,1")
            assert devices.holder() == "run 5, run 6"
    assert devices.holder() == ""


def test_a_wait_for_the_second_device_that_ends_gives_the_first_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with devices.hold(holder="run 7", on_wait=busy):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with pytest.raises(Busy), devices.hold(holder="run 8", on_wait=busy, count=2):
            pass
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert devices.holder() == ""


def test_a_child_sees_no_more_devices_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,1")
    assert devices.shown(1) == {"CUDA_VISIBLE_DEVICES": "2"}
    assert devices.shown(2) == {"CUDA_VISIBLE_DEVICES": "2,0"}
    assert devices.shown(3) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.shown(1) == {}


def test_a_worker_tells_of_all_its_devices_and_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *--id=0,1*) ;; *) exit 6 ;; esac\n'
        'echo "NVIDIA H100 80GB HBM3, 1000, 81559"\necho "NVIDIA H100 80GB HBM3, 24, 81559"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    told = workers.device_here()
    assert told.name == "2 × NVIDIA H100 80GB HBM3"
    assert (told.used, told.total) == (1024 * 2**20, 2 * 81559 * 2**20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "NVIDIA" not in workers.device_here().name, "the tool knows no such device"


# One training on two devices: two processes, which without GPUs share the processor ---------------


@pytest.fixture
def backbone(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("torch")
    from tests.models import tiny

    settings.MODEL_ROOTS = [tmp_path]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return f"hf:{tiny.bert(tmp_path / 'tiny')}"


def started(backbone: str, **options: Any) -> Run:
    return training.start(
        project=planted.preferences(150),
        objective="bradley-terry",
        backbone=backbone,
        options={"epochs": 4, "batch_size": 8, "max_length": 32, "checkpoint_every": 5} | options,
        by=None,
    )


def lose_one(run: Run) -> None:
    """Kill the second process of a run once there is a checkpoint to go on from."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            if not list((run.folder / "checkpoints").glob("step-*")):
                continue
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.environ().get("RANK") == "1":
                        os.kill(process.pid, signal.SIGKILL)
                        return
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    train(run_id=run.pk)
    ended.set()
    thread.join()
    run.refresh_from_db()


@pytest.mark.slow
@pytest.mark.neural
@pytest.mark.django_db(transaction=True)
def test_a_lost_process_fails_the_run_in_words_and_resumed_it_ends(backbone: str) -> None:
    run = started(backbone, devices=2, epochs=8)
    lose_one(run)
    assert run.state == RunState.FAILED
    assert "process" in run.error
    assert "emory" in run.error + run.advice, "what to do about it"
    assert "devices 2, each with a share of the model" in run.log
    assert devices.holder() == ""
    assert not RewardModel.objects.exists()

    runs.resume(run=run, by=None)
    train(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, "")
    assert run.resumed_from.startswith("step ")
    assert RewardModel.objects.get().metrics["versions"]["device"] == "cpu"


@pytest.mark.slow
@pytest.mark.neural
@pytest.mark.django_db(transaction=True)
def test_more_devices_than_the_worker_has_are_as_many_as_it_has(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    run = started(backbone, devices=4, epochs=1)
    train(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, "")
    assert "4 devices were asked for; it goes on with 1" in run.log
