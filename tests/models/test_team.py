"""Several real processes, started by accelerate launch, train what one process does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from models.launching import Launch, exit_code, launch_of
from models.neural.batches import deal
from models.neural.process import Events, Stop
from models.neural.train import explain, work
from models.supervision import EXIT_DONE, EXIT_STOPPED
from models.training import TrainingConfig, read_events, read_metrics, supervise
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = [pytest.mark.neural, pytest.mark.slow]

PAIRS = make_world(130, seed=4).pairs
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# 57 pairs in batches of 8: the last one of an epoch has a single pair, and one process nothing.
OPTIONS = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 64}
RUNS = {
    "whole": ("qwen", Launch(2, is_sharded=False), {"tokens_per_forward": 150}),
    "shares": ("bert", Launch(2), {"tokens_per_forward": 150}),
}


@pytest.fixture
def prepare(tmp_path):
    def prepare(name, family, **options):
        base = tmp_path / "base"
        model = base if base.exists() else tiny.FAMILIES[family](base)
        write_run(
            tmp_path / name,
            train=PAIRS[:57],
            validation=PAIRS[57:110],
            test=PAIRS[110:],
            backbone=f"hf:{model}",
            options=OPTIONS | options,
            evaluate_every=3,
        )
        return tmp_path / name

    return prepare


def alone(folder):
    """Weights of the same training by one process."""
    torch.set_num_threads(1)
    assert work(folder, emit=Events(None), stop=Stop()) == EXIT_DONE, read_events(folder)[-1]
    return weights(folder)


def weights(folder):
    return load_file(folder / "artifact" / "model.safetensors")


def together(folder, launch, *, on_event=lambda event: None, should_stop=lambda: False, **environ):
    return supervise(
        folder,
        on_event=on_event,
        should_stop=should_stop,
        poll=0.05,
        environ=ONE_THREAD | environ,
        launch=launch,
    )


def assert_close(found, expected, *, atol=1e-5):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("kind", RUNS)
def test_two_processes_learn_what_one_does(prepare, kind):
    family, launch, options = RUNS[kind]
    expected = alone(prepare("one", family, **options))
    folder, told = prepare("two", family, **options), []
    result = together(folder, launch, on_event=told.append)
    assert result.outcome == "done", (result, (folder / "stderr.log").read_text()[-3000:])
    assert_close(weights(folder), expected)
    before = load_file(folder.parent / "base" / "model.safetensors")
    same_shape = [n for n, v in before.items() if n in expected and v.shape == expected[n].shape]
    assert max((before[n] - expected[n]).abs().max() for n in same_shape) > 1e-3, "it has learned"
    AutoModelForSequenceClassification.from_pretrained(folder / "artifact")

    one, two = read_metrics(folder.parent / "one"), read_metrics(folder)
    same = ("steps", "kept", "fingerprint", "train_pairs", "test_pairs", "texts")
    assert {name: one[name] for name in same} == {name: two[name] for name in same}
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert read_events(folder) == told, "only one of them writes, and every line once"
    assert [e["step"] for e in told if e["event"] == "evaluate"] == [3, 6, 8]
    devices = next(e["versions"]["devices"] for e in told if e["event"] == "started")
    assert devices.startswith("2, each with ")
    assert ("share" in devices) == launch.is_sharded


def test_the_end_of_one_ends_all_in_words_and_one_process_goes_on(prepare):
    expected = alone(prepare("one", "bert"))
    folder, started, saved = prepare("two", "bert"), [], []

    def kill(event):
        if event["event"] == "started":
            started.append(event["pid"])
        if event["event"] == "checkpoint":
            saved.append(event["step"])
            if len(saved) == 1:
                os.kill(process(started[0], 1), signal.SIGKILL)

    result = together(folder, Launch(2), on_event=kill)
    assert (result.outcome, result.metrics) == ("failed", None)
    assert result.kind in ("crashed", "out-of-memory")
    assert "process" in result.reason
    assert "was lost" in result.reason or "was killed" in result.reason
    assert "emory" in result.advice or "emory" in result.reason
    assert not psutil.pid_exists(started[0])
    assert not (folder / "artifact").exists()

    assert_close(alone(folder), expected)
    resumed = [e["step"] for e in read_events(folder) if e["event"] == "resumed"]
    assert resumed[0] in (3, 6)


def process(first, rank):
    """The process id of a rank, by that of the first one."""
    others = psutil.Process(first).parent().children()
    return next(p.pid for p in others if p.environ().get("RANK") == str(rank))


def test_asked_to_stop_all_of_them_save_once_and_go_on_to_the_same_weights(prepare):
    adapters = {"lora_rank": 4, "gradient_checkpointing": True}
    expected = alone(prepare("one", "llama", **adapters))
    folder, launch, steps = prepare("two", "llama", **adapters), Launch(2), []
    result = together(
        folder,
        launch,
        on_event=lambda e: e["event"] == "step" and steps.append(e["step"]),
        should_stop=lambda: bool(steps),
    )
    assert result.outcome == "stopped", (result, (folder / "stderr.log").read_text()[-3000:])
    told = read_events(folder)
    assert told[-1] == {"event": "stopped"}
    saved = [e["step"] for e in told if e["event"] == "checkpoint"]
    assert saved
    if saved[-1] == 8:
        pytest.fail("it had ended before it heard that it should stop")

    result = together(folder, launch)
    assert result.outcome == "done", result
    assert_close(weights(folder), expected)
    resumed = [e["step"] for e in read_events(folder) if e["event"] == "resumed"]
    assert resumed == [saved[-1]]


class Limited(Launch):
    """Processes one of which runs out of memory."""

    def command(self, folder: Path) -> list[str]:
        own = {"models.neural.train": "tests.models.limited_train"}
        return [own.get(word, word) for word in super().command(folder)]


class StopLater(Events):
    """Asks for a stop at the first checkpoint."""

    def __init__(self, stop):
        super().__init__(None)
        self.asked = stop

    def __call__(self, event, **fields):
        super().__call__(event, **fields)
        if event == "checkpoint":
            self.asked.event.set()


def test_memory_that_runs_out_in_one_process_is_halved_for_all(prepare):
    """What one process began goes on with two, of which one can read less."""
    expected = alone(prepare("one", "bert"))
    folder, told, stop = prepare("two", "bert"), [], Stop()
    assert work(folder, emit=StopLater(stop), stop=stop) == EXIT_STOPPED
    result = together(folder, Limited(2), on_event=told.append, TOUCHSTONE_TEST_LIMIT="1:130")
    assert result.outcome == "done", (result, (folder / "stderr.log").read_text()[-3000:])
    assert_close(weights(folder), expected, atol=2e-5)
    names = [event["event"] for event in told]
    assert "failed" not in names
    assert next(e["step"] for e in told if e["event"] == "resumed") >= 3
    again = names.count("again")
    assert 1 <= again <= 3
    assert names.count("started") == again + 1
    assert json.loads((folder / "room.json").read_bytes())["tokens"] <= 130


def test_memory_that_never_suffices_ends_all_with_what_to_do(prepare):
    folder = prepare("two", "bert", tokens_per_forward=64, gradient_checkpointing=True)
    result = together(folder, Limited(2), TOUCHSTONE_TEST_LIMIT="1:20")
    assert (result.outcome, result.kind) == ("failed", "out-of-memory"), result
    assert "longest text" in result.advice


@given(
    tokens=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    hands=st.integers(1, 9),
)
def test_a_batch_is_dealt_whole_and_evenly(tokens, hands):
    sizes = np.array(tokens)
    shares = deal(sizes, hands)
    assert len(shares) == hands
    assert sorted(np.concatenate(shares)) == list(range(len(tokens)))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    loads = [int(sizes[share].sum()) for share in shares]
    assert max(loads) - min(loads) <= max(tokens)


def test_several_devices_train_a_transformer_only():
    def launch(there, **config):
        return launch_of(TrainingConfig(**config), devices=there)

    model = {"backbone": "hf:tiny"}
    assert launch(8, **model) is None, "one device is what a run takes that does not ask for more"
    assert launch(8, **model, devices=2) == Launch(2, is_sharded=True)
    assert launch(8, **model, devices=0, sharding="none") == Launch(8, is_sharded=False)
    assert launch(2, **model, devices=4) == Launch(2), "as many as there are"
    assert launch(1, **model, devices=0) is None
    assert launch(8, backbone="hashing", devices=0) is None
    assert launch(8, **model, devices=0, members=3) is None


def test_how_many_devices_changes_no_fingerprint_and_one_is_not_written_down():
    plain, many = TrainingConfig(backbone="hf:x"), TrainingConfig(backbone="hf:x", devices=0)
    assert plain.fingerprint("data") == many.fingerprint("data")
    assert "devices" not in plain.model_dump()
    assert many.model_dump()["devices"] == 0


def test_what_the_launcher_and_torch_say_of_a_lost_process_is_understood():
    table = "Root Cause (first observed failure):\n  rank : 1\n  exitcode  : -9 (pid: 7)\n====\n"
    assert exit_code(table) == -9
    assert exit_code("Traceback") is None
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    kind, reason, advice = explain(lost)
    assert kind == "crashed"
    assert "was lost" in reason
    assert "last checkpoint" in advice
