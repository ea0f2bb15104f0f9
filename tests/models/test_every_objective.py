"""Every objective on every kind of backbone: it learns, it is saved whole, it survives a kill."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models.gateway import load_reward_model
from models.neural.evaluate import outputs
from models.neural.loop import Trainer
from models.neural.process import Events, Stop, Stopped
from models.neural.store import pack
from models.objectives import OBJECTIVES
from models.training import TrainingConfig
from tests.models import tiny
from tests.models.planted import ATTRIBUTES, make_graded, make_rankings, write_run

pytestmark = pytest.mark.neural

TRAIN, VALIDATION, TEST = (make_graded(n, seed=n) for n in (400, 150, 200))
RANKINGS = make_rankings(50, seed=1)
CONVERSATIONS = [(pair.prompt, pair.chosen) for pair in TEST.pairs[:9]]
BACKBONES = {
    "hashing": {"epochs": 4, "buckets_log2": 10, "batch_size": 8, "learning_rate": 0.05},
    "bert": {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3},
}
OPTIONS = {
    "regression": {"score": "quality, length=0"},
    "helpsteer2": {"score": "quality", "second_rate": 1.0},
    "gpm": {"references": 50},
}
CPU = torch.device("cpu")


class StopAfter(Stop):
    """Asked to stop once it has been looked at so many times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def __bool__(self):
        self.looks -= 1
        return self.looks < 0


def trainer_of(folder, stop=None):
    config = TrainingConfig.read(folder)
    return Trainer(
        folder, config, device=CPU, emit=Events(None), stop=stop if stop is not None else Stop()
    )


def prepare(folder, objective, backbone):
    options = BACKBONES[backbone] | OPTIONS.get(objective, {})
    name = backbone
    if backbone in tiny.FAMILIES:
        base = folder.parent / "base"
        name = f"hf:{base if base.exists() else tiny.FAMILIES[backbone](base)}"
    write_run(
        folder,
        train=TRAIN.pairs,
        validation=VALIDATION.pairs,
        test=TEST.pairs,
        rankings=RANKINGS,
        attributes=ATTRIBUTES,
        objective=objective,
        backbone=name,
        options=options,
        evaluate_every=13,
    )
    return folder


@pytest.fixture(scope="module", params=OBJECTIVES)
def objective(request):
    return request.param


@pytest.fixture(scope="module", params=BACKBONES)
def trained(request, objective, tmp_path_factory):
    """A trained run: its folder, weights before the first update, trainer and metrics."""
    torch.set_num_threads(1)
    run = prepare(tmp_path_factory.mktemp(objective) / "run", objective, request.param)
    fresh = trainer_of(run)
    fresh.load()
    fresh.stores = fresh.encode()
    fresh.select()
    before = {k: v.clone() for k, v in fresh.backbone.module.state_dict().items()}
    trainer = trainer_of(run)
    return run, before, trainer, trainer.run()


def test_every_parameter_moves(trained):
    _, before, trainer, _ = trained
    for name, parameter in trainer.backbone.module.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_a_planted_preference_is_learned_to_its_ceiling(trained):
    metrics = trained[3]
    told = f"{metrics['accuracy']:.3f}, oracle {TEST.oracle:.3f}, kept {metrics['kept']}"
    longer = metrics["baselines"]["longer_wins"]["accuracy"]
    assert metrics["accuracy"] >= TEST.oracle - 0.015, told
    assert metrics["accuracy"] > longer + 0.2, (told, longer)


def test_a_saved_model_scores_as_before(trained):
    run, _, trainer, _ = trained
    store = pack(trainer.backbone.encode(CONVERSATIONS))
    found = outputs(trainer.backbone, store, np.arange(len(CONVERSATIONS)), lambda: None)
    expected = trainer.objective.scores(found).numpy()
    scores = load_reward_model(run / "artifact").score(CONVERSATIONS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores.round(5).tolist())) > 3
    assert load_reward_model(run / "artifact").score([]).shape == (0,)


def test_stopped_and_resumed_it_ends_with_the_same_weights(trained, objective, tmp_path):
    run, _, trainer, metrics = trained
    kind = "bert" if metrics["backbone"].startswith("hf:") else "hashing"
    broken = prepare(tmp_path / "run", objective, kind)
    config = TrainingConfig.read(run)
    config.write(broken)  # the same base model, by the same name
    attempts = 0
    while True:
        try:
            resumed = trainer_of(broken, StopAfter(30 + 50 * attempts))
            again = resumed.run()
            break
        except Stopped:
            attempts += 1
    assert attempts >= 2
    for name, tensor in trainer.backbone.module.state_dict().items():
        assert torch.equal(tensor, resumed.backbone.module.state_dict()[name]), name
    same = ("accuracy", "loss", "kept", "steps", "fingerprint")
    assert {k: metrics[k] for k in same} == {k: again[k] for k in same}
    states = [one.objective.state() for one in (trainer, resumed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
