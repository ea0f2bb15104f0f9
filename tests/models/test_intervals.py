from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from models.intervals import cluster_bootstrap, estimate_accuracy, wilson


@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(n, share, level):
    hits = round(share * n)
    expected = binomtest(hits, n).proportion_ci(level, method="wilson")
    assert wilson(hits, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_knows_nothing_without_cases_and_refuses_impossible_counts():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 9)[0] == 0.0
    assert wilson(9, 9)[1] == 1.0
    with pytest.raises(ValueError, match=r"hits=5 is outside 0\.\.n=4"):
        wilson(5, 4)


def test_bootstrap_of_single_cases_matches_drawing_them_one_by_one():
    rng = np.random.default_rng(1)
    correct = rng.random(120) < 0.7
    groups = rng.integers(0, 40, size=120)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, len(members), size=len(members))
        means.append(correct[np.concatenate([members[i] for i in drawn])].mean())
    by_hand = np.quantile(means, [0.025, 0.975])
    assert cluster_bootstrap(correct, groups, seed=0, n=4000) == pytest.approx(by_hand, abs=0.012)


def test_bootstrap_covers_where_wilson_on_cases_is_too_narrow():
    """300 pairs of 30 prompts, right or wrong prompt by prompt: only 30 independent facts."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 10)
    covered = {"bootstrap": 0, "wilson": 0}
    for repeat in range(200):
        correct = np.repeat(rng.random(30) < 0.6, 10)
        low, high = cluster_bootstrap(correct, groups, seed=repeat)
        covered["bootstrap"] += low <= 0.6 <= high
        low, high = wilson(correct.sum(), correct.size)
        covered["wilson"] += low <= 0.6 <= high
    assert covered["bootstrap"] >= 180, covered
    assert covered["wilson"] <= 120, covered


def test_bootstrap_is_fixed_by_its_seed_and_blind_to_order_and_names():
    rng = np.random.default_rng(3)
    correct, groups = rng.random(500) < 0.5, rng.integers(0, 90, size=500)
    order = rng.permutation(500)
    first = cluster_bootstrap(correct, groups, seed=7)
    assert first == cluster_bootstrap(correct[order], groups[order] * 1000 - 5, seed=7)
    assert first != cluster_bootstrap(correct, groups, seed=8)


def test_bootstrap_of_a_million_cases_takes_moments():
    rng = np.random.default_rng(4)
    correct, groups = rng.random(1_000_000) < 0.6, rng.integers(0, 300_000, size=1_000_000)
    start = time.perf_counter()
    low, high = cluster_bootstrap(correct, groups, seed=0)
    assert low < 0.6 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 1e6), rel=0.15)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(("correct", "groups"), [([], []), ([1, 0], [1]), ([[1]], [[1]])])
def test_bootstrap_refuses_ragged_or_empty_input(correct, groups):
    with pytest.raises(ValueError, match="must be equal"):
        cluster_bootstrap(correct, groups, seed=0)


def test_estimate_chooses_the_interval_that_fits():
    assert estimate_accuracy([], seed=0) is None
    alone = estimate_accuracy([1, 1, 0, 1], [4, 5, 6, 7], seed=0)
    assert (alone.method, alone.interval, alone.groups) == ("wilson", wilson(3, 4), 4)
    groups = [*range(10), *range(10)]
    grouped = estimate_accuracy([1] * 13 + [0] * 7, groups, seed=0)
    assert (grouped.method, grouped.groups, grouped.n) == ("bootstrap over groups", 10, 20)
    certain = estimate_accuracy([1, 1, 1, 1], [4, 4, 6, 7], seed=0)
    assert (certain.method, certain.interval) == ("wilson on groups", wilson(3, 3))
    assert certain.as_dict()["interval"] == list(wilson(3, 3))


@pytest.mark.parametrize(
    ("correct", "groups"),
    [
        ([1, 0, 1, 0, 1, 0], [1, 1, 2, 2, 3, 3]),  # a bootstrap would say .5 to .5
        ([1, 1, 1, 1, 0], [1, 1, 1, 2, 2]),  # and here what either group says
        ([1, 0] * 12, [at // 2 for at in range(24)]),  # many groups of one share
    ],
)
def test_few_groups_or_groups_alike_claim_no_certainty(correct, groups):
    found = estimate_accuracy(correct, groups, seed=0)
    m = len(set(groups))
    assert found.method == "wilson on groups"
    assert found.interval == wilson(found.accuracy * m, m)
    assert found.interval[0] < found.accuracy < found.interval[1]


def test_interval_of_few_groups_covers_as_often_as_it_says():
    """Six groups of eight whose chance of being right differs from group to group."""
    rng, truth, covered = np.random.default_rng(5), 0.7, 0
    groups = np.repeat(np.arange(6), 8)
    for _ in range(400):
        chance = rng.beta(2.1, 0.9, size=6)[groups]
        found = estimate_accuracy(rng.random(48) < chance, groups, seed=0)
        covered += found.interval[0] <= truth <= found.interval[1]
    assert covered / 400 >= 0.94
