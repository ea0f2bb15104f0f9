"""What an objective is for, on planted data: the method, its honest baseline and the oracle."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import gateway
from models.neural.gpm import GeneralPreference
from models.neural.objectives import (
    Batch,
    BradleyTerry,
    RobustBradleyTerry,
    ScaledBradleyTerry,
)
from models.neural.process import Events, Stop
from models.neural.train import work
from models.objectives import BradleyTerryOptions, GpmOptions, RobustOptions, ScaledOptions
from models.pairs import Pair
from models.supervision import EXIT_DONE
from models.training import read_metrics
from tests.models.planted import ATTRIBUTES, make_graded, make_world, write_run

pytestmark = pytest.mark.neural

D = 20


def fit(objective, left, right, *, strength=None, ridge=0.0, outputs=1, restarts=1) -> np.ndarray:
    """Linear weights (d, outputs) that minimize the loss of pairs whose left side won."""
    n, d = left.shape
    sides = torch.from_numpy(np.stack([left, right], axis=1)).reshape(2 * n, d)
    known = Batch(
        sizes=torch.full((n,), 2),
        p=torch.ones(n, dtype=torch.float64),
        strength=torch.from_numpy(np.ones(n) if strength is None else strength),
        ranks=torch.tensor([1, 2]).repeat(n),
        ratings=torch.zeros(2 * n, 0),
    )
    best = None
    for seed in range(restarts):
        start = torch.Generator().manual_seed(seed)
        weights = torch.randn(d, outputs, generator=start, dtype=torch.float64) * 0.1
        weights.requires_grad_()
        search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def cost(weights=weights, search=search):
            search.zero_grad()
            loss = objective.loss(sides @ weights, known).mean() + ridge * weights.square().sum()
            loss.backward()
            return loss

        search.step(cost)
        found = cost().item()
        if best is None or found < best[0]:
            best = found, weights.detach().numpy()
    return best[1]


def test_strength_helps_where_it_was_asked_for():
    """METHODS: 500 pairs, strength the quantized felt difference; mean of ten worlds."""
    found = {"scaled": [], "regular": [], "oracle": []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=D) / np.sqrt(D)
        a, b = rng.normal(size=(2, 500, D))
        felt = 2 * (a - b) @ truth + rng.logistic(size=500)
        flip = felt < 0
        left, right = np.where(flip[:, None], b, a), np.where(flip[:, None], a, b)
        strength = np.digitize(np.abs(felt), [1.0, 2.5]) + 1.0
        ridge = 1 / 500
        scaled = fit(
            ScaledBradleyTerry(ScaledOptions(center=0)), left, right, strength=strength, ridge=ridge
        )
        regular = fit(BradleyTerry(BradleyTerryOptions(center=0)), left, right, ridge=ridge)
        x = rng.normal(size=(4000, D)) - rng.normal(size=(4000, D))
        for name, w in (("scaled", scaled), ("regular", regular), ("oracle", truth[:, None])):
            found[name].append(np.mean((x @ w[:, 0] > 0) == (x @ truth > 0)))
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    assert mean["scaled"] >= mean["regular"], mean
    assert mean["regular"] > 0.85, mean
    assert mean["oracle"] == 1.0


def test_the_robust_loss_recovers_the_scale_that_flips_take_away():
    """20,000 pairs, 30 % flipped: the order is right either way, the size of scores is not."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=D)
    a, b = rng.normal(size=(20_000, D)), np.zeros((20_000, D))
    wins = rng.random(20_000) < 1 / (1 + np.exp(-a @ truth))
    flip = wins == (rng.random(20_000) < 0.3)  # who is told to have lost
    left, right = np.where(flip[:, None], b, a), np.where(flip[:, None], a, b)
    sizes, accuracy = {}, {}
    x = rng.normal(size=(5000, D))
    for name, objective in (
        ("robust", RobustBradleyTerry(RobustOptions(center=0, flip_rate=0.3))),
        ("plain", BradleyTerry(BradleyTerryOptions(center=0))),
    ):
        w = fit(objective, left, right)[:, 0]
        sizes[name] = float(np.linalg.norm(w) / np.linalg.norm(truth))
        accuracy[name] = float(np.mean((x @ w > 0) == (x @ truth > 0)))
    told = (sizes, accuracy)
    assert sizes["robust"] == pytest.approx(1.0, abs=0.15), told
    assert sizes["plain"] < 0.3, told
    assert min(accuracy.values()) > 0.93, told
    assert abs(accuracy["robust"] - accuracy["plain"]) < 0.02, told


ITEMS = ("tea", "chess", "bread")  # each is beaten by the next, the last by the first


