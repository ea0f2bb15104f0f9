"""Killed with -9 and continued, training ends where it would have ended undisturbed."""

from __future__ import annotations

import os
import signal

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file

from models.neural.process import Events, Stop
from models.neural.train import work
from models.supervision import EXIT_DONE
from models.training import read_events, read_metrics, supervise
from tests.models import tiny
from tests.models.planted import ATTRIBUTES, make_graded, make_world, write_run

pytestmark = pytest.mark.neural

WORLD, GRADED = make_world(200, seed=4), make_graded(200, seed=4)
RUNS = {
    "hashing": {"options": {"epochs": 3, "batch_size": 1, "buckets_log2": 12}},
    # Dropout is on: the random generator, too, must continue where it was.
    "bert": {"options": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "dropout": True}},
    # Killed where the second phase begins: that checkpoint is also what is extrapolated from.
    "phases": {
        "objective": "helpsteer2",
        "attributes": ATTRIBUTES,
        "options": {"epochs": 1, "batch_size": 10, "buckets_log2": 12},
    },
    "qwen": {"options": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3}},
}


@pytest.fixture
def prepare(tmp_path):
    def prepare(name, kind):
        more = {}
        if kind in tiny.FAMILIES:
            base = tmp_path / "base"
            more["backbone"] = f"hf:{base if base.exists() else tiny.FAMILIES[kind](base)}"
        pairs = (GRADED if kind == "phases" else WORLD).pairs
        split = {"train": pairs[:120], "validation": pairs[120:180], "test": pairs[180:]}
        write_run(tmp_path / name, **split, **RUNS[kind], **more, evaluate_every=7)
        return tmp_path / name

    return prepare


@pytest.mark.parametrize("kind", RUNS)
def test_a_killed_run_continues_to_the_same_weights(prepare, kind):
    whole, broken = prepare("whole", kind), prepare("broken", kind)
    torch.set_num_threads(1)
    assert work(whole, emit=Events(None), stop=Stop()) == EXIT_DONE

    pid, checkpoints = [], []

    def kill(event):
        if event["event"] == "started":
            pid.append(event["pid"])
        if event["event"] == "checkpoint":
            checkpoints.append(event["step"])
            if len(checkpoints) == 2:
                os.kill(pid[0], signal.SIGKILL)

    killed = supervise(
        broken, on_event=kill, should_stop=lambda: False, environ={"OMP_NUM_THREADS": "1"}
    )
    assert killed.outcome == "failed"
    assert not (broken / "artifact").exists()
    with (broken / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "st')  # as a kill may leave it
    assert work(broken, emit=Events(None), stop=Stop()) == EXIT_DONE

    resumed = [e["step"] for e in read_events(broken) if e["event"] == "resumed"]
    assert len(resumed) == 1
    assert (12 if kind == "phases" else 14) <= resumed[0] < read_metrics(whole)["steps"]
    first = load_file(whole / "artifact" / "model.safetensors")
    second = load_file(broken / "artifact" / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    same = ("accuracy", "interval", "loss", "steps", "kept", "fingerprint")
    a, b = read_metrics(whole), read_metrics(broken)
    assert {k: a[k] for k in same} == {k: b[k] for k in same}
    measured = [
        {e["step"]: e["loss"] for e in read_events(run) if e["event"] == "evaluate"}
        for run in (whole, broken)
    ]
    assert measured[0] == measured[1]


class StopAfter(Stop):
    """Asked to stop once it has been looked at so many times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def __bool__(self):
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [0, 2, 4, 11, 17, 18, 19, 40, 340])
def test_stopped_anywhere_it_continues_to_the_same_weights(prepare, looks):
    whole, broken = prepare("whole", "hashing"), prepare("broken", "hashing")
    assert work(whole, emit=Events(None), stop=Stop()) == EXIT_DONE
    attempts = 0
    while work(broken, emit=Events(None), stop=StopAfter(looks + 50 * attempts)) != EXIT_DONE:
        attempts += 1
    assert attempts >= 1
    first = load_file(whole / "artifact" / "model.safetensors")["weight"]
    assert torch.equal(first, load_file(broken / "artifact" / "model.safetensors")["weight"])
    losses = [
        {e["step"]: e["loss"] for e in read_events(run) if e["event"] == "evaluate"}
        for run in (whole, broken)
    ]
    assert losses[0] == losses[1]


def test_a_damaged_checkpoint_is_passed_over(prepare):
    run = prepare("run", "hashing")
    assert work(run, emit=Events(None), stop=Stop()) == EXIT_DONE
    weights = load_file(run / "artifact" / "model.safetensors")["weight"]
    (run / "metrics.json").unlink()
    steps = sorted(int(p.name[5:]) for p in (run / "checkpoints").iterdir())
    assert len(steps) in (2, 3)
    (run / "checkpoints" / f"step-{steps[-1]}" / "state.pt").write_bytes(b"PK\x03\x04 torn")
    assert work(run, emit=Events(None), stop=Stop()) == EXIT_DONE
    events = read_events(run)
    assert any("cannot be read" in e.get("message", "") for e in events)
    assert [e["step"] for e in events if e["event"] == "resumed"] == [steps[-2]]
    assert torch.equal(weights, load_file(run / "artifact" / "model.safetensors")["weight"])
