"""Data that cannot be learned from and a machine that lacks something: said in words, survived.

Every run here is worked on by this very process, as a worker does: it lives to do the next one.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from annotator.errors import Invalid
from annotator.jobs.training import train
from annotator.models import Preference, Project, Response, RewardModel, Run, RunState
from annotator.services import devices, training
from tests.annotator import planted

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural, pytest.mark.slow]

LONG = "word " * 200_000
SMALL = {"batch_size": 8, "epochs": 2}


@pytest.fixture
def tiny_model(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("torch")
    from tests.models import tiny

    settings.MODEL_ROOTS = [tmp_path]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tiny.bert(tmp_path / "tiny")


def trained(project: Project, backbone: str = "hashing", **options: Any) -> Run:
    run = training.start(
        project=project,
        objective="bradley-terry",
        backbone=backbone,
        options=SMALL | options,
        by=None,
    )
    train(run_id=run.pk)
    run.refresh_from_db()
    assert devices.holder() == ""
    return run


def require_advice(run: Run, *, said: str, advice: str) -> None:
    assert run.state == RunState.FAILED
    assert said in run.error
    assert advice in run.advice
    assert "Traceback" not in run.error + run.advice
    assert not RewardModel.objects.filter(run=run).exists()


def require_next_run_ends(project: Project) -> None:
    good = trained(project)
    assert (good.state, good.error) == (RunState.DONE, "")


@pytest.mark.parametrize("kind", ["hashing", "transformer"])
def test_empty_texts_endless_ones_and_one_class_end_with_a_model(
    tiny_model: Path, kind: str
) -> None:
    project = planted.preferences(60)
    Preference.objects.filter(project=project).update(outcome=1)  # the first answer, always
    responses = list(Response.objects.filter(project=project).order_by("pk")[:8])
    for i, response in enumerate(responses):
        response.text = f"{LONG}{i}" if i % 2 else " " * i
    Response.objects.bulk_update(responses, ["text"])
    backbone, options = ("hashing", {}) if kind == "hashing" else (f"hf:{tiny_model}", {})
    run = trained(project, backbone, **options)
    assert (run.state, run.error) == (RunState.DONE, "")
    metrics = RewardModel.objects.get(run=run).metrics
    assert metrics["loss"] < 5
    cut = [count for notes in metrics["texts"].values() for count in notes.values()]
    assert sum(cut) >= 1, "what was trimmed is counted"


def test_three_pairs_are_refused_with_what_is_missing() -> None:
    with pytest.raises(Invalid, match="preferences to train on") as refused:
        trained(planted.preferences(3))
    assert "10" in refused.value.message
    assert not Run.objects.exists()


def test_a_loss_that_is_no_number_fails_the_run_and_the_next_one_ends(tiny_model: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny_model / "model.safetensors"
    broken = {name: weight * float("nan") for name, weight in load_file(path).items()}
    save_file(broken, path, metadata={"format": "pt"})
    project = planted.preferences(60)
    run = trained(project, f"hf:{tiny_model}")
    require_advice(run, said="no longer a number", advice="Lower the learning rate")
    require_next_run_ends(project)


def test_a_full_disk_fails_the_run_and_the_next_one_ends() -> None:
    project = planted.preferences(60)

    def fill(child: psutil.Process) -> None:
        child.rlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # the encoded pairs are larger

    with once_training_starts(fill):
        run = trained(project)
    require_advice(run, said="The disk is full", advice="Free some space")
    require_next_run_ends(project)


def test_memory_that_runs_out_fails_the_run_and_the_next_one_ends() -> None:
    project = planted.preferences(60)

    def starve(child: psutil.Process) -> None:
        room = child.memory_info().vms + 10_000_000  # the weights alone take 67 MB
        child.rlimit(resource.RLIMIT_AS, (room, room))

    with once_training_starts(starve):
        run = trained(project, buckets_log2=24)
    require_advice(run, said="Memory ran out", advice="Lower the batch size")
    require_next_run_ends(project)


@contextmanager
def once_training_starts(act: Callable[[psutil.Process], None]) -> Iterator[None]:
    """``act`` once on the training process that this one starts, when it says that it has started."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            for child in psutil.Process().children():
                try:
                    words = child.cmdline()
                except psutil.NoSuchProcess:  # gone, or a zombie that some other test left
                    continue
                events = Path(words[-1]) / "events.jsonl" if words else Path()
                if "models.neural.train" in words and events.exists() and events.stat().st_size:
                    act(child)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
