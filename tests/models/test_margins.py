from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from models.margins import FEWEST, Madpo, fit_slope, logistic


def test_weights_have_the_published_values() -> None:
    found = Madpo().weight([0.88, -0.88, 2, -2, 12, -12])
    assert found == pytest.approx([1.206, 0.503, 1.114, 0.158, 0.998, 1.0], abs=6e-4)


def test_factor_is_one_at_the_threshold_and_between_its_ends() -> None:
    one = Madpo(largest=3.0, least=0.25, steepness=2.0, threshold=4.0)
    assert one.factor(4.0) == pytest.approx(1.0)
    assert one.weight(4.0) == pytest.approx(1.0)
    assert one.factor([0.0, 1e6]) == pytest.approx([3.0, 0.25], abs=5e-3)
    assert np.isfinite(one.weight([-1e6, 1e6])).all()


@pytest.mark.parametrize(("g", "optimum"), [(0.5, 1.00), (2.0, 3.96), (5.0, 8.28)])
def test_optimum_of_weighted_labels_is_the_tempered_margin(g: float, optimum: float) -> None:
    """Labels fall as sigmoid(g); each weighs by the margin as it is signed for that label."""
    madpo, share = Madpo(), float(logistic(g))
    agrees, disagrees = share * madpo.weight(g), (1 - share) * madpo.weight(-g)

    def loss(z: float) -> float:
        return float(agrees * np.logaddexp(0, -z) + disagrees * np.logaddexp(0, z))

    found = minimize_scalar(loss, bounds=(-20, 20), method="bounded", options={"xatol": 1e-9})
    assert found.x == pytest.approx(float(madpo.factor(g)) * g, abs=1e-5)
    assert found.x == pytest.approx(optimum, abs=6e-3)


@given(st.floats(-6.9, 6.9))
def test_both_labels_weigh_to_a_probability_inside_the_threshold(g: float) -> None:
    madpo, share = Madpo(), float(logistic(g))
    total = share * madpo.weight(g) + (1 - share) * madpo.weight(-g)
    assert float(total) == pytest.approx(1.0)


def test_unsigned_margins_would_give_other_weights() -> None:
    """The usual wrong port: a label against the model must weigh less than one for it."""
    madpo = Madpo()
    assert madpo.weight(-2.0) < 0.2
    assert madpo.weight(2.0) > 1


@pytest.mark.parametrize("bad", [{"largest": 1.0}, {"least": 1.0}, {"steepness": 0}])
def test_impossible_weights_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no such weights"):
        Madpo(**bad)


@pytest.mark.parametrize("slope", [0.05, 0.4, 3.0])
def test_planted_temperature_is_found_within_its_interval(slope: float) -> None:
    rng = np.random.default_rng(7)
    margins = rng.normal(size=8_000) / slope * 2
    labels = rng.random(8_000) < logistic(slope * margins)
    found = fit_slope(margins, labels, np.arange(8_000) // 2)
    assert found is not None
    assert found.low < slope < found.high
    assert (found.n, found.groups) == (8_000, 4_000)
    assert found.slope == pytest.approx(slope, rel=0.15)


def test_interval_widens_where_pairs_of_a_prompt_are_one_and_the_same() -> None:
    rng = np.random.default_rng(3)
    margins = np.repeat(rng.normal(size=500), 10)
    labels = np.repeat(rng.random(500) < logistic(margins[::10]), 10)
    alone = fit_slope(margins, labels, np.arange(5_000))
    together = fit_slope(margins, labels, np.arange(5_000) // 10)
    assert alone is not None
    assert together is not None
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_no_temperature_from_too_little_or_from_what_has_no_best() -> None:
    x = np.linspace(-2, 2, 200)
    groups = np.arange(200)
    assert fit_slope(x[: FEWEST - 1], np.ones(FEWEST - 1), groups[: FEWEST - 1]) is None
    assert fit_slope(np.zeros(200), np.ones(200), groups) is None
    assert fit_slope(x, x > 0, groups) is None, "never wrong"
    assert fit_slope(x, x < 0, groups) is None, "never right"
