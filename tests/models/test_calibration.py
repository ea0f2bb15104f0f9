"""Calibration: planted over-confidence is found, a calibrated judge is not accused, maps mend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.calibration import (
    Bin,
    brier,
    calibration_error,
    describe,
    edges_of,
    log_loss,
    reliability,
)
from models.calibrators import CALIBRATORS, cross_fitted
from models.intervals import wilson

N = 3000


def judge(seed: int, *, sharpness: float = 1.0, n: int = N) -> tuple[np.ndarray, ...]:
    """Confidences in .5..1, outcomes, and the true chances: odds to the power of ``sharpness``."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 0.999, n)
    chance = expit(sharpness * logit(confidence))
    return confidence, (rng.random(n) < chance).astype(float), chance


def true_error(confidence: np.ndarray, chance: np.ndarray) -> float:
    """What the ECE estimates, without noise: the gap of means in each of the ten bins."""
    place = np.clip(((confidence - 0.5) * 20).astype(int), 0, 9)
    gaps = np.bincount(place, weights=confidence - chance, minlength=10)
    return float(np.abs(gaps).sum() / len(confidence))


def test_planted_over_confidence_is_found_within_its_interval():
    covered, debiased, raw = 0, [], []
    for seed in range(30):
        confidence, correct, chance = judge(seed, sharpness=0.4)
        truth = true_error(confidence, chance)
        found = calibration_error(confidence, correct, edges_of(confidence, low=0.5), seed=seed)
        assert found.interval is not None
        covered += found.interval[0] <= truth <= found.interval[1]
        debiased.append(found.debiased - truth)
        raw.append(found.value - truth)
    assert true_error(*judge(0, sharpness=0.4)[::2]) > 0.1
    assert covered >= 26
    assert abs(np.mean(debiased)) < 0.005
    assert np.abs(raw).max() < 0.03


def test_a_calibrated_judge_shows_what_is_expected_of_one_and_no_more():
    found = []
    for seed in range(20):
        confidence, correct, _ = judge(seed)
        found.append(calibration_error(confidence, correct, edges_of(confidence, low=0.5)))
    values, expected = [one.value for one in found], [one.expected for one in found]
    assert min(values) > 0  # the bias that the module warns of
    assert np.mean(values) == pytest.approx(np.mean(expected), rel=0.15)
    assert np.mean([one.debiased for one in found]) < 0.65 * np.mean(values)
    assert np.mean([one.interval[0] for one in found]) < np.mean(expected)
    # Nothing to say of most bins: each has its own 95 % interval.
    bins = [reliability(*judge(seed)[:2], np.linspace(0.5, 1, 11)) for seed in range(20)]
    inside = [one.interval[0] <= one.says <= one.interval[1] for row in bins for one in row]
    assert np.mean(inside) > 0.9


def test_expected_error_is_the_same_drawn_or_by_formula():
    confidence, correct, _ = judge(4, n=20_000)
    more = np.tile(confidence, 2), np.tile(correct, 2)
    drawn = calibration_error(confidence, correct, edges_of(confidence, low=0.5))
    formula = calibration_error(*more, edges_of(confidence, low=0.5), replicates=5)
    assert drawn.expected / np.sqrt(2) == pytest.approx(formula.expected, rel=0.1)


def test_bins_by_hand():
    bins = reliability([0.51, 0.54, 0.55, 0.98, 1.0], [1, 0, 1, 1, 0], np.linspace(0.5, 1, 11))
    assert [(one.n, one.share) for one in bins] == [(2, 0.5), (1, 1.0), (2, 0.5)]
    assert bins[0].says == pytest.approx(0.525)
    assert bins[2].interval == wilson(1, 2)
    found = calibration_error(
        [0.51, 0.54, 0.55, 0.98, 1.0], [1, 0, 1, 1, 0], np.linspace(0.5, 1, 11)
    )
    assert found.value == pytest.approx((2 * 0.025 + 0.45 + 2 * 0.49) / 5)
    assert (found.n, found.bins, found.groups) == (5, 3, 5)


def test_scores_by_hand():
    assert brier([0.8, 0.6], [1, 0]).value == pytest.approx((0.04 + 0.36) / 2)
    assert log_loss([0.8, 0.6], [1, 0]).value == pytest.approx(-np.log([0.8, 0.4]).mean())
    assert np.isfinite(log_loss([1.0, 0.0], [0, 1]).value)
    assert brier([0.8], [1]).interval is None  # one case says nothing of its spread
    with pytest.raises(ValueError, match="no cases"):
        brier([], [])


