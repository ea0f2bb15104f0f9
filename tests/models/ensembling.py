"""Small ensembles to train in tests: their data, their runs, and who listens."""

from __future__ import annotations

import torch

from models.neural.ensemble import Ensemble
from models.neural.process import Events, Stop
from models.objectives import NO_ONE_SCORE, OBJECTIVES
from models.training import TrainingConfig
from tests.models import tiny
from tests.models.planted import ATTRIBUTES, make_graded, make_rankings, write_run

TRAIN, VALIDATION, TEST = (make_graded(n, seed=n) for n in (120, 60, 80))
RANKINGS = make_rankings(20, seed=1)
CONVERSATIONS = [(pair.prompt, pair.chosen) for pair in TEST.pairs[:9]]
CPU = torch.device("cpu")
FAST = {
    "hashing": {"epochs": 2, "buckets_log2": 10, "batch_size": 16, "learning_rate": 0.05},
    "bert": {"epochs": 1, "batch_size": 32, "learning_rate": 2e-3},
    "qwen": {"epochs": 1, "batch_size": 32, "learning_rate": 2e-3},
    "frozen": {"epochs": 3, "batch_size": 32, "layers": 1, "width": 8},
}
OPTIONS = {"regression": {"score": "quality, length=0"}, "helpsteer2": {"score": "quality"}}
SCORED = sorted(set(OBJECTIVES) - NO_ONE_SCORE)


class Quiet(Events):
    """Keeps what was told."""

    def __init__(self):
        super().__init__(None)
        self.told = []

    def __call__(self, event, **fields):
        self.told.append({"event": event, **fields})


def prepare(folder, kind, *, objective="bradley-terry", base=None, **config):
    name = kind
    if kind != "hashing":
        base = base or folder.parent / f"base-{kind}"
        built = tiny.FAMILIES["bert" if kind == "frozen" else kind]
        base = base if base.exists() else built(base)
        name = f"{'frozen' if kind == 'frozen' else 'hf'}:{base}"
    write_run(
        folder,
        train=TRAIN.pairs,
        validation=VALIDATION.pairs,
        test=TEST.pairs,
        rankings=RANKINGS,
        attributes=ATTRIBUTES,
        objective=objective,
        backbone=name,
        options=FAST[kind] | OPTIONS.get(objective, {}) | config.pop("options", {}),
        **{"evaluate_every": 5, "members": 3, **config},
    )
    return folder


def ensemble_of(folder, *, stop=None, emit=None):
    config = TrainingConfig.read(folder)
    return Ensemble(
        folder,
        config,
        device=CPU,
        emit=emit or Events(None),
        stop=stop if stop is not None else Stop(),
    )


def train(folder, **rest):
    torch.set_num_threads(1)
    return ensemble_of(folder, **rest).run()


def weights_of(folder):
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert found
    return found
