"""Scores become verdicts: ranks, ties, probabilities, and refusals with a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.score_decisions import decide, decide_checklist, sigmoid
from rubrics.judging.types import Candidate, Item


def item(k=2, kind="pairwise", **fields):
    candidates = tuple(Candidate(f"reply {i}") for i in range(k))
    return Item(7, kind, [{"role": "user", "content": "q"}], candidates, **fields)


def verdict(scores, *, temperature=1.0, tie_band=0.05, **fields):
    return decide(item(len(scores), **fields), scores, temperature=temperature, tie_band=tie_band)


def test_a_pair_is_decided_as_bradley_and_terry_have_it():
    found = verdict([1.0, 3.0])
    assert found.ranks == (2, 1)
    assert found.probability == pytest.approx(1 / (1 + math.exp(2)))
    assert found.confidence == pytest.approx(1 - found.probability)
    assert found.strength == 2
    assert found.is_consistent is None
    (opinion,) = found.opinions
    assert opinion.shown_order == (0, 1)
    assert opinion.ranks == (2, 1)
    assert opinion.scores == {"score": [1.0, 3.0]}
    assert verdict([1.0, 3.0], temperature=4).strength == 1
    assert verdict([9.0, 1.0]).strength == 3


def test_within_the_band_is_a_tie_where_ties_are_allowed():
    near = [0.0, 0.19]  # a probability of .453
    assert verdict(near).ranks == (1, 1)
    assert verdict(near).strength == 0
    assert verdict(near, tie_band=0.04).ranks == (2, 1)
    assert verdict(near, allow_tie=False).ranks == (2, 1)
    assert verdict([1.0, 1.0], tie_band=0).ranks == (1, 1)
    exact = verdict([1.0, 1.0], allow_tie=False)
    assert (exact.ranks, exact.error) == (None, "unfit")
    assert "exactly the same" in exact.detail


def test_more_than_two_are_ranked_and_a_chain_of_near_ones_is_no_tie():
    assert verdict([0.0, 5.0, 2.0], kind="ranking").ranks == (3, 1, 2)
    assert verdict([0.0, 5.0, 2.0], kind="ranking").strength == 2
    chain = [0.45, 0.3, 0.15, 0.0]  # neighbors lie within the band, the ends do not
    assert verdict(chain, kind="ranking").ranks == (1, 1, 2, 2)
    assert verdict(chain, kind="ranking").probability is None


def test_best_and_worst_leave_the_middle_alone():
    assert verdict([0.0, 5.0, 4.99, 2.0], kind="best-worst").ranks == (3, 1, 2, 2)
    assert verdict([5.0, 5.0, 4.0, 2.0], kind="best-worst").error == "unfit"


def test_a_reply_without_a_score_leaves_the_item_undecided():
    for scores in ([None, 1.0], [float("nan"), 1.0], [math.inf, 1.0]):
        assert verdict(scores).error == "unreadable"
        assert verdict(scores).ranks is None


def test_orders_that_disagree_are_said_to():
    orders = [((0, 1), [1.0, 0.0]), ((1, 0), [-0.2, 0.4])]
    found = decide(item(), [0.4, 0.2], temperature=1, tie_band=0.0, orders=orders)
    assert found.ranks == (1, 2)
    assert found.is_consistent is False
    assert [opinion.shown_order for opinion in found.opinions] == [(0, 1), (1, 0)]
    assert [opinion.ranks for opinion in found.opinions] == [(1, 2), (2, 1)]


def test_a_checklist_ranks_by_lines_passed_and_a_failure_passes_with_no():
    told = {"cites": [0.9, 0.2], "is short": [0.8, 0.7], "is rude": [0.1, 0.6]}
    found = decide_checklist(
        item(kind="checklist", criteria=("cites", "is short"), failures=("is rude",)), told
    )
    assert found.ratings == {"cites": [1, 0], "is short": [1, 1], "is rude": [0, 1]}
    assert found.ranks == (1, 2)
    assert found.strength == 1
    assert found.confidence == pytest.approx((0.9 + 0.8 + 0.8 + 0.7 + 0.9 + 0.6) / 6)
    nothing = decide_checklist(item(kind="checklist", criteria=("x",)), {"x": [None, 0.5]})
    assert nothing.error == "unreadable"


finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=2, max_size=10), st.floats(0, 0.49), st.floats(1e-3, 1e3))
def test_any_scores_give_places_that_follow_them(scores, band, temperature):
    found = verdict(scores, temperature=temperature, tie_band=band, kind="ranking")
    assert found.ranks is not None
    assert set(found.ranks) == set(range(1, max(found.ranks) + 1))
    for a, b in zip(scores, found.ranks, strict=True):
        for c, d in zip(scores, found.ranks, strict=True):
            assert a <= c or b <= d
    assert 1 / len(scores) - 1e-9 <= found.confidence <= 1
    assert 0 <= found.strength <= 3


@given(finite, finite)
def test_a_pair_and_its_mirror_say_the_same(a, b):
    one, other = verdict([a, b]), verdict([b, a])
    assert one.ranks == other.ranks[::-1]
    assert one.probability == pytest.approx(1 - other.probability)
    assert one.strength == other.strength
    assert 0 <= sigmoid(a) <= 1
