"""A planted truth is learned: the model, its honest baseline and the oracle's ceiling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import gateway
from models.neural.process import Events, Stop
from models.neural.train import work
from models.pairs import Pair
from models.supervision import EXIT_DONE
from models.training import read_metrics
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

TRAIN, VALIDATION, TEST = (make_world(n, seed=n) for n in (1500, 100, 400))
SOME = TRAIN.pairs[:600]  # enough for a tiny transformer to learn single words


def learn(folder, train=TRAIN.pairs, **config):
    write_run(folder, train=train, validation=VALIDATION.pairs, test=TEST.pairs, **config)
    assert work(folder, emit=Events(None), stop=Stop()) == EXIT_DONE
    return read_metrics(folder)


def report(metrics):
    longer = metrics["baselines"]["longer_wins"]
    return (
        f"model {metrics['accuracy']:.3f} {metrics['interval']}, longer wins "
        f"{longer['accuracy']:.3f}, oracle {TEST.oracle:.3f}, n={metrics['test_pairs']}"
    )


def test_hashing_learns_a_planted_preference_close_to_its_ceiling(tmp_path):
    metrics = learn(tmp_path)
    told = report(metrics)
    assert metrics["accuracy"] > TEST.oracle - 0.06, told
    assert metrics["accuracy"] > metrics["baselines"]["longer_wins"]["accuracy"] + 0.2, told
    assert metrics["interval"][0] < metrics["accuracy"] < metrics["interval"][1], told


def test_hashing_sees_the_prompt(tmp_path):
    """The same two answers, the better one decided by what was asked."""
    learn(tmp_path)
    model = gateway.load_reward_model(tmp_path / "artifact")
    ask = {t: [{"role": "user", "content": f"tell me about {t}."}] for t in ("whales", "bread")}
    rows = [(ask[asked], f"so much for {named}") for asked in ask for named in ask]
    right_whales, wrong_whales, wrong_bread, right_bread = model.score(rows)
    assert right_whales > wrong_whales
    assert right_bread > wrong_bread


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_transformers_learn_a_planted_preference(tmp_path, family):
    """From random weights and 600 pairs: what single words say, not what the prompt asked."""
    base = tiny.FAMILIES[family](tmp_path / "base")
    options = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 16}
    metrics = learn(tmp_path / "run", SOME, backbone=f"hf:{base}", options=options)
    told = report(metrics)
    assert metrics["accuracy"] > TEST.oracle - 0.17, told
    assert metrics["accuracy"] > metrics["baselines"]["longer_wins"]["accuracy"] + 0.12, told


def test_weights_decide_between_contradicting_pairs(tmp_path):
    """Half of the pairs are turned round; weight zero takes their word away, weight one does not."""
    turned = [dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen) for p in TRAIN.pairs]
    silent = [dataclasses.replace(p, weight=0.0) for p in turned]
    clean = learn(tmp_path / "clean", train=[*TRAIN.pairs, *silent])
    mixed = learn(tmp_path / "mixed", train=[*TRAIN.pairs, *turned])
    assert clean["train_pairs"] == 1500
    assert clean["accuracy"] > TEST.oracle - 0.06, report(clean)
    assert mixed["accuracy"] < 0.65, report(mixed)


def test_soft_labels_are_learned_as_probabilities(tmp_path):
    """One answer wins three times in four: its margin comes to log 3."""
    pairs = [Pair([], "alpha", "beta", p=0.75, prompt_id=i) for i in range(400)]
    options = {"l2": 0, "center": 0, "learning_rate": 0.05}
    write_run(tmp_path, train=pairs, options=options)
    assert work(tmp_path, emit=Events(None), stop=Stop()) == EXIT_DONE
    scores = gateway.load_reward_model(tmp_path / "artifact").score([([], "alpha"), ([], "beta")])
    assert scores[0] - scores[1] == pytest.approx(np.log(3), abs=0.02)


def test_the_kept_weights_are_those_of_the_lowest_validation_loss(tmp_path):
    """A run long enough to overfit does not keep its last step."""
    rng = np.random.default_rng(0)
    noisy = [
        dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen) if rng.random() < 0.3 else p
        for p in TRAIN.pairs[:150]
    ]
    metrics = learn(tmp_path, train=noisy, options={"l2": 0, "epochs": 30, "learning_rate": 0.05})
    assert metrics["kept"]["why"] == "lowest validation loss"
    assert 0 < metrics["kept"]["step"] < metrics["steps"], metrics["kept"]
