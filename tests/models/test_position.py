"""What showing order does to a judge, on planted judges whose bias is known (METHODS 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binom

from models.position import (
    agree_only,
    both_orders,
    consistency,
    first_slot_share,
    slot_bias,
    slot_bias_gaussian,
    slot_bias_of_items,
    soft_average,
)
from tests.planted_world import choose, order_figures

SEEDS = 20
PAIRS = 4_000
NOISE = 0.7

Floats = NDArray[np.float64]
# Planted bias: accuracy in one order, first-slot wins, consistency, accuracy of the consistent,
# accuracy with the better one first, and second. The table of METHODS 2.1.
TABLE = {
    0.0: (0.805, 0.49, 0.73, 0.917, 0.81, 0.81),
    0.5: (0.770, 0.66, 0.62, 0.934, 0.93, 0.61),
    1.5: (0.604, 0.89, 0.22, 0.989, 1.0, 0.21),
}


def judged(
    seed: int, bias: float, *, link: str = "gaussian", pairs: int = PAIRS
) -> tuple[Floats, Floats, Floats]:
    """Differences, and choices with the first shown first and with the second shown first."""
    rng = np.random.default_rng(seed)
    difference = rng.normal(size=pairs)
    how: dict[str, Any] = {"rng": rng, "noise": NOISE, "link": link, "position_bias": bias}
    return difference, choose(difference, **how), choose(-difference, **how)


def rows(forward: Floats, backward: Floats) -> tuple[Any, Any, Any]:
    """Pairs of two items each, in both orders, as rows (first, second, outcome)."""
    i = np.arange(len(forward)) * 2
    return np.r_[i, i + 1], np.r_[i + 1, i], np.r_[forward, backward].astype(int)


@pytest.mark.parametrize("estimator", [slot_bias, slot_bias_gaussian])
def test_answers_said_again_are_no_new_evidence_on_bias(estimator: Callable[..., Any]) -> None:
    _, forward, backward = judged(1, 0.5, pairs=500)
    once = estimator(*rows(forward, backward))
    again = rows(np.tile(forward, 4), np.tile(backward, 4))
    pair = np.tile(np.arange(500), 8)
    naive, clustered = estimator(*again), estimator(*again, clusters=pair)
    assert clustered.standard_error == pytest.approx(once.standard_error, rel=0.02)
    assert naive.standard_error == pytest.approx(once.standard_error / 2, rel=0.02)
    assert clustered.b == naive.b
    own = estimator(*rows(forward, backward), clusters=np.tile(np.arange(500), 2))
    assert own.interval == pytest.approx(once.interval)


@pytest.mark.parametrize("bias", TABLE)
def test_planted_judges_show_the_figures_of_the_table(bias: float) -> None:
    drawn = [order_figures(*judged(seed, bias)) for seed in range(SEEDS)]
    names = (
        "accuracy",
        "first_share",
        "consistency",
        "accuracy_consistent",
        "accuracy_forward",
        "accuracy_reversed",
    )
    seen = [np.mean([getattr(one, name) for one in drawn]) for name in names]
    assert np.abs(np.array(seen) - TABLE[bias]).max() < 0.015


@pytest.mark.parametrize("bias", TABLE)
def test_share_and_consistency_are_those_of_the_table(bias: float) -> None:
    shares, alike = [], []
    for seed in range(SEEDS):
        _, forward, backward = judged(seed, bias, pairs=1_000)
        first, second, outcome = rows(forward, backward)
        clusters = np.minimum(first, second)
        share = first_slot_share(outcome, clusters)
        same = consistency(first, second, outcome)
        assert share is not None
        assert same is not None
        assert share.groups == same.n == 1_000
        assert share.interval[0] < share.accuracy < share.interval[1]
        shares.append(share.accuracy)
        alike.append(same.accuracy)
    assert abs(np.mean(shares) - TABLE[bias][1]) < 0.015
    assert abs(np.mean(alike) - TABLE[bias][2]) < 0.015


@pytest.mark.parametrize("bias", TABLE)
def test_agree_only_beats_one_order_on_what_it_keeps(
    bias: float, record_property: Callable[[str, str], None]
) -> None:
    """Its coverage stands beside it: what it drops are the hard pairs."""
    single, agreed, covered = [], [], []
    for seed in range(SEEDS):
        difference, forward, backward = judged(seed, bias)
        truth = np.sign(difference)
        kept = agree_only(forward, backward)
        single.append(np.mean([forward == truth, -backward == truth]))
        agreed.append((kept == truth)[kept != 0].mean())
        covered.append((kept != 0).mean())
        assert agreed[-1] > single[-1]
    means = [float(np.mean(one)) for one in (single, agreed, covered)]
    record_property(
        "single order, agree-only, its coverage; a judge without noise has 1", str(means)
    )
    assert means[0] + 0.1 < means[1] < 1
    assert abs(np.mean(agreed) - TABLE[bias][3]) < 0.015
    assert abs(np.mean(covered) - TABLE[bias][2]) < 0.015


@pytest.mark.parametrize("bias", [0.5, 1.5])
def test_soft_average_takes_the_bias_out_of_every_pair(bias: float) -> None:
    """One biased order < both averaged <= both of a judge that has no bias, on all pairs."""
    scores: dict[str, list[float]] = {"one": [], "both": [], "unbiased": []}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        difference = rng.normal(size=PAIRS)
        noise = rng.normal(scale=NOISE, size=(2, PAIRS))
        spread = NOISE * np.sqrt(1 + NOISE**2)

        def chances(b: float, d: Floats = difference, e: Floats = noise, s: float = spread) -> Any:
            return ndtr((d + b + e[0]) / s), ndtr((-d + b + e[1]) / s)

        truth = difference > 0
        ahead, behind = chances(bias)
        scores["one"].append(np.mean((ahead > 0.5) == truth))
        scores["both"].append(np.mean((soft_average(ahead, behind) > 0.5) == truth))
        scores["unbiased"].append(np.mean((soft_average(*chances(0.0)) > 0.5) == truth))
    one, both, unbiased = (np.mean(scores[name]) for name in ("one", "both", "unbiased"))
    assert one + 0.02 < both <= unbiased + 0.005


def test_soft_average_of_a_mere_bias_is_one_half() -> None:
    assert soft_average([0.9, 0.2], [0.9, 0.2]) == pytest.approx([0.5, 0.5])
    assert soft_average([0.9], [0.3]) == pytest.approx([0.8])


def test_agree_only_keeps_what_both_orders_name() -> None:
    assert agree_only([1, 1, -1, 0, 0, 1], [-1, 1, 1, 0, 1, 0]).tolist() == [1, 0, -1, 0, 0, 0]


@pytest.mark.parametrize("bias", TABLE)
def test_log_odds_of_a_logistic_judge_are_recovered(bias: float) -> None:
    """Noise of scale s makes a bias of b worth b / s log-odds, whatever the pairs are."""
    found, covers = [], 0
    for seed in range(SEEDS):
        _, forward, backward = judged(seed, bias, link="logistic")
        bias_found = slot_bias(*rows(forward, backward))
        assert bias_found is not None
        low, high = bias_found.interval
        found.append(bias_found.b)
        covers += low <= bias / NOISE <= high
        assert bias_found.informative == np.count_nonzero(forward == backward)
    assert abs(np.mean(found) - bias / NOISE) < 0.1
    assert binom.cdf(covers, SEEDS, 0.95) > 1e-3


@pytest.mark.parametrize("bias", TABLE)
def test_bias_among_gaussian_utilities_is_recovered(bias: float) -> None:
    """On the scale of the table: 1 is how far apart two answers usually are."""
    fits = [slot_bias_gaussian(*rows(*judged(seed, bias)[1:])) for seed in range(SEEDS)]
    found = [fit.b for fit in fits if fit is not None]
    noise = [fit.noise for fit in fits if fit is not None and fit.noise is not None]
    covers = sum(fit.interval[0] <= bias <= fit.interval[1] for fit in fits if fit is not None)
    assert len(found) == SEEDS
    assert abs(np.mean(found) - bias) < 0.1
    assert abs(np.mean(noise) - NOISE) < 0.1
    assert binom.cdf(covers, SEEDS, 0.95) > 1e-3


def test_bias_is_the_same_when_pairs_are_asked_several_times() -> None:
    """Repeats come from one difference: strata of any size."""
    rng = np.random.default_rng(0)
    pairs, repeats = 1_500, 4
    difference = rng.normal(scale=2, size=pairs).repeat(repeats)
    i = (np.arange(pairs) * 2).repeat(repeats)
    ahead = choose(difference, rng=rng, link="logistic", noise=1, position_bias=0.6)
    behind = choose(-difference, rng=rng, link="logistic", noise=1, position_bias=0.6)
    found = slot_bias(np.r_[i, i + 1], np.r_[i + 1, i], np.r_[ahead, behind])
    assert found is not None
    assert abs(found.b - 0.6) < 0.1
    assert found.interval[0] < 0.6 < found.interval[1]


def test_naive_regression_would_double_the_bias() -> None:
    """Why pairs are conditioned out: one score per answer of a single pair is too many."""
    _, forward, backward = judged(3, 0.5, link="logistic", pairs=800)
    first, second, outcome = rows(forward, backward)
    naive = slot_bias_of_items(first, second, outcome, n_items=1_600, ridge=1e-4)
    conditioned = slot_bias(first, second, outcome)
    assert conditioned is not None
    assert naive.b > 1.6 * conditioned.b


@pytest.mark.parametrize("seed", range(3))
def test_generators_that_meet_often_give_the_bias_from_one_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 12, size=20_000)
    second = (first + rng.integers(1, 12, size=20_000)) % 12
    scores = rng.normal(size=12)
    chance = 1 / (1 + np.exp(scores[second] - scores[first] - 0.5))
    outcome = np.where(rng.random(20_000) < chance, 1, -1)
    found = slot_bias_of_items(first, second, outcome, n_items=12)
    assert abs(found.b - 0.5) < 0.1
    assert found.standard_error == pytest.approx(1 / np.sqrt(20_000 * 0.2), rel=0.3)


def test_naming_items_differently_changes_nothing() -> None:
    first, second, outcome = rows(*judged(1, 0.5, pairs=300)[1:])
    codes = np.random.default_rng(0).permutation(600)
    shuffled = np.random.default_rng(1).permutation(600)
    here, there = slot_bias(first, second, outcome), slot_bias(
        codes[first][shuffled], codes[second][shuffled], outcome[shuffled]
    )  # fmt: skip
    assert here is not None
    assert there is not None
    assert here.b == pytest.approx(there.b)
    assert here.standard_error == pytest.approx(there.standard_error)


def test_turning_every_outcome_turns_the_bias() -> None:
    first, second, outcome = rows(*judged(1, 0.5, pairs=300)[1:])
    here, there = slot_bias(first, second, outcome), slot_bias(first, second, -outcome)
    assert here is not None
    assert there is not None
    assert here.b == pytest.approx(-there.b)


def test_pairs_in_one_order_say_nothing_of_bias() -> None:
    first, second, outcome = [0, 2, 4], [1, 3, 5], [1, 1, -1]
    assert slot_bias(first, second, outcome) is None
    assert slot_bias_gaussian(first, second, outcome) is None
    assert consistency(first, second, outcome) is None
    assert both_orders(first, second, outcome).left_out == 3
    share = first_slot_share(outcome)
    assert share is not None
    assert share.accuracy == pytest.approx(2 / 3)


def test_bias_without_a_counterexample_stays_finite_and_wide() -> None:
    found = slot_bias([0, 1, 2, 3], [1, 0, 3, 2], [1, 1, 1, 1])
    assert found is not None
    assert 0 < found.b < 3
    assert found.interval[0] < 0 < found.interval[1]


def test_ties_count_half() -> None:
    pair, tie = ([0, 1], [1, 0]), [0, 0]
    found = slot_bias(*pair, tie)
    assert found is not None
    assert found.b == pytest.approx(0)
    alike = consistency(*pair, tie)
    assert alike is not None
    assert alike.accuracy == 1
    share = first_slot_share([1, 0, 0, -1])
    assert share is not None
    assert (share.accuracy, share.n, share.ties) == (0.5, 2, 2)


def test_answers_that_agree_by_chance_only_leave_the_gaussian_scale_unknown() -> None:
    rng = np.random.default_rng(0)
    coins = np.sign(rng.normal(size=(2, 40)))
    coins[1] = coins[0]  # never the same item: less than by chance
    assert slot_bias_gaussian(*rows(coins[0], coins[1])) is None


@pytest.mark.parametrize(
    ("first", "second", "outcome", "says"),
    [
        pytest.param([0], [0], [1], "itself", id="itself"),
        pytest.param([0, 1], [1], [1, 1], "equal", id="shapes"),
        pytest.param([0], [1], [2], "outcome", id="outcome"),
        pytest.param([-1], [1], [1], "0 or more", id="codes"),
        pytest.param([0.5], [1.0], [1], "whole", id="floats"),
    ],
)
def test_refuses_rows_that_are_none(first: Any, second: Any, outcome: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        slot_bias(first, second, outcome)


def test_no_rows_are_no_figures() -> None:
    assert slot_bias([], [], []) is None
    assert first_slot_share([]) is None
    with pytest.raises(ValueError, match="no answers"):
        slot_bias_of_items([], [], [], n_items=2)
