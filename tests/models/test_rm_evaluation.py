"""Evaluating a reward model: planted truths, golden numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import spearmanr

from models.rm_evaluation import (
    calibration,
    follows_length,
    length_buckets,
    order_swap,
    paired,
    sliced,
    strict,
)


def world(rng: np.random.Generator, prompts: int = 80, each: int = 4) -> tuple[np.ndarray, ...]:
    """Margins whose sign depends on the prompt: right on .7 of pairs, dependent within prompts."""
    groups = np.repeat(np.arange(prompts), each)
    quality = rng.beta(1.4, 0.6, prompts)  # mean .7
    right = rng.random(len(groups)) < quality[groups]
    return np.where(right, 1.0, -1.0) * rng.exponential(1, len(groups)), groups


def test_equal_scores_are_wrong_and_counted() -> None:
    found = strict([2.0, 0.0, -1.0, 0.5], [1, 2, 3, 4])
    assert found is not None
    assert (found.accuracy, found.n, found.ties) == (0.5, 4, 1)
    nearly = strict([2.0, 1e-12, -1.0, 0.5], [1, 2, 3, 4], even=1e-9)
    assert nearly is not None
    assert (nearly.accuracy, nearly.ties) == (0.5, 1)
    assert strict([], []) is None


def test_intervals_over_prompts_hold_the_truth_where_those_over_pairs_do_not() -> None:
    rng = np.random.default_rng(0)
    over_prompts = over_pairs = 0
    for seed in range(120):
        margins, groups = world(rng)
        clustered = strict(margins, groups, seed=seed)
        flat = strict(margins, np.arange(len(groups)), seed=seed)
        assert clustered is not None
        assert flat is not None
        over_prompts += clustered.interval[0] <= 0.7 <= clustered.interval[1]
        over_pairs += flat.interval[0] <= 0.7 <= flat.interval[1]
    assert over_prompts / 120 > 0.89
    assert over_pairs / 120 < over_prompts / 120 - 0.02


def test_paired_difference_holds_a_planted_one() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        groups = np.repeat(np.arange(100), 3)
        hard = np.repeat(rng.random(100), 3)
        one = rng.random(300) < 0.5 + 0.45 * hard
        other = rng.random(300) < 0.4 + 0.45 * hard  # .1 worse
        found = paired(one, other, groups)
        assert found is not None
        held += found.interval[0] <= 0.1 <= found.interval[1]
    assert 0.89 <= held / 200 <= 1


def test_paired_counts_who_alone_is_right() -> None:
    found = paired([1, 1, 0, 1, 0], [1, 0, 1, 0, 0], [1, 2, 3, 4, 5])
    assert found is not None
    assert (found.first_only, found.second_only, found.n) == (2, 1, 5)
    assert found.difference == pytest.approx(0.2)
    assert not found.is_told_apart


def test_two_that_agree_on_everything_are_not_proven_equal() -> None:
    few = paired([1, 1, 0], [1, 1, 0], [1, 2, 3])
    many = paired(np.ones(3000), np.ones(3000), np.arange(3000))
    assert few is not None
    assert many is not None
    assert few.interval[0] < -0.3 < 0.3 < few.interval[1]
    assert 0 < many.interval[1] < 0.001
    assert paired([], [], []) is None


def test_calibrated_margins_show_the_error_that_chance_gives_and_bold_ones_more() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1.2, 6000)
    margins = np.where(rng.random(6000) < expit(truth), 1, -1) * np.abs(truth) * np.sign(truth)
    groups = np.arange(6000)
    fair = calibration(margins, groups, replicates=200)
    assert fair is not None
    assert fair.error.value < 0.03
    assert fair.error.debiased < 0.015
    bold = calibration(3 * margins, groups, replicates=200)
    assert bold is not None
    assert bold.error.interval is not None
    assert bold.error.interval[0] > 0.05
    assert bold.message.startswith("Overconfident")
    assert sum(one.n for one in fair.bins) == 6000


def test_even_margins_stand_outside_calibration() -> None:
    margins = np.concatenate([np.ones(30), np.zeros(12)])
    found = calibration(margins, np.arange(42), replicates=50)
    assert found is not None
    assert (found.even, found.error.n) == (12, 30)
    assert calibration(np.zeros(100), np.arange(100)) is None
    assert calibration(np.ones(19), np.arange(19)) is None


def test_a_scorer_by_length_follows_length_exactly() -> None:
    rng = np.random.default_rng(3)
    longer = rng.integers(-400, 400, 500)
    groups = np.arange(500)
    same = follows_length(longer / 7, longer, groups, replicates=100)
    other = follows_length(-longer, longer, groups, replicates=100)
    free = follows_length(rng.normal(size=500), longer, groups, replicates=400)
    assert same is not None
    assert other is not None
    assert free is not None
    assert same.value == pytest.approx(1)
    assert other.value == pytest.approx(-1)
    assert free.interval is not None
    assert free.interval[0] < 0 < free.interval[1]
    assert follows_length(np.zeros(5), np.ones(5), np.arange(5)) is None
    assert follows_length([], [], []) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_following_length_does_not_depend_on_which_side_is_called_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins, longer = rng.normal(size=30), rng.integers(-5, 6, 30)
    turned = rng.choice([-1, 1], 30)
    groups = np.arange(30)
    one = follows_length(margins, longer, groups, replicates=10)
    other = follows_length(margins * turned, longer * turned, groups, replicates=10)
    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(other.value, abs=1e-12)
    both = spearmanr(np.concatenate([margins, -margins]), np.concatenate([longer, -longer]))
    assert one.value == pytest.approx(both.statistic, abs=1e-9)


def test_buckets_part_the_pairs_by_relative_length() -> None:
    rows = dict(length_buckets([10, 80, 100, 150, 500, 0], [100, 100, 100, 100, 100, 100]))
    assert [int(row.sum()) for row in rows.values()] == [1, 1, 1, 1, 1]
    assert not any(row[5] for row in rows.values())


def test_scalar_scores_are_invariant_and_a_planted_place_is_found() -> None:
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(200, 2))
    forward, reverse = scores[:, 0] - scores[:, 1], -(scores[:, 1] - scores[:, 0])
    same = order_swap(forward, reverse)
    assert same is not None
    assert same.is_invariant
    assert same.flips == 0
    moved = order_swap(forward + 0.4, reverse - 0.4)
    assert moved is not None
    assert not moved.is_invariant
    assert moved.toward_first == pytest.approx(0.4)
    assert moved.flips == int((np.sign(forward + 0.4) != np.sign(forward - 0.4)).sum()) > 0
    assert moved.flip_interval[0] < moved.flips / 200 < moved.flip_interval[1]


def test_slices_pool_what_is_small_and_find_a_planted_weakness() -> None:
    rng = np.random.default_rng(5)
    groups = np.arange(1000)
    is_code = groups < 300
    right = rng.random(1000) < np.where(is_code, 0.5, 0.9)
    margins = np.where(right, 1.0, -1.0)
    rows = [("code", is_code), ("prose", ~is_code), ("a", groups < 4), ("b", groups < 9)]
    code, prose, rest = sliced(margins, groups, rows)
    assert code.accuracy.interval[1] < prose.accuracy.interval[0]
    assert (code.accuracy.n, prose.accuracy.n) == (300, 700)
    assert (rest.name, rest.pooled, rest.accuracy.n) == ("2 smaller", 2, 9)
    assert [one.name for one in sliced(margins, groups, [("a", groups < 4)])] == ["all"]
    assert sliced(margins, groups, [("none", groups < 0)]) == []