def test_bins_of_equal_mass_hold_as_many_and_part_no_equal_confidences():
    confidence = np.random.default_rng(0).beta(5, 1, 1000)
    bins = reliability(confidence, np.ones(1000), edges_of(confidence, mass=True))
    assert len(bins) == 10
    assert {one.n for one in bins} <= {99, 100, 101}
    said = np.repeat([0.6, 0.9], [950, 50])
    assert len(reliability(said, said > 0.7, edges_of(said, mass=True))) <= 2


def test_interval_counts_prompts_and_not_rows():
    confidence, correct, _ = judge(1, sharpness=0.4, n=400)
    edges = edges_of(confidence, low=0.5)
    once = calibration_error(confidence, correct, edges)
    again = calibration_error(
        np.repeat(confidence, 5), np.repeat(correct, 5), edges, groups=np.repeat(np.arange(400), 5)
    )
    assert again.value == pytest.approx(once.value)
    width = once.interval[1] - once.interval[0]
    assert again.interval[1] - again.interval[0] == pytest.approx(width, rel=0.2)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.booleans(),
)
def test_any_confidences_give_finite_figures_and_lose_no_case(rows, mass):
    confidence, correct = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    edges = edges_of(confidence, mass=mass)
    assert sum(one.n for one in reliability(confidence, correct, edges)) == len(rows)
    found = calibration_error(confidence, correct, edges, replicates=20)
    assert 0 <= found.debiased <= found.value <= 1
    assert np.isfinite([found.expected, log_loss(confidence, correct).value]).all()


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [([1.2], [1]), ([float("nan")], [1]), ([0.5], [2]), ([0.5, 0.6], [1])],
    ids=["above one", "nan", "no outcome", "shapes"],
)
def test_broken_input_is_refused(confidence, correct):
    with pytest.raises(ValueError, match=r"0\.\.1|must be equal"):
        reliability(confidence, correct, np.linspace(0, 1, 11))


@pytest.mark.parametrize("key", list(CALIBRATORS))
def test_maps_mend_an_overconfident_judge_on_cases_they_did_not_see(key):
    confidence, correct, chance = judge(7, sharpness=0.4)
    mended = cross_fitted(key, confidence, correct, np.arange(N))
    assert mended is not None
    edges = np.linspace(0, 1, 11)
    before = calibration_error(confidence, correct, edges).debiased
    after = calibration_error(mended, correct, edges).debiased
    best = log_loss(chance, correct).value  # the oracle
    assert before > 0.1
    assert after < 0.03
    assert (
        best < log_loss(mended, correct).value < best + 0.02 < log_loss(confidence, correct).value
    )


def test_cross_fitting_does_not_learn_from_its_own_prompt():
    """Coin flips told twice: a map that saw the twin would know the answer."""
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(0.5, 1, 600), rng.integers(0, 2, 600).astype(float)
    twice, same = np.tile(confidence, 2), np.tile(correct, 2)
    honest = cross_fitted("isotonic", twice, same, np.tile(np.arange(600), 2))
    leaky = cross_fitted("isotonic", twice, same, np.arange(1200))
    assert honest is not None
    assert leaky is not None
    assert log_loss(honest, same).value > log_loss(leaky, same).value


def test_maps_need_enough_to_learn_from():
    assert cross_fitted("platt", [0.7] * 10, [1] * 10, range(10)) is None
    assert cross_fitted("platt", np.full(200, 0.7), np.ones(200), np.arange(200)) is None
    confidence, correct, _ = judge(0, n=200)
    assert cross_fitted("platt", confidence, correct, np.zeros(200)) is None
    with pytest.raises(LookupError, match="no method"):
        cross_fitted("crystal-ball", confidence, correct, np.arange(200))


def test_sentence_names_the_ranges_that_are_off():
    def one(low: float, says: float, hits: int, n: int = 100) -> Bin:
        return Bin(low, low + 0.05, says, hits / n, wilson(hits, n), n)

    assert describe([one(0.65, 0.67, 50), one(0.7, 0.72, 55), one(0.9, 0.92, 93)]) == (
        "Overconfident between 65 and 75 %."
    )
    assert describe([one(0.5, 0.52, 70)]) == "Underconfident between 50 and 55 %."
    assert describe([one(0.5, 0.52, 52)]) == "No bin is off by more than chance."
