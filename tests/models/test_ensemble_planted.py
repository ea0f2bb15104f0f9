"""Planted worlds for ensembles: caution against being gamed, flipped labels found by voting."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import transforms
from models.errors import BadData
from models.gateway import load_reward_model
from models.neural.ensemble import Ensemble
from models.neural.process import Events, Stop
from models.pairs import Pair
from models.preference_strength import detection, folds, vote
from models.training import TrainingConfig
from tests.models import vectors
from tests.models.planted import PROMPT, write_run
from tests.models.vectors import WIDTH, as_text, scores_of

pytestmark = [pytest.mark.neural, pytest.mark.slow]

CPU = torch.device("cpu")
PENALTY = 0.1  # of the squared features, in the gold
DRAWN, DRAWS = 512, 60


@pytest.fixture(autouse=True)
def _vectors(monkeypatch):
    vectors.register(monkeypatch)
    torch.set_num_threads(1)


def as_pairs(sides):
    """Pairs of sides (n, 2, WIDTH), the chosen one first."""
    return [
        Pair(PROMPT, as_text(chosen), as_text(rejected), prompt_id=i, pair_id=i)
        for i, (chosen, rejected) in enumerate(sides)
    ]


def train(folder, sides, *, members, epochs, width=32, seed=0, rate=0.01, **rest):
    """A loaded ensemble of small networks."""
    write_run(
        folder,
        train=as_pairs(sides),
        test=as_pairs(sides[:5]),
        backbone="vectors",
        options={
            "layers": 1, "width": width, "epochs": epochs, "batch_size": 64,
            "learning_rate": rate, "l2": 0.0,
        },
        members=members,
        seed=seed,
        **rest,
    )  # fmt: skip
    config = TrainingConfig.read(folder)
    Ensemble(folder, config, device=CPU, emit=Events(None), stop=Stop()).run()
    return load_reward_model(folder / "artifact", device="cpu")


# Best of n, METHODS 3.7 ---------------------------------------------------------------------------


def gold(answers, direction):
    """What an answer (..., WIDTH) is worth: more of a direction is better, all of it is not."""
    return answers @ direction - PENALTY * (answers**2).sum(-1)


def noisy_pairs(rng, direction, *, n=400, flips=0.25):
    sides = rng.normal(size=(n, 2, WIDTH))
    utility = gold(sides, direction)
    swaps = rng.random(n) > 1 / (1 + np.exp(-2 * (utility[:, 0] - utility[:, 1])))
    swaps ^= rng.random(n) < flips
    sides[swaps] = sides[swaps][:, ::-1]
    return sides


def best_of_n(folder, seed, *, prior_scale):
    """The gold (DRAWS,) of what each way picks of DRAWN heavy-tailed answers."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)
    scorer = train(
        folder, noisy_pairs(rng, direction), members=5, epochs=20, seed=seed,
        prior_scale=prior_scale,
    )  # fmt: skip
    answers = rng.standard_t(3, size=(DRAWS, DRAWN, WIDTH))
    worth = gold(answers, direction)  # (DRAWS, DRAWN)
    raw = scores_of(scorer, answers.reshape(-1, WIDTH))
    told = np.stack(
        [transforms.standardized(row, s) for row, s in zip(raw, scorer.scales, strict=True)]
    ).reshape(5, DRAWS, DRAWN)
    ways = {how: transforms.combine(told, how) for how in transforms.COMBINATIONS}
    ways |= {f"single {i}": one for i, one in enumerate(told)} | {"oracle": worth}
    return {
        name: np.take_along_axis(worth, scores.argmax(1)[:, None], 1)[:, 0]
        for name, scores in ways.items()
    }


@pytest.mark.parametrize("prior_scale", [0.0, 1.0])
def test_cautious_scores_are_gamed_less_and_none_reaches_the_oracle(prior_scale, tmp_path):
    seeds = [best_of_n(tmp_path / str(s), s, prior_scale=prior_scale) for s in range(3)]
    found = {name: np.concatenate([one[name] for one in seeds]) for name in seeds[0]}
    singles = np.concatenate([found[name] for name in found if name.startswith("single")])
    # The tails are too heavy for the error of a mean: medians and sign tests beside it.
    middles = {name: float(np.median(values)) for name, values in found.items()}
    single = float(np.median(singles))
    means = {name: float(values.mean()) for name, values in found.items()}
    told = {name: (round(means[name], 1), round(middles[name], 2)) for name in means}
    print(f"gold of the best of {DRAWN}, mean and median, prior {prior_scale}: {told}")
    print(f"single {singles.mean():.1f} {single:.2f}")
    for cautious in ("worst", "penalized"):
        gain = found[cautious] - found["mean"]
        better, worse = int((gain > 0).sum()), int((gain < 0).sum())
        assert better - worse > 3 * np.sqrt(better + worse), (cautious, better, worse, told)
        assert means[cautious] > means["mean"], told
        assert middles[cautious] > middles["mean"], told
        assert middles[cautious] < middles["oracle"] - 0.3, ("mitigated, not done away with", told)
    assert abs(middles["mean"] - single) < 0.25 * (middles["oracle"] - single), told
    assert middles["mean"] < middles["oracle"] - 1, told


# Voting, METHODS 3.9 ------------------------------------------------------------------------------


def flipped_pairs(n, *, seed, flips=0.2):
    """Sides (n, 2, WIDTH) by a utility with a bend in it, and which labels are wrong (n,)."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    sides = rng.normal(size=(n, 2, WIDTH))
    utility = sides @ direction + 0.5 * np.tanh(sides[..., 0] * sides[..., 1])
    wrong = rng.random(n) < flips
    swaps = (utility[:, 0] < utility[:, 1]) ^ wrong
    sides[swaps] = sides[swaps][:, ::-1]
    return sides, wrong


def margins_of(scorer, sides):
    """Margins (k, n) by members."""
    scores = scores_of(scorer, sides.reshape(-1, WIDTH)).reshape(-1, len(sides), 2)
    return scores[..., 0] - scores[..., 1]


def test_voters_that_stopped_early_find_flipped_labels(tmp_path):
    sides, wrong = flipped_pairs(800, seed=0)
    found = vote(margins_of(train(tmp_path / "run", sides, members=6, epochs=4), sides))
    area, share = detection(found, wrong)
    print(f"early: area {area:.3f}, flips in the lowest fifth {share:.3f}")
    assert area > 0.95
    assert share > 0.8
    assert 0.15 < float((found.mu < 0).mean()) < 0.35
    assert found.accuracy.max() < 0.9
    assert (found.n == 6).all()


def test_voters_that_know_their_pairs_by_heart_are_refused_but_may_vote_on_others(tmp_path):
    sides, wrong = flipped_pairs(200, seed=1)
    apart = folds(np.arange(200), 3)
    rest = {"members": 2, "epochs": 100, "width": 128, "rate": 0.05}
    margins = np.concatenate(
        [
            margins_of(train(tmp_path / str(i), sides[row], seed=i, **rest), sides)
            for i, row in enumerate(apart)
        ]
    )  # (6, 200)
    seen = np.repeat(apart, 2, axis=0)
    with pytest.raises(BadData, match="by heart: 6 of 6 members") as refused:
        vote(margins, seen=seen)
    assert "stop earlier" in refused.value.advice
    found = vote(margins, seen=seen, held_out=True)
    area, share = detection(found, wrong)
    print(f"by heart, on other pairs: area {area:.3f}, lowest fifth {share:.3f}")
    assert (found.n == 2).all()
    assert found.accuracy.min() > 0.97
    assert area > 0.55, "little is mended: early voters find nearly all"
