from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.baselines import human_ceiling, longer_wins
from models.intervals import wilson


def test_longer_wins_counts_equal_lengths_as_wrong():
    result = longer_wins([5, 3, 4, 9], [4, 8, 4, 1])
    assert (result.accuracy, result.n, result.ties) == (0.5, 4, 1)
    assert result.interval == wilson(2, 4)
    assert longer_wins([], []) is None
    with pytest.raises(ValueError, match="lengths differ"):
        longer_wins([1, 2], [1])


def test_ceiling_of_three_raters_by_hand():
    # pair 0: + + -   held out: + vs {+,-} even, + vs {+,-} even, - vs {+,+} wrong
    # pair 1: + + 0   held out: + vs {+,0} right, twice; 0 vs {+,+} wrong
    # pair 2: one rater, no overlap
    result = human_ceiling([0, 0, 0, 1, 1, 1, 2], [7, 8, 9, 7, 8, 9, 7], [1, 1, -1, 1, 1, 0, 1])
    assert (result.n, result.ties, result.groups) == (4, 2, 2)
    assert result.accuracy == pytest.approx(2 / 4)


def test_ceiling_is_none_without_overlap():
    assert human_ceiling([], [], []) is None
    assert human_ceiling([0, 1, 2], [0, 0, 0], [1, -1, 1]) is None
    assert human_ceiling([0, 0], [3, 3], [1, -1]) is None  # one rater who voted twice
    assert human_ceiling([0, 0], [1, 2], [0, 0]) is None


def test_ceiling_refuses_outcomes_it_does_not_know():
    with pytest.raises(ValueError, match=r"-1, 0 or \+1"):
        human_ceiling([0, 0], [0, 1], [1, 2])
    with pytest.raises(ValueError, match="shapes differ"):
        human_ceiling([0, 0], [0, 1], [1])


votes = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-2, 2), st.sampled_from([-1, 0, 1])), max_size=30
)


@given(votes)
def test_ceiling_equals_the_definition_written_out(rows):
    net = {}
    for pair, rater, vote in rows:
        net[pair, rater] = net.get((pair, rater), 0) + vote
    net = {key: int(np.sign(total)) for key, total in net.items()}
    right, counted, ties = 0, 0, 0
    for (pair, rater), vote in net.items():
        others = [v for (p, r), v in net.items() if p == pair and r != rater]
        majority = int(np.sign(sum(others)))
        ties += bool(others) and majority == 0
        counted += majority != 0
        right += majority != 0 and vote == majority
    arrays = [np.array(column, dtype=int) for column in zip(*rows, strict=True)] or [[]] * 3
    result = human_ceiling(*arrays)
    if counted == 0:
        assert result is None
    else:
        assert (result.accuracy, result.n, result.ties) == (right / counted, counted, ties)


def test_ceiling_recovers_planted_reliability_of_a_million_votes_in_seconds():
    """Five raters, each right with .8: agreement with the other four is known in closed form."""
    rng = np.random.default_rng(0)
    pairs = np.repeat(np.arange(200_000), 5)
    raters = np.tile(np.arange(5), 200_000)
    truth = rng.choice([-1, 1], size=200_000)[pairs]
    outcomes = np.where(rng.random(1_000_000) < 0.8, truth, -truth)
    start = time.perf_counter()
    result = human_ceiling(pairs, raters, outcomes)
    assert time.perf_counter() - start < 10
    q = 0.8
    up, down = q**4 + 4 * q**3 * (1 - q), (1 - q) ** 4 + 4 * (1 - q) ** 3 * q
    expected = (q * up + (1 - q) * down) / (up + down)
    assert result.interval[0] <= expected <= result.interval[1]
    assert result.accuracy == pytest.approx(expected, abs=0.002)
