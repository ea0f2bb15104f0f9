"""Consensus: each method against voting and against an oracle that knows the raters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.aggregators import AGGREGATORS
from models.consensus import (
    TIE,
    Votes,
    accuracy,
    crowd_bt,
    dawid_skene,
    majority,
    reliability,
)
from models.raters import UNKNOWN

METHODS = [pytest.param(key, method.load(), id=key) for key, method in AGGREGATORS.items()]


def crowd(
    seed: int = 0, *, items: int = 400, each: int = 5
) -> tuple[Votes, np.ndarray, np.ndarray]:
    """Pairs of two responses each; 5 raters at .85, 2 adversaries at .15, 3 who say a, .9."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 2], items)
    right = np.array([0.85] * 5 + [0.15] * 2 + [0.5] * 3)
    item = np.repeat(np.arange(items), each)
    rater = np.concatenate([rng.choice(10, each, replace=False) for _ in range(items)])
    honest = np.where(rng.random(len(item)) < right[rater], truth[item], 2 - truth[item])
    label = np.where(rater >= 7, np.where(rng.random(len(item)) < 0.9, 0, 2), honest)
    sides = np.arange(2 * items).reshape(items, 2).T
    return Votes(item, rater, label, items, 10, sides=sides), truth, right


def oracle(votes: Votes, truth: np.ndarray) -> float:
    """Votes weighted by how right each rater really was: what no method can beat by much."""
    weight = np.zeros(votes.n_raters)
    for rater in range(votes.n_raters):
        mine = votes.raters == rater
        share = (votes.labels[mine] == truth[votes.items[mine]]).mean()
        weight[rater] = np.log(share / (1 - share))
    score = np.bincount(votes.items, weights=weight[votes.raters] * (1 - votes.labels))
    return float((np.where(score > 0, 0, 2) == truth).mean())


@pytest.mark.parametrize(("method", "behind"), [(dawid_skene, 0.06), (crowd_bt, 0.13)])
def test_beats_voting_and_comes_near_the_oracle(method, behind: float) -> None:
    """CrowdBT has no word for people who always say a: it stays further behind."""
    gains, gaps = [], []
    for seed in range(3):
        votes, truth, _ = crowd(seed)
        found = accuracy(method(votes).posterior, truth).accuracy
        voted = accuracy(majority(votes).posterior, truth).accuracy
        gains.append(found - voted)
        gaps.append(oracle(votes, truth) - found)
    assert min(gains) > 0.08
    assert max(gaps) < behind


def test_reliability_is_the_planted_one() -> None:
    votes, truth, _ = crowd()
    found = dawid_skene(votes)
    assert np.abs(found.reliability[:5] - 0.85).max() < 0.06
    assert (found.low <= found.reliability).all()
    assert (found.reliability <= found.high).all()
    exact = np.eye(3)[truth]
    share, _, _ = reliability(votes, exact)
    mine = votes.raters == 0
    assert share[0] == pytest.approx((votes.labels[mine] == truth[votes.items[mine]]).mean())


@pytest.mark.parametrize(("key", "method"), METHODS)
def test_gold_is_certain_and_excluded_votes_count_nowhere(key: str, method) -> None:
    votes, truth, _ = crowd(items=60)
    gold = np.full(60, UNKNOWN)
    gold[:5] = 2 - truth[:5]
    excluded = np.zeros(10, dtype=bool)
    excluded[7:] = True
    kept = votes.raters < 7
    whole = Votes(
        votes.items, votes.raters, votes.labels, 60, 10,
        sides=votes.sides, gold=gold, excluded=excluded,
    )  # fmt: skip
    part = Votes(
        votes.items[kept], votes.raters[kept], votes.labels[kept], 60, 10,
        sides=votes.sides, gold=gold,
    )  # fmt: skip
    found = method(whole)
    np.testing.assert_allclose(found.posterior, method(part).posterior)
    np.testing.assert_array_equal(found.labels[:5], gold[:5])
    np.testing.assert_array_equal(found.posterior[:5].max(axis=1), 1)


