"""Strength of preferences by vote: what it counts, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.errors import BadData
from models.preference_strength import detection, folds, vote

NAN = np.nan


def test_mean_spread_and_number_of_votes_are_those_of_the_members_that_have_one():
    found = vote([[1.0, -2.0, NAN, NAN], [3.0, -2.0, 5.0, NAN]])
    assert found.mu[:3].tolist() == [2, -2, 5]
    assert found.sigma[:3].tolist() == [1, 0, 0]  # ddof 0
    assert found.n.tolist() == [2, 2, 1, 0]
    assert np.isnan([found.mu[3], found.sigma[3]]).all()
    assert found.accuracy.tolist() == [0.5, pytest.approx(2 / 3)]


def test_held_out_members_vote_only_on_what_they_have_not_seen():
    margins = np.array([[9.0, 9.0, -1.0], [-2.0, 9.0, 9.0]])
    seen = np.array([[True, True, False], [False, True, True]])
    found = vote(margins, seen=seen, held_out=True)
    assert found.mu[[0, 2]].tolist() == [-2, -1]
    assert found.n.tolist() == [1, 0, 1]
    assert found.accuracy.tolist() == [1, 1], "known by heart, and no harm in it"


def test_members_that_know_their_pairs_by_heart_are_refused_in_words():
    margins = np.ones((3, 100))
    margins[0, :5] = -1  # 95 %
    with pytest.raises(
        BadData, match=r"2 of 3 members put more than 97 % of them right, up to 100"
    ):
        vote(margins)
    assert vote(margins, most_accurate=1).mu.shape == (100,)
    assert vote(margins[[0, 0]]).accuracy.tolist() == [0.95, 0.95]


def test_only_pairs_of_training_count_as_known_by_heart():
    margins = np.where(np.arange(100) < 50, 1.0, np.where(np.arange(100) % 2, 1.0, -1.0))
    seen = np.tile(np.arange(100) >= 50, (2, 1))
    assert vote(np.stack([margins] * 2), seen=seen).accuracy.tolist() == [0.5, 0.5]


def test_the_lowest_are_a_share_of_those_with_a_vote():
    mu = np.array([-3.0, -1.0, 0.0, 2.0, NAN])
    found = vote(np.stack([mu, mu]))
    assert found.lowest(0.5).tolist() == [True, True, False, False, False]
    assert found.lowest(0.0).sum() == 0
    assert found.lowest(1.0).tolist() == [True] * 4 + [False]
    assert vote(-np.ones((2, 4))).lowest(0.5).sum() == 0, "all equal: none is lower"
    with pytest.raises(ValueError, match="between 0 and 1"):
        found.lowest(1.1)


def test_folds_leave_each_pair_to_one_member_and_keep_prompts_together():
    groups = np.repeat(np.arange(30), 3)
    seen = folds(groups, 4, seed=1)
    assert (~seen).sum(axis=0).tolist() == [1] * 90
    assert all(len(set(map(tuple, seen[:, groups == one].T))) == 1 for one in range(30))
    assert set((~seen).sum(axis=1)) <= {21, 24}
    assert (folds(groups, 4, seed=1) == seen).all()
    assert (folds(groups, 4, seed=2) != seen).any()
    for members in (1, 31):
        with pytest.raises(ValueError, match="members for 30 groups"):
            folds(groups, members)


def test_detection_is_the_area_under_the_curve():
    flipped = [True, False, True, False, False]
    found = vote(np.tile([-2.0, -1.0, 0.5, 0.5, 3.0], (2, 1)))
    area, share = detection(found, flipped)
    # Of six comparisons -2 wins three, 0.5 loses to -1, ties one and wins one.
    assert area == pytest.approx((3 + 1.5) / 6)
    assert share == 0.5
    with pytest.raises(ValueError, match="flipped pairs and others"):
        detection(found, [False] * 5)


def test_what_does_not_fit_is_refused():
    for margins in ([1.0, 2.0], [[1.0, 2.0]], np.ones((2, 3, 4))):
        with pytest.raises(ValueError, match="two members or more"):
            vote(margins)
    with pytest.raises(ValueError, match="not of the shape"):
        vote(np.ones((2, 3)), seen=np.ones((2, 4)))


@given(
    arrays(
        float,
        st.tuples(st.integers(2, 5), st.integers(0, 12)),
        elements=st.floats(-1e6, 1e6) | st.sampled_from([NAN, np.inf, -np.inf]),
    )
)
def test_any_margins_give_a_strength_for_each_pair_with_a_vote(margins):
    found = vote(margins, most_accurate=1)
    voted = np.isfinite(margins).any(axis=0)
    assert (np.isfinite(found.mu) == voted).all()
    assert (found.sigma[voted] >= 0).all()
    assert (found.n == np.isfinite(margins).sum(axis=0)).all()
    assert ((found.accuracy >= 0) | np.isnan(found.accuracy)).all()
