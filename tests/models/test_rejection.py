from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from models.rejection import draw

POLICY = np.array([0.4, 0.3, 0.2, 0.1])
REWARDS = np.array([0.0, 0.5, 1.0, 2.0])


def accepted(*, beta: float, count: int, pool: int, times: int) -> np.ndarray:
    """How often each kind of answer is accepted from pools drawn from POLICY."""
    rng = np.random.default_rng(11)
    found = np.zeros(len(POLICY))
    for _ in range(times):
        sample = rng.choice(len(POLICY), size=pool, p=POLICY)
        places = draw(REWARDS[sample], count=count, beta=beta, rng=rng)
        np.add.at(found, sample[places], 1)
    return found


def test_accepted_answers_follow_the_tilted_law() -> None:
    found = accepted(beta=1.0, count=1, pool=64, times=3_000)
    tilted = POLICY * np.exp(REWARDS)
    assert chisquare(found, tilted / tilted.sum() * found.sum()).pvalue > 0.01
    assert chisquare(found, POLICY * found.sum()).pvalue < 1e-6, "not the policy itself"


def test_a_large_beta_leaves_the_policy_and_a_small_one_takes_the_best() -> None:
    found = accepted(beta=1e6, count=1, pool=64, times=3_000)
    assert chisquare(found, POLICY * found.sum()).pvalue > 0.01
    rng = np.random.default_rng(0)
    rewards = rng.permutation(np.arange(10.0))
    best = draw(rewards, count=3, beta=1e-9, rng=rng)
    assert sorted(rewards[best]) == [7.0, 8.0, 9.0]


def test_taking_many_of_a_small_pool_is_only_near_the_law() -> None:
    """Without replacement: what is documented as an approximation is measured as one."""
    found = accepted(beta=1.0, count=8, pool=12, times=1_000)
    tilted = POLICY * np.exp(REWARDS)
    share, aim = found / found.sum(), tilted / tilted.sum()
    assert POLICY[3] < share[3] < aim[3]


@given(
    st.lists(st.floats(-50, 50), max_size=20),
    st.integers(0, 25),
    st.floats(1e-3, 1e3),
    st.integers(0, 3),
)
def test_draws_are_distinct_as_many_as_there_are_and_the_same_again(
    rewards: list[float], count: int, beta: float, seed: int
) -> None:
    first, second = (
        draw(rewards, count=count, beta=beta, rng=np.random.default_rng(seed)) for _ in range(2)
    )
    assert len(first) == len(set(first.tolist())) == min(count, len(rewards))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize(("rewards", "beta"), [([1.0], 0.0), ([float("nan")], 1.0)])
def test_impossible_draws_are_refused(rewards: list[float], beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta is above|no reward"):
        draw(rewards, count=1, beta=beta, rng=np.random.default_rng(0))
