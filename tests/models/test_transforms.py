"""Scales of rewards, METHODS 3.11, and conservative ensembles, METHODS 3.7."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import transforms
from models.objectives import OBJECTIVES
from models.transforms import (
    Reference,
    ensemble_mean,
    ensemble_penalized,
    ensemble_worst,
    log_sigmoid,
    par,
    standardized,
    standardized_members,
)

SCORES = st.floats(-15, 15)  # further apart a chance is 1 in floating point


def test_standardizing_makes_the_reference_set_mean_0_deviation_1() -> None:
    scores = np.random.default_rng(0).normal(4, 3, 500)
    found = standardized(scores, Reference.of(scores))
    assert found.mean() == pytest.approx(0, abs=1e-12)
    assert found.std() == pytest.approx(1)


def test_reference_of_equal_scores_divides_by_nothing() -> None:
    reference = Reference.of([0.1 + 0.2] * 7)
    assert reference.scale == 1.0
    assert standardized([1.3], reference) == pytest.approx([1.0])


def test_reference_leaves_out_what_is_no_number_and_refuses_none() -> None:
    assert Reference.of([1.0, np.nan, 3.0, np.inf]) == Reference(2.0, 1.0, 2)
    with pytest.raises(ValueError, match="needs a score"):
        Reference.of([np.nan])


def test_stored_reference_is_read_back_and_a_broken_one_is_refused() -> None:
    reference = Reference.of([1.0, 2.0, 4.0])
    assert Reference.from_json(reference.as_json()) == reference
    with pytest.raises(ValueError, match="above 0"):
        Reference.from_json({"center": 0, "scale": 0, "n": 3})


def test_values_by_hand() -> None:
    assert par([1.0], [[0.0, 1.0]]) == pytest.approx([(0.7310586 + 0.5) / 2])
    assert log_sigmoid([1.0], [[0.0]]) == pytest.approx([-0.3132617])
    # References -1 and 1: mean 0, deviation 1, so the 85th percentile is z(.85) = 1.0364334.
    assert log_sigmoid([1.0364334], [[-1.0, 1.0]]) == pytest.approx([-0.6931472])
    assert log_sigmoid([0.0], [[-1.0, 1.0]], quantile=None) == pytest.approx([-0.6931472])
    assert transforms.chance([0.0, 2.0]) == pytest.approx([0.5, 0.8807971])


@given(
    st.lists(st.tuples(SCORES, SCORES, SCORES, st.floats(-100, 100)), min_size=1, max_size=20),
)
def test_constant_of_a_prompt_changes_nothing_and_bounds_hold(
    rows: list[tuple[float, float, float, float]],
) -> None:
    rewards, one, other, offset = np.array(rows).T
    references = np.stack([one, other], axis=1)
    moved = references + offset[:, None]
    for transform in (par, log_sigmoid):
        before, after = transform(rewards, references), transform(rewards + offset, moved)
        np.testing.assert_allclose(after, before, atol=1e-9)
    assert ((par(rewards, references) > 0) & (par(rewards, references) < 1)).all()
    assert (log_sigmoid(rewards, references) <= 0).all()


def test_far_scores_neither_overflow_nor_warn() -> None:
    rewards, references = np.array([1e6, -1e6]), np.zeros((2, 1))
    assert par(rewards, references) == pytest.approx([1.0, 0.0])
    assert log_sigmoid(rewards, references) == pytest.approx([0.0, -1e6])


def test_prompt_without_references_has_no_reward_and_missing_ones_do_not_count() -> None:
    references = np.array([[0.0, np.nan], [np.nan, np.nan]])
    for transform in (par, log_sigmoid):
        found = transform([1.0, 1.0], references)
        assert found[0] == pytest.approx(transform([1.0], [[0.0]])[0])
        assert np.isnan(found[1])


@pytest.mark.parametrize("references", [[0.0, 0.0], [[0.0]], [[[0.0]]]])
def test_references_of_another_shape_are_refused(references: list[object]) -> None:
    with pytest.raises(ValueError, match="references"):
        par([1.0, 2.0], references)


def test_quantile_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        log_sigmoid([0.0], [[0.0]], quantile=1.0)


def test_log_sigmoid_asks_that_both_be_good() -> None:
    """Two independent rewards, the top 5 % by sum: METHODS 3.11 has .948 and 1.79 for raw scores,
    1.000 and 2.15 for LSC. Both lie under the oracle that maximizes the worse one."""
    dice = np.random.default_rng(0)
    rewards = dice.normal(size=(2, 20_000)) * 1.5
    reference = np.zeros((20_000, 1))
    top = 1000

    def both_good(total: np.ndarray) -> tuple[float, float]:
        chosen = rewards[:, np.argsort(-total)[:top]]
        return float((chosen > 0).all(axis=0).mean()), float(chosen.min(axis=0).mean())

    raw = both_good(rewards.sum(axis=0))
    lsc = both_good(sum(log_sigmoid(row, reference) for row in rewards))
    oracle = both_good(rewards.min(axis=0))
    assert raw[0] < 0.97
    assert lsc[0] == 1.0
    assert raw[1] + 0.2 < lsc[1] <= oracle[1] + 1e-9


def test_members_are_put_on_one_scale_before_the_worst_is_taken() -> None:
    dice = np.random.default_rng(1)
    quality = dice.normal(size=400)
    members = np.stack([quality + 0.1 * dice.normal(size=400) for _ in range(3)])
    offsets, units = np.array([[0.0], [500.0], [-70.0]]), np.array([[1.0], [40.0], [0.1]])
    references = dice.normal(size=(3, 300))
    told = standardized_members(members * units + offsets, references * units + offsets)
    np.testing.assert_allclose(told, standardized_members(members, references), atol=1e-9)
    # Unscaled, the worst case is that of the member with the lowest offset alone.
    lowest = np.argmin(members * units + offsets, axis=0)
    assert set(lowest) == {2}
    assert len(set(np.argmin(told, axis=0))) == 3


def test_ensemble_values_by_hand() -> None:
    members = [[0.0, 1.0], [2.0, 1.0]]
    assert ensemble_mean(members) == pytest.approx([1, 1])
    assert ensemble_worst(members) == pytest.approx([0, 1])
    assert ensemble_penalized(members) == pytest.approx([0.5, 1])  # the variance with ddof 0 is 1
    assert ensemble_penalized(members, penalty=0.1) == pytest.approx([0.9, 1])
    with pytest.raises(ValueError, match="2 members and references of 1"):
        standardized_members(members, [[0.0]])


def test_conservative_ensembles_pick_better_than_the_mean_and_worse_than_the_oracle() -> None:
    """METHODS 3.7: members that agree where they were trained and differ far outside; of many
    heavy-tailed candidates the best by a single member and by the mean are bad by the gold."""
    dice = np.random.default_rng(7)
    d, k, width, pairs, draws, n = 6, 5, 32, 400, 60, 512
    truth = dice.normal(size=d)

    def gold_of(x: np.ndarray) -> np.ndarray:
        return x @ truth - 0.05 * (x**2).sum(axis=-1)

    def member() -> Callable[[np.ndarray], np.ndarray]:
        """A net of one random layer, its head fitted to votes of which a quarter is wrong."""
        layer, bias = dice.normal(size=(d, width)), dice.normal(size=width)
        features = lambda x: np.maximum(x @ layer + bias, 0)  # (..., width)
        one, other = dice.normal(size=(2, pairs, d))
        won = np.sign(gold_of(one) - gold_of(other)) * np.where(dice.random(pairs) < 0.25, -1, 1)
        x = features(one) - features(other)
        head = np.linalg.solve(x.T @ x + 10 * np.eye(width), x.T @ won)
        return lambda x: features(x) @ head

    members = [member() for _ in range(k)]
    reference = dice.normal(size=(500, d))
    known = np.stack([one(reference) for one in members])
    picked: dict[str, list[float]] = {
        name: [] for name in ("single", "mean", "worst", "uwo", "best")
    }
    for _ in range(draws):
        candidates = dice.standard_t(2.0, size=(n, d))
        gold = gold_of(candidates)
        scores = standardized_members(np.stack([one(candidates) for one in members]), known)
        by = {
            "single": scores[0], "mean": ensemble_mean(scores), "worst": ensemble_worst(scores),
            "uwo": ensemble_penalized(scores), "best": gold,
        }  # fmt: skip
        for name, values in by.items():
            picked[name].append(float(gold[np.argmax(values)]))
    mean = {name: float(np.mean(values)) for name, values in picked.items()}
    careless = max(mean["single"], mean["mean"])
    assert mean["worst"] > careless
    assert mean["uwo"] > careless
    assert max(mean["worst"], mean["uwo"]) < mean["best"] - 0.5


def test_tables_name_what_exists() -> None:
    assert set(OBJECTIVES) >= transforms.LOG_ODDS
    assert set(transforms.TRANSFORMS) >= transforms.ON_PROMPT