def make_circle(n: int, *, seed: int, chance: float = 0.9) -> list[Pair]:
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        loser = int(rng.integers(3))
        sides = [f"so much for {ITEMS[k]}" for k in ((loser + 1) % 3, loser)]
        if rng.random() >= chance:
            sides.reverse()
        pairs.append(Pair([], *sides, prompt_id=i, pair_id=i))
    return pairs


def learn(folder, **config):
    write_run(folder, **config)
    assert work(folder, emit=Events(None), stop=Stop()) == EXIT_DONE
    return read_metrics(folder)


def test_free_embeddings_recover_a_circle_at_its_entropy():
    """Rock, paper, scissors in two dimensions: chances of .9 from 3,000 noisy comparisons."""
    rng = np.random.default_rng(1)
    loser = rng.integers(3, size=3000)
    winner = (loser + 1) % 3
    flip = rng.random(3000) >= 0.9
    left, right = np.where(flip, loser, winner), np.where(flip, winner, loser)
    one = np.eye(3)
    objective = GeneralPreference(GpmOptions(dim=2, tau=0.1, center=0, damping=0))
    weights = fit(objective, one[left], one[right], outputs=3, restarts=3, ridge=1e-6)
    embedded = torch.from_numpy(weights)
    beats = torch.stack([embedded[[1, 2, 0]], embedded], dim=1).reshape(6, 3)
    chances = objective.margins(beats).sigmoid().tolist()
    assert chances == pytest.approx([0.9] * 3, abs=0.03), chances
    plain = fit(BradleyTerry(BradleyTerryOptions(center=0)), one[left], one[right], ridge=1e-6)
    leads = plain[[1, 2, 0], 0] - plain[:, 0]
    assert 1 / (1 + np.exp(-leads)) == pytest.approx([0.5] * 3, abs=0.05), leads


def test_a_circle_is_learned_from_texts_where_bradley_terry_knows_nothing(tmp_path):
    data = {
        "train": make_circle(1000, seed=1),
        "validation": make_circle(200, seed=2),
        "test": (test := make_circle(600, seed=3)),
    }
    oracle = np.mean([ITEMS.index(p.chosen.split()[-1]) == next_of(p.rejected) for p in test])
    general = learn(tmp_path / "gpm", objective="gpm", **data)
    plain = learn(tmp_path / "bt", **data)
    told = f"{general['accuracy']:.3f} {general['loss']:.3f}, BT {plain['loss']:.3f}, {oracle:.3f}"
    assert general["accuracy"] == pytest.approx(oracle, abs=1e-9), told
    assert general["loss"] < entropy(oracle) + 0.06, told  # milder than the votes, by its damping
    assert plain["loss"] == pytest.approx(np.log(2), abs=0.01), told  # chances of .5 everywhere
    scores = gateway.load_reward_model(tmp_path / "gpm" / "artifact").score(
        [([], f"so much for {item}") for item in ITEMS]
    )
    # Nobody leads a circle, but for how often each is among the references.
    assert scores == pytest.approx([0.5] * 3, abs=0.1), scores


def next_of(rejected: str) -> int:
    return (ITEMS.index(rejected.split()[-1]) + 1) % 3


def entropy(p: float) -> float:
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


def test_general_preferences_cost_nothing_where_there_is_an_order(tmp_path):
    train, validation, test = (make_world(n, seed=n) for n in (1500, 100, 1000))
    data = {"train": train.pairs, "validation": validation.pairs, "test": test.pairs}
    general = learn(tmp_path / "gpm", objective="gpm", **data)
    plain = learn(tmp_path / "bt", **data)
    told = f"{general['accuracy']:.3f}, BT {plain['accuracy']:.3f}, oracle {test.oracle:.3f}"
    assert general["accuracy"] > plain["accuracy"] - 0.01, told
    assert general["accuracy"] <= test.oracle + 0.01, told


def test_the_recipe_says_how_far_it_carried_on(tmp_path):
    few, some, test = (make_graded(n, seed=n).pairs for n in (60, 150, 300))
    data = {"train": few, "test": test, "attributes": ATTRIBUTES, "objective": "helpsteer2"}
    small = {"epochs": 2, "buckets_log2": 10, "batch_size": 8, "score": "quality"}
    chosen = learn(tmp_path / "some", validation=some, options=small, **data)["kept"]
    carried = chosen["extrapolation"]
    losses = carried["losses"]
    assert carried["kappa"] == pytest.approx(int(np.argmin(losses)) / 10)
    assert carried["kappa"] > 0, carried
    assert min(losses) < losses[0], carried
    none = learn(tmp_path / "few", validation=some[:10], options=small, **data)["kept"]
    assert none["extrapolation"] == {
        "kappa": 0.0,
        "why": "fewer than 50 validation pairs to choose by",
    }
    off = learn(tmp_path / "off", validation=some, options=small | {"extrapolation": 0}, **data)[
        "kept"
    ]
    assert "extrapolation" not in off
