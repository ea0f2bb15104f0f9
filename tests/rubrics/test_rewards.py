"""Rewards of a rubric: the arithmetic, and METHODS 1.2 with the reward added to a model's."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubrics.rewards import (
    Scaling,
    binary,
    combine,
    ranked,
    satisfied,
    scaling_of,
    scaling_to,
    share_satisfied,
    spread,
    weighted_sum,
)
from rubrics.simulated.rules import WANTED
from tests.rubrics.test_generator_autorule import RM_UTILITY, TRUE, Planted, drawn, scored

Report = Callable[[str, str], None]
finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_what_does_not_apply_is_satisfied_or_not_as_asked() -> None:
    yes, neither = [[0.2, 0.2]], [[0.7, 0.7]]
    signs = [1, -1]
    assert satisfied(yes, neither, signs)[0] == pytest.approx([0.9, 0.8])
    half = satisfied(yes, neither, signs, not_applicable="half")
    assert half[0] == pytest.approx([0.55, 0.45])
    never = satisfied(yes, neither, signs, not_applicable="unsatisfied")
    assert never[0] == pytest.approx([0.2, 0.1])


@given(st.floats(0, 1), st.floats(0, 1))
def test_criterion_and_its_opposite_are_satisfied_by_opposite_verdicts(a: float, b: float) -> None:
    yes, neither = a * (1 - b), b
    no = 1 - yes - neither
    one = satisfied([[yes]], [[neither]], [-1])[0, 0]
    other = satisfied([[no]], [[neither]], [1])[0, 0]
    assert one == pytest.approx(other)


def test_weighted_sum_keeps_signs_and_counts_half_where_it_does_not_apply() -> None:
    yes, neither = [[1, 0.5, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 0]]
    assert weighted_sum(yes, neither, [2, -1, 4]) == pytest.approx([2 - 0.5 + 2, 0])


def test_weighted_sum_is_unknown_where_a_verdict_is_but_not_where_none_is_asked() -> None:
    yes = [[1, np.nan], [1, np.nan]]
    found = weighted_sum(yes, np.zeros((2, 2)), [1, 1], counts=[[True, True], [True, False]])
    assert np.isnan(found[0])
    assert found[1] == 1


def test_two_responses_get_exactly_the_win_and_the_loss() -> None:
    assert binary([0.3, 0.7]) == [-0.1, 1.0]
    assert binary([0.3, 0.7], lose=-0.7) == [-0.7, 1.0]
    assert binary([0.5, 0.5]) == [0.0, 0.0]
    with pytest.raises(ValueError, match="no rank"):
        binary([0.5, float("nan")])


@given(st.lists(finite, min_size=1, max_size=12), st.floats(-1, 0.9))
def test_binary_follows_the_rewards_and_equal_ones_share(rewards: list[float], lose: float) -> None:
    ranks, found = ranked(rewards), binary(rewards, lose=lose)
    worst = max(ranks)
    for rank, value in zip(ranks, found, strict=True):
        line = 1 - (rank - 1) / (worst - 1) * (1 - lose) if worst > 1 else 0
        assert value == pytest.approx(line)
    for one, first in zip(found, rewards, strict=True):
        for other, second in zip(found, rewards, strict=True):
            if abs(first - second) <= 1e-9:
                assert one == pytest.approx(other) or len(set(rewards)) > 2
            elif first > second:
                assert one >= other


def test_spread_is_that_within_prompts() -> None:
    values, prompts = [0, 2, 100, 102], [1, 1, 2, 2]
    assert spread(values, prompts) == pytest.approx(np.sqrt(2))
    assert spread(values) == pytest.approx(np.std(values))
    assert spread([1, 3, np.nan], [1, 2, 2]) == pytest.approx(1), "no prompt has two: that of all"


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=30))
def test_rubric_gets_the_models_spread_and_mean_zero(rows: list[tuple[float, float]]) -> None:
    rubric, model = np.array(rows).T
    if min(spread(rubric), spread(model)) < 1e-3:
        return
    scaled = scaling_to(rubric, model).of(rubric)
    assert scaled.std() == pytest.approx(model.std(), rel=1e-6)
    assert scaled.mean() == pytest.approx(0, abs=1e-6 * model.std() + 1e-6 * abs(scaled).max())


def test_scale_is_refused_where_nothing_differs() -> None:
    with pytest.raises(ValueError, match="different shares"):
        scaling_of([1, 1, 1])
    with pytest.raises(ValueError, match="different shares"):
        scaling_of([1, np.nan])
    with pytest.raises(ValueError, match="alike"):
        scaling_to([1, 2], [3, 3])


def test_combined_is_unknown_where_either_is() -> None:
    found = combine([1, np.nan, 2], [1, 1, np.nan], weight=2, scaling=Scaling(0.5, 0.5))
    assert found[0] == 3
    assert np.isnan(found[1:]).all()


def test_combined_reward_beats_a_hacked_model_on_best_of_64(
    record_testsuite_property: Report,
) -> None:
    """METHODS 1.2: the pick of 64 by the model alone, by both, and by truth; length is its hack."""
    rng = np.random.default_rng(11)
    prompts, n = 12, 64
    answers = [drawn(rng, f"{at}.{i}", correlation=0.0) for at in range(prompts) for i in range(n)]
    groups = np.repeat(np.arange(prompts), n)
    truth = np.array([one.utility for one in answers])
    model = np.array([RM_UTILITY * one.utility + one.length for one in answers])
    rules = [WANTED[name][0] for name in TRUE]
    rubric = share_satisfied(scored(rules, answers))
    both = combine(model, rubric, weight=1.0, scaling=scaling_to(rubric, model, groups))

    def utility_of_pick(reward: np.ndarray) -> float:
        picks = reward.reshape(prompts, n).argmax(axis=1) + np.arange(prompts) * n
        return float(truth[picks].mean())

    found = {
        "model": utility_of_pick(model),
        "model and rubric": utility_of_pick(both),
        "rubric": utility_of_pick(rubric),
        "any": float(truth.mean()),
        "best there is": utility_of_pick(truth),
    }
    record_testsuite_property("rewards: utility of the best of 64", json.dumps(found))
    assert found["model and rubric"] > found["model"] + 0.5
    assert found["model and rubric"] <= found["best there is"]


def test_padding_lowers_the_combined_reward_where_the_model_rewards_it() -> None:
    rng = np.random.default_rng(5)
    plain = [drawn(rng, f"{at}", correlation=0.0) for at in range(16)]
    short = [Planted(" ".join(one.text.split()[-40:]), one.utility, 0.0) for one in plain]
    padded = [Planted(one.text + " and so on" * 40, one.utility, 1.0) for one in short]
    rules = [WANTED[name][0] for name in TRUE]
    rubric = share_satisfied(scored(rules, [*short, *padded], concise=True))
    model = np.array([one.utility * RM_UTILITY + one.length for one in (*short, *padded)])
    groups = np.tile(np.arange(16), 2)
    both = combine(model, rubric, weight=2.0, scaling=scaling_to(rubric, model, groups))
    has_some = rubric[:16] > 0  # one that satisfies nothing has nothing to lose
    assert (model[16:] > model[:16]).all()
    assert (rubric[16:] < rubric[:16])[has_some].all()
    assert both[16:][has_some].mean() < both[:16][has_some].mean()