@pytest.mark.parametrize(("key", "method"), METHODS)
def test_an_item_without_votes_is_not_decided(key: str, method) -> None:
    sides = np.array([[0, 2], [1, 3]])
    found = method(Votes(np.array([0]), np.array([0]), np.array([0]), 2, 2, sides=sides))
    assert found.labels[0] == 0
    np.testing.assert_allclose(found.posterior[1], 1 / 3)
    assert np.isnan(found.reliability[1])
    assert (found.low[1], found.high[1]) == (0, 1)


@pytest.mark.parametrize(("key", "method"), METHODS)
def test_no_votes_at_all_decide_nothing(key: str, method) -> None:
    none = np.empty(0, dtype=np.int64)
    found = method(Votes(none, none, none, 2, 1, sides=np.array([[0, 2], [1, 3]])))
    np.testing.assert_allclose(found.posterior, 1 / 3)


def test_scale_carries_evidence_from_pair_to_pair() -> None:
    """a over b and b over c by many: the pair a, c with one vote each way goes to a."""
    sides = np.array([[0, 1, 0], [1, 2, 2]])
    items = np.array([0] * 6 + [1] * 6 + [2, 2])
    raters = np.array([*range(6), *range(6), 0, 1])
    labels = np.array([0] * 12 + [0, 2])
    votes = Votes(items, raters, labels, 3, 6, sides=sides)
    assert majority(votes).posterior[2] == pytest.approx([0.5, 0, 0.5])
    assert crowd_bt(votes).posterior[2, 0] > 0.8


def test_ties_are_a_verdict() -> None:
    items, raters = np.repeat(np.arange(40), 3), np.tile(np.arange(3), 40)
    labels = np.repeat(np.arange(40) % 3, 3)
    votes = Votes(items, raters, labels, 40, 3, sides=np.arange(80).reshape(40, 2).T)
    for method in (majority, dawid_skene, crowd_bt):
        np.testing.assert_array_equal(method(votes).labels, np.arange(40) % 3)
    assert TIE == 1


def test_ratings_have_no_scale_of_responses() -> None:
    votes = Votes(np.array([0]), np.array([0]), np.array([4]), 1, 1, n_classes=5)
    assert dawid_skene(votes).labels[0] == 4
    with pytest.raises(ValueError, match="must be pairs"):
        crowd_bt(votes)


def test_codes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be in 0"):
        Votes(np.array([0]), np.array([0]), np.array([3]), 1, 1)
    with pytest.raises(ValueError, match="equal"):
        Votes(np.array([0, 0]), np.array([0]), np.array([1]), 1, 1)
    with pytest.raises(ValueError, match="sides"):
        Votes(np.array([0]), np.array([0]), np.array([1]), 1, 1, sides=np.zeros((2, 5), int))


def test_accuracy_splits_what_is_even_and_skips_what_is_not_known() -> None:
    posterior = np.array([[0.5, 0, 0.5], [1, 0, 0], [0, 1, 0]])
    found = accuracy(posterior, [0, 0, UNKNOWN])
    assert found.accuracy == pytest.approx(0.75)
    assert found.n == 2
    assert accuracy(posterior, [UNKNOWN] * 3) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_posteriors_are_chances_whatever_was_said(rows: list[tuple[int, int, int]]) -> None:
    rows = list({(item, rater): (item, rater, label) for item, rater, label in rows}.values())
    item, rater, label = (
        (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        if rows
        else (np.empty(0, dtype=np.int64),) * 3
    )
    votes = Votes(item, rater, label, 5, 4, sides=np.arange(10).reshape(5, 2).T)
    for method in (majority, dawid_skene, crowd_bt):
        found = method(votes)
        np.testing.assert_allclose(found.posterior.sum(axis=1), 1)
        assert (found.posterior >= 0).all()
        assert (found.low <= found.high).all()


def test_reliability_counts_what_was_judged_at_once_as_one_case() -> None:
    items = np.repeat(np.arange(12), 3)
    raters = np.tile(np.arange(3), 12)
    labels = np.where(raters == 2, 1, 0)
    alone = majority(Votes(items, raters, labels, 12, 3))
    together = majority(Votes(items, raters, labels, 12, 3, groups=np.arange(12) // 6))
    assert together.reliability == pytest.approx(alone.reliability)
    assert (together.high - together.low > alone.high - alone.low + 0.1).all()
