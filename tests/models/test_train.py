"""What the child does with good and bad folders, run in this process."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from models import gateway
from models.neural.process import Events, Stop
from models.neural.train import explain, work
from models.pairs import Pair, pairs_path, write_pairs
from models.supervision import EXIT_DONE, EXIT_FAILED
from models.training import read_events, read_metrics
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

WORLD = make_world(64, seed=9)
SMALL = {"buckets_log2": 12, "batch_size": 1}
FOREVER = SMALL | {"epochs": 1000}


def run(workdir):
    """Exit code and events."""
    told = io.BytesIO()
    code = work(workdir, emit=Events(told), stop=Stop(), lock_wait=0)
    return code, [json.loads(line) for line in told.getvalue().splitlines()]


def metrics_of(workdir):
    code, events = run(workdir)
    assert code == EXIT_DONE, events[-1]
    return read_metrics(workdir)


def failure_of(workdir):
    code, events = run(workdir)
    assert code == EXIT_FAILED
    assert events[-1]["event"] == "failed"
    return events[-1]


BAD = {
    "no training pairs": ([], {}, "0 training pairs"),
    "no weight": ([Pair([], "a", "b", weight=0)], {}, "1 training pairs, none of them usable"),
    "only ties": ([Pair([], "a", "b", p=0.5)], {"ties": "drop"}, "none of them usable"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_trained_fails_with_a_reason(tmp_path, case):
    pairs, options, reason = BAD[case]
    write_run(tmp_path, train=pairs, options=SMALL | options)
    failed = failure_of(tmp_path)
    assert failed["kind"] == "bad-data"
    assert reason in failed["reason"]
    assert failed["advice"]
    assert read_events(tmp_path)[-1] == failed


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    weights = tiny.bert(tmp_path / "broken") / "model.safetensors"
    broken = {name: tensor * float("nan") for name, tensor in load_file(weights).items()}
    save_file(broken, weights, metadata={"format": "pt"})
    write_run(tmp_path / "run", train=WORLD.pairs, backbone=f"hf:{weights.parent}")
    failed = failure_of(tmp_path / "run")
    assert failed["kind"] == "diverged"
    assert "At update 1" in failed["reason"]
    assert "learning rate" in failed["advice"]
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_one_pair_of_hostile_texts_trains(tmp_path):
    hostile = Pair([{"role": "\x00", "content": "\ud800"}], "\x00" * 9, "word " * 200_000)
    write_run(tmp_path, train=[hostile], test=[hostile], options=SMALL)
    metrics = metrics_of(tmp_path)
    assert (metrics["train_pairs"], metrics["test_pairs"]) == (1, 1)
    assert metrics["texts"]["train"] == {"answers_cut": 1}


HARD = {
    "empty texts": [Pair([], "", "word"), Pair([], "word", ""), Pair([], "", "")],
    "a text of 200,000 tokens": [
        Pair([{"role": "user", "content": "tea " * 200_000}], "word " * 200_000, "so"),
        Pair([], "so", "and " * 200_000),
        Pair([], "\x00" * 9, "\ud800"),
    ],
    "the same answers in every pair": [Pair([], "so", "and")] * 3,
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_three_hard_pairs_train_a_transformer_to_finite_scores(tmp_path, family, case):
    model = tiny.FAMILIES[family](tmp_path / "base")
    options = {"epochs": 2, "batch_size": 2, "max_length": 64}
    pairs = HARD[case]
    write_run(tmp_path / "run", train=pairs, test=pairs, backbone=f"hf:{model}", options=options)
    metrics = metrics_of(tmp_path / "run")
    assert (metrics["train_pairs"], metrics["steps"], metrics["test_pairs"]) == (3, 4, 3)
    assert metrics["loss"] < 5
    cut = metrics["texts"]["train"]
    assert bool(cut) == ("200,000" in case)
    scores = gateway.load_reward_model(tmp_path / "run" / "artifact").score(
        [(pair.prompt, side) for pair in pairs for side in pair.answers]
    )
    assert np.isfinite(scores).all()


def test_votes_for_one_side_only_train(tmp_path):
    """Every vote is for the first answer: nothing but that can be learned, and nothing breaks."""
    same = [Pair([], f"answer {i}", f"other {i}", p=1.0, prompt_id=i) for i in range(20)]
    write_run(tmp_path, train=same, test=same, options=SMALL)
    metrics = metrics_of(tmp_path)
    assert metrics["accuracy"] == 1.0
    assert np.isfinite(metrics["loss"])


def test_without_test_pairs_there_is_no_accuracy_to_show(tmp_path):
    write_run(tmp_path, train=WORLD.pairs[:3], options=SMALL)
    metrics = metrics_of(tmp_path)
    assert (metrics["accuracy"], metrics["interval"], metrics["test_pairs"]) == (None, None, 0)


def test_ties_are_left_out_of_accuracy_and_counted(tmp_path):
    ties = [Pair([], "a", "b", p=0.5, prompt_id=i) for i in range(3)]
    turned = [Pair(p.prompt, p.rejected, p.chosen, p=0.0) for p in WORLD.pairs[:20]]
    write_run(tmp_path, train=WORLD.pairs, test=[*ties, *turned], options=SMALL)
    metrics = metrics_of(tmp_path)
    assert (metrics["test_pairs"], metrics["test_ties"]) == (20, 3)
    assert metrics["accuracy"] > 0.8  # p = 0 says that the other one is better
    assert metrics["baselines"]["longer_wins"]["n"] == 20


@pytest.mark.parametrize("missing", ["config.json", "pairs-test.jsonl"])
def test_a_folder_that_is_not_prepared_is_refused(tmp_path, missing):
    write_run(tmp_path, train=WORLD.pairs, options=SMALL)
    (tmp_path / missing).unlink()
    failed = failure_of(tmp_path)
    assert failed["kind"] == "bad-data"
    assert missing in failed["reason"]


def test_a_bad_line_is_told_by_its_number(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=SMALL)
    with pairs_path(tmp_path, "train").open("ab") as file:
        file.write(b'{"prompt": [], "chosen": 1}\n')
    failed = failure_of(tmp_path)
    assert failed["kind"] == "bad-data"
    assert "pairs-train.jsonl, line 65: chosen must be text" in failed["reason"]


def test_a_model_that_does_not_exist_is_told_with_advice(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, backbone=f"hf:{tmp_path}/nowhere")
    failed = failure_of(tmp_path)
    assert failed["kind"] == "bad-backbone"
    assert "nowhere" in failed["reason"]
    assert "local folder" in failed["advice"]


def test_other_data_in_the_same_folder_starts_anew(tmp_path):
    write_run(tmp_path, train=WORLD.pairs[:20], options=SMALL)
    first = metrics_of(tmp_path)
    write_pairs(pairs_path(tmp_path, "train"), WORLD.pairs[:10])
    code, events = run(tmp_path)
    assert code == EXIT_DONE
    second = read_metrics(tmp_path)
    assert (first["train_pairs"], second["train_pairs"]) == (20, 10)
    assert first["fingerprint"] != second["fingerprint"]
    assert "resumed" not in {e["event"] for e in events}
    assert any("other data or options" in e.get("message", "") for e in events)


def test_the_time_limit_ends_training_with_a_model(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, test=WORLD.pairs, options=FOREVER, time_limit=0.5)
    metrics = metrics_of(tmp_path)
    assert metrics["ended"] == "time limit"
    assert 0 < metrics["steps"] < 64_000
    assert (tmp_path / "artifact" / "model.safetensors").exists()


def test_failures_are_told_by_their_cause():
    full = OSError(28, "No space left on device")
    hidden = RuntimeError("unexpected pos")
    hidden.__context__ = full
    assert explain(full)[0] == explain(hidden)[0] == "disk-full"
    assert explain(torch.OutOfMemoryError("CUDA out of memory."))[0] == "out-of-memory"
    assert explain(RuntimeError("DefaultCPUAllocator: not enough memory"))[0] == "out-of-memory"
    assert explain(ZeroDivisionError("by zero"))[:2] == ("error", "ZeroDivisionError: by zero")
