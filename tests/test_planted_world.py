"""The planted world is what it says, and its choices show what METHODS 2.1 measured."""

from __future__ import annotations

import numpy as np
import pytest

from rubrics.simulated import features
from rubrics.simulated.features import LENGTH
from tests.planted_world import (
    CRITERIA,
    NAMES,
    PHRASES,
    choose,
    order_figures,
    phi_of,
    planted_world,
)


@pytest.fixture(scope="module")
def world():
    return planted_world(3_000, seed=3)


def test_the_same_seed_makes_the_same_world(world):
    again, other = planted_world(50, seed=3), planted_world(50, seed=4)
    assert [pair.first.text for pair in again.pairs] == [
        pair.first.text for pair in planted_world(50, seed=3).pairs
    ]
    assert again.pairs[0].first.text != other.pairs[0].first.text
    texts = [answer.text for pair in world.pairs for answer in (pair.first, pair.second)]
    assert len(set(texts)) == len(texts) == len(world.known)


@pytest.mark.parametrize("name", PHRASES)
def test_a_phrase_shows_its_feature_and_no_other(name):
    plain, with_it = phi_of("Of tea: words"), phi_of(f"Of tea: words\n{PHRASES[name]}")
    changed = {NAMES[at] for at in np.flatnonzero(with_it - plain)} - {LENGTH}
    assert changed == {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_names_its_feature(name):
    assert features.named_in(CRITERIA[name]) == {name: 1}


def test_utilities_are_weighted_features_and_differences_spread_by_one(world):
    for pair in world.pairs[:200]:
        for answer in (pair.first, pair.second):
            assert answer.utility == pytest.approx(answer.phi @ world.weights[0])
        assert pair.difference == pytest.approx(pair.first.utility - pair.second.utility)
    assert np.sqrt(np.mean(world.differences**2)) == pytest.approx(1)
    kurtosis = np.mean(world.differences**4)
    assert 2.6 < kurtosis < 3.4  # near a Gaussian's 3, which the reference values are of


def test_groups_disagree_and_a_skew_makes_circles():
    one, two = planted_world(400, seed=5, groups=2), planted_world(400, seed=5, skew=1.0)
    assert {pair.group for pair in one.pairs} == {0, 1}
    assert not np.allclose(one.weights[0], one.weights[1])
    gaps = [pair.difference - (pair.first.utility - pair.second.utility) for pair in two.pairs]
    assert np.std(gaps) > 0.1
    assert np.std(one.differences) > 0.9


# b: accuracy of single orders, share of the first slot, consistency, accuracy on consistent
# pairs, accuracy with the better one first and second (METHODS 2.1, Gaussian utilities, noise .7)
REFERENCE = {
    0.0: (0.805, 0.49, 0.73, 0.917, 0.81, 0.81),
    0.5: (0.770, 0.66, 0.62, 0.934, 0.93, 0.61),
    1.5: (0.604, 0.89, 0.22, 0.989, 1.0, 0.21),
}


@pytest.mark.parametrize("bias", REFERENCE)
def test_position_bias_shows_as_the_methods_measured_it(world, bias):
    rng = np.random.default_rng(11)
    gaussian = np.random.default_rng(12).normal(size=20_000)
    for differences, within in ((gaussian, 0.015), (world.differences, 0.03)):
        forward = choose(differences, rng=rng, position_bias=bias)
        backward = choose(-differences, rng=rng, position_bias=bias)
        seen = order_figures(differences, forward, backward)
        expected = REFERENCE[bias]
        measured = (
            seen.accuracy,
            seen.first_share,
            seen.consistency,
            seen.accuracy_consistent,
            seen.accuracy_forward,
            seen.accuracy_reversed,
        )
        assert measured == pytest.approx(expected, abs=within)


def test_flips_and_length_bias_do_what_they_say(world):
    d, longer = world.differences, world.longer
    rng = np.random.default_rng(13)
    honest = choose(d, rng=rng, noise=0)
    assert np.array_equal(honest, np.where(d > 0, 1, -1))
    adversary = choose(d, rng=rng, noise=0, flip=0.9)
    assert np.mean(adversary == honest) == pytest.approx(0.1, abs=0.03)
    spammer = choose(d, rng=rng, flip=0.5)
    assert np.mean(spammer == honest) == pytest.approx(0.5, abs=0.04)
    only_length = choose(d, rng=rng, length_bias=1, longer=longer)
    assert np.array_equal(only_length[longer != 0], longer[longer != 0])


def test_logistic_choices_follow_bradley_terry():
    d = np.full(40_000, 0.8)
    share = np.mean(choose(d, rng=np.random.default_rng(14), noise=1, link="logistic") > 0)
    assert share == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.01)
