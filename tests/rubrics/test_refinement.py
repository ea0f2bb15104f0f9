"""Weights from score differences: planted criteria, exchanged sides, hostile input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from rubrics.l1 import Floats, NotConverged, Rows, c_grid, first_c, fit_weights, oriented, spreads
from rubrics.margins import gain
from rubrics.refinement import (
    Settings,
    cross_validated,
    held_out,
    hold_out,
    refine,
    refine_and_test,
)

PLANTED = 5
WEIGHTS = (2.0, 1.7, 1.4, 1.1, 0.8)
QUICK = Settings(bootstraps=4, n_cs=4, folds=3)


def planted(n: int, seed: int, *, copied: int = 0) -> tuple[Floats, Floats, Floats]:
    """(differences (n, 40), utility gaps (n,), first_wins (n,)): METHODS 1.3.

    Scores are uniform in [-1, 1]; criterion 5 is, for 80 % of answers, that of ``copied``.
    Labels are Bradley-Terry's.
    """
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(-1, 1, size=(2, n, 40))
    for scores in (first, second):
        copies = rng.uniform(size=n) < 0.8
        scores[copies, PLANTED] = scores[copies, copied]
    differences = first - second
    gaps = differences[:, :PLANTED] @ np.array(WEIGHTS)
    return differences, gaps, rng.uniform(size=n) < 1 / (1 + np.exp(-gaps))


def clean_accuracy(weights: Floats, differences: Floats, gaps: Floats) -> float:
    return float(np.mean((differences @ weights) * gaps > 0))


def recall(weights: Floats) -> float:
    return sum(at < PLANTED for at in np.argsort(-np.abs(weights))[:PLANTED]) / PLANTED


# The planted world ------------------------------------------------------------------------------


def test_planted_criteria_are_found_and_weighed() -> None:
    """Measured over 30 seeds: recall .69, .85, .95, .99 and clean accuracy .81, .89, .92, .94 at
    64, 128, 256, 512 pairs; equal weights .63, the oracle 1."""
    recalls, accuracies, copies = [], [], []
    options = Settings(bootstraps=0, top=40, n_cs=8)
    for seed in range(12):
        differences, gaps, wins = planted(2256, seed)
        found = refine(
            differences[:256], first_wins=wins[:256], groups=np.arange(256), settings=options
        )
        weights = found.path[found.at].weights
        recalls.append(recall(weights))
        accuracies.append(clean_accuracy(weights, differences[256:], gaps[256:]))
        copies.append(abs(weights[PLANTED]) > abs(weights[0]))
        equal = clean_accuracy(np.ones(40), differences[256:], gaps[256:])
        oracle = clean_accuracy(np.r_[WEIGHTS, np.zeros(35)], differences[256:], gaps[256:])
        assert equal < accuracies[-1] < oracle == 1
    assert np.mean(recalls) >= 0.9
    assert np.mean(accuracies) >= 0.9
    assert np.mean(copies) <= 0.1, "a copy does not push out its original"


def test_more_pairs_find_more() -> None:
    means = []
    for n in (64, 512):
        found = []
        for seed in range(10):
            differences, _, wins = planted(n, seed)
            found.append(recall(fit_weights(oriented(differences, wins), c=0.2)))
        means.append(np.mean(found))
    assert 0.5 < means[0] < 0.9 < means[1]


def test_stability_tells_planted_from_noise() -> None:
    differences, _, wins = planted(512, 3)
    options = Settings(bootstraps=30, n_cs=6, top=10)
    found = refine(differences, first_wins=wins, groups=np.arange(512), settings=options)
    frequency = [one.frequency or 0.0 for one in found.figures]
    assert min(frequency[:4]) >= 0.9
    assert np.median(frequency[6:]) < 0.5
    strongest = found.figures[0]
    assert strongest.weight_interval is not None
    assert 0 < strongest.weight_interval[0] < strongest.weight < 2 * WEIGHTS[0]
    assert strongest.nearest == "criterion 5"
    assert strongest.redundancy == pytest.approx(0.8, abs=0.1)
    assert found.figures[5].nearest == "criterion 0"
    assert strongest.contribution is not None
    assert strongest.contribution.value > 0.02


# Sides, scale, symmetry -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exchanging_the_sides_of_any_pair_changes_no_weight(seed: int) -> None:
    differences, _, wins = planted(120, seed)
    differences[::7, 3] = np.nan
    turned = np.random.default_rng(seed).uniform(size=120) < 0.5
    other, others_win = differences.copy(), wins.copy()
    other[turned] *= -1
    others_win[turned] = ~others_win[turned]
    one = refine(differences, first_wins=wins, groups=np.arange(120), settings=QUICK)
    two = refine(other, first_wins=others_win, groups=np.arange(120), settings=QUICK)
    assert np.abs(one.weights - two.weights).max() <= 1e-9
    for a, b in zip(one.path, two.path, strict=True):
        assert np.abs(a.weights - b.weights).max() <= 1e-9
    assert one.as_dict() == two.as_dict()


def test_one_turn_of_each_pair_is_the_fit_on_both() -> None:
    """scikit-learn on (d, 1) and (-d, 0) of every pair, the same C and no intercept."""
    differences, _, wins = planted(200, 5)
    rows = oriented(differences, wins)
    both = LogisticRegression(
        C=0.2, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-8, max_iter=9999
    ).fit(np.vstack([rows, -rows]), np.repeat([1, 0], 200))
    assert fit_weights(rows, c=0.2, is_scaled=False) == pytest.approx(both.coef_[0], abs=2e-3)


def test_units_of_a_criterion_do_not_matter() -> None:
    differences, _, wins = planted(200, 6)
    rows = oriented(differences, wins)
    units = np.logspace(-3, 3, 40)
    assert fit_weights(rows * units, c=0.2) * units == pytest.approx(
        fit_weights(rows, c=0.2), abs=1e-6
    )


def test_a_weight_counts_as_so_many_pairs() -> None:
    differences, _, wins = planted(80, 7)
    rows = oriented(differences, wins)
    counts = np.arange(80) % 3
    assert fit_weights(rows, c=0.3, weights=counts.astype(float), total=80) == pytest.approx(
        fit_weights(np.repeat(rows, counts, axis=0), c=0.3, total=80), abs=2e-3
    )


def test_the_first_weight_appears_at_the_start_of_the_path() -> None:
    differences, _, wins = planted(200, 8)
    rows = oriented(differences, wins)
    c = first_c(rows)
    assert not fit_weights(rows, c=0.999 * c).any()
    assert fit_weights(rows, c=1.05 * c).any()
    assert c_grid(rows, 5)[0] == pytest.approx(1.05 * c)


def test_a_fit_near_a_known_one_is_the_fit_on_all_columns() -> None:
    """Only likely columns go to the solver at first."""
    differences, _, wins = planted(256, seed=4)
    known = Rows(oriented(differences, wins))
    counts = np.random.default_rng(1).integers(0, 3, size=256).astype(float)
    near = known.fit(c=0.05, weights=np.ones(256))
    misleading = np.where(np.arange(40) == 39, 5.0, 0.0)
    for c in (0.01, 0.05, 0.2, 2.0):
        whole = known.fit(c=c, weights=counts)
        for start in (near, misleading, np.zeros(40)):
            assert known.fit(c=c, weights=counts, near=start) == pytest.approx(whole, abs=2e-5)


def test_asked_to_stop_it_ends_between_two_fits() -> None:
    differences, _, wins = planted(64, seed=0)
    groups = range(64)
    how = replace(QUICK, bootstraps=9)
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == stop:
            raise InterruptedError

    stop = 0
    refine(differences, first_wins=wins, groups=groups, settings=how, check=check)
    assert len(asked) == 4 + 3 * 4 + 9 + 1  # a path, folds of it, draws
    for stop in (2, 9, 20):
        asked.clear()
        with pytest.raises(InterruptedError):
            refine(differences, first_wins=wins, groups=groups, settings=how, check=check)
        assert len(asked) == stop


def test_spread_is_around_zero_and_does_not_overflow() -> None:
    rows = np.array([[3.0, 1e200, 0, 1e-15], [3, -1e200, 0, 0], [3, 1e200, 0, 0]])
    assert spreads(rows, np.ones(3)) == pytest.approx([3, 1e200, 0, 0])


# What is counted, and on what -------------------------------------------------------------------


def test_coverage_precision_and_contribution_are_of_pairs_not_fitted() -> None:
    """A criterion that is right in 90 % of the 40 % of pairs where it has a verdict."""
    rng = np.random.default_rng(0)
    n = 2000
    decisive, right = rng.uniform(size=n) < 0.4, rng.uniform(size=n) < 0.9
    good = np.where(decisive, np.where(right, 1.0, -1.0), np.nan)
    noise = rng.choice([-1.0, 1.0], size=n)
    found = refine(np.column_stack([good, -good, noise]), groups=np.arange(n) // 2, settings=QUICK)
    figures = found.figures[0]
    assert figures.decisive == np.isfinite(good).sum()
    assert figures.coverage == pytest.approx(0.4, abs=0.04)
    for one in found.figures[:2]:  # inverted, it is as precise
        assert one.precision is not None
        assert one.precision.n == figures.decisive
        assert one.precision.interval[0] < 0.9 < one.precision.interval[1]
        assert abs(one.redundancy or 0) == pytest.approx(1)
    assert found.figures[2].precision is not None
    assert found.figures[2].precision.accuracy == pytest.approx(0.5, abs=0.05)
    total = sum(figure.weight * (-1) ** at for at, figure in enumerate(found.figures[:2]))
    assert total > 1


def test_noise_promises_nothing() -> None:
    """60 criteria that mean nothing and few pairs: fitted pairs would show far more than half."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(120, 60))
    found, tested = refine_and_test(rows, groups=np.arange(120), share=0.5, settings=QUICK)
    loose = fit_weights(rows[:60], c=10.0)
    assert np.mean(rows[:60] @ loose > 0) == 1, "on fitted pairs everything would look right"
    assert found.path[-1].accuracy.accuracy < 0.7
    assert tested.accuracy.n == 60
    assert tested.accuracy.accuracy < 0.7


def test_cross_validation_counts_every_pair_and_fits_none_of_those_it_judges() -> None:
    rng = np.random.default_rng(2)
    noise = cross_validated(rng.normal(size=(90, 30)), groups=np.arange(90), settings=QUICK)
    assert noise.accuracy.n == 90
    assert noise.accuracy.interval[0] < 0.5
    differences, gaps, wins = planted(300, 15)
    found = cross_validated(
        differences,
        first_wins=wins,
        groups=np.arange(300) // 2,
        baselines={"oracle": gaps},
        settings=QUICK,
    )
    assert found.accuracy.groups == 150
    assert 0.65 < found.accuracy.accuracy <= found.baselines["oracle"].accuracy + 0.03


def test_groups_that_were_fitted_are_refused() -> None:
    differences, _, wins = planted(60, 9)
    found = refine(differences, first_wins=wins, groups=np.arange(60), settings=QUICK)
    with pytest.raises(ValueError, match="were fitted"):
        held_out(found, differences, first_wins=wins, groups=np.arange(59, 119))


def test_baselines_stand_beside_on_the_same_pairs_and_turns() -> None:
    differences, gaps, wins = planted(1200, 10)
    lengths = np.where(wins, 1.0, -1.0) * np.where(np.arange(1200) % 4, 1, -1)  # right in 75 %
    found, tested = refine_and_test(
        differences,
        first_wins=wins,
        groups=np.arange(1200) // 3,
        baselines={
            "longer wins": lengths,
            "equal weights": differences.sum(axis=1),
            "oracle": gaps,
            "nothing": np.zeros(1200),
        },
        settings=QUICK,
    )
    base = tested.baselines
    assert {one.n for one in base.values()} == {tested.accuracy.n} == {300}
    assert base["longer wins"].accuracy == pytest.approx(0.75, abs=0.05)
    assert base["nothing"].accuracy == 0
    assert base["nothing"].ties == 300
    assert base["equal weights"].accuracy < tested.accuracy.accuracy
    assert tested.accuracy.accuracy <= base["oracle"].accuracy + 0.03
    assert tested.gains["equal weights"].interval[0] > 0
    low, high = tested.gains["oracle"].interval
    assert low <= tested.gains["oracle"].value <= high
    assert len(found.groups) == 300
    json.dumps([found.as_dict(), tested.as_dict()], allow_nan=False)


def test_no_group_stands_on_both_sides() -> None:
    groups = np.repeat(np.arange(40), 5)
    out = hold_out(groups, 0.25, seed=3)
    assert not set(groups[out]) & set(groups[~out])
    assert len(set(groups[out])) == 10


def test_repeated_pairs_of_a_group_make_no_interval_narrower() -> None:
    differences, _, wins = planted(150, 11)
    once = refine_and_test(differences, first_wins=wins, groups=np.arange(150), settings=QUICK)[
        1
    ].accuracy
    again = refine_and_test(
        np.repeat(differences, 6, axis=0),
        first_wins=np.repeat(wins, 6),
        groups=np.repeat(np.arange(150), 6),
        settings=QUICK,
    )[1].accuracy
    assert again.n == 6 * once.n
    widths = [one.interval[1] - one.interval[0] for one in (once, again)]
    assert widths[1] > 0.7 * widths[0]


def test_a_gain_that_is_always_the_same_is_not_certain() -> None:
    found = gain(np.zeros(20), np.arange(20), seed=0)
    assert found.value == 0
    assert found.interval[0] < -0.1
    assert found.interval[1] > 0.1


# Options ----------------------------------------------------------------------------------------


def test_one_standard_error_is_sparser_and_top_is_a_limit() -> None:
    differences, _, wins = planted(300, 12)
    best, sparse = (
        refine(
            differences,
            first_wins=wins,
            groups=np.arange(300),
            settings=Settings(bootstraps=0, rule=rule, top=40),
        )
        for rule in ("best", "one-standard-error")
    )
    assert sparse.c < best.c
    assert len(sparse.chosen) < len(best.chosen)
    limited = refine(
        differences,
        first_wins=wins,
        groups=np.arange(300),
        settings=Settings(bootstraps=0, top=3),
    )
    assert len(limited.chosen) == np.count_nonzero(limited.weights) == 3
    strengths = [abs(limited.figures[at].strength) for at in limited.chosen]
    assert strengths == sorted(strengths, reverse=True)


def test_negative_weights_can_be_dropped() -> None:
    differences, _, wins = planted(300, 13)
    differences[:, 0] *= -1
    for negative in ("keep", "drop"):
        found = refine(
            differences,
            first_wins=wins,
            groups=np.arange(300),
            settings=Settings(bootstraps=0, negative=negative, n_cs=5),  # type: ignore[arg-type]
        )
        assert (found.weights < 0).any() == (negative == "keep")
        assert (0 in found.chosen) == (negative == "keep")


@pytest.mark.parametrize(
    "wrong",
    [{"cs": (0.0,)}, {"cs": (float("nan"),)}, {"top": 0}, {"folds": 1}, {"bootstraps": -1}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Settings(**wrong)  # type: ignore[arg-type]


# Hostile input ----------------------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, float("nan"), 1e-300, 1e12, -1e12]),
    st.floats(-1e6, 1e6),
)


@given(
    differences=st.tuples(st.integers(2, 9), st.integers(1, 4)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=VALUES)
    ),
    wins=st.lists(st.booleans(), min_size=9, max_size=9),
)
@example(differences=np.zeros((4, 3)), wins=[True] * 9)
@example(differences=np.full((4, 3), np.nan), wins=[False] * 9)
@example(differences=np.ones((6, 3)), wins=[True] * 9)
@example(differences=np.array([[1.0], [-1.0]]), wins=[True] * 9)
@settings(max_examples=25, deadline=None)
def test_any_finite_or_missing_scores_give_finite_figures(
    differences: Floats, wins: Sequence[bool]
) -> None:
    n = len(differences)
    found = refine(
        differences,
        first_wins=wins[:n],
        groups=np.arange(n),
        settings=Settings(bootstraps=2, n_cs=2, folds=2),
    )
    assert np.isfinite(found.weights).all()
    assert set(found.chosen) == set(np.flatnonzero(found.weights).tolist())
    json.dumps(found.as_dict(), allow_nan=False)
    silent = np.flatnonzero((np.nan_to_num(differences) == 0).all(axis=0))
    assert not found.weights[silent].any()
    for at in silent:
        assert found.figures[at].precision is None
        assert found.figures[at].coverage == 0


def test_a_path_ends_where_the_solver_does() -> None:
    """Rows of wildly different size, as of a score that is a count here and a share there."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 30)) * 10.0 ** rng.uniform(-11, 11, size=(150, 1))
    found = refine(rows, groups=np.arange(150), settings=Settings(bootstraps=2))
    assert 0 < len(found.path) <= 12
    json.dumps(found.as_dict(), allow_nan=False)
    hopeless = Settings(cs=(1e9,), bootstraps=0)
    with pytest.raises(NotConverged):
        refine(rows, groups=np.arange(150), settings=hopeless)


def test_one_pair_and_one_class_can_be_fitted_but_not_chosen_from() -> None:
    assert fit_weights(oriented([[1.0, 0]]), c=5.0)[0] > 0
    assert fit_weights(oriented([[1.0, 0]] * 3, [True] * 3), c=5.0)[0] > 0
    with pytest.raises(ValueError, match="one group"):
        refine([[1.0, 0]], groups=[1])


@pytest.mark.parametrize(
    ("differences", "more", "message"),
    [
        ([[1.0, np.inf]], {}, r"in columns \[1\] are infinite"),
        ([[1e13, 1.0]], {}, r"in columns \[0\] are infinite or beyond"),
        (np.zeros((0, 3)), {}, "must be"),
        (np.zeros((3, 0)), {}, "must be"),
        ([1.0, 2.0], {}, "must be"),
        ([[1.0], [2.0]], {"groups": [1]}, "groups"),
        ([[1.0], [2.0]], {"groups": [1, 2], "weights": [1.0, -1.0]}, "not negative"),
        ([[1.0], [2.0]], {"groups": [1, 2], "weights": [0.0, 0.0]}, "above 0"),
        ([[1.0], [2.0]], {"groups": [1, 2], "first_wins": [1, 2]}, "True and False"),
        ([[1.0], [2.0]], {"groups": [1, 2], "names": ["a", "b"]}, "names"),
    ],
)
def test_what_cannot_be_read_is_refused(
    differences: object, more: dict[str, object], message: str
) -> None:
    given_groups = {"groups": list(range(len(differences)))} | more  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        refine(differences, **given_groups)  # type: ignore[arg-type]


def test_copies_of_a_criterion_share_its_weight() -> None:
    differences, _, wins = planted(200, 14)
    rows = oriented(differences[:, :5], wins)
    one = fit_weights(rows, c=0.5)
    two = fit_weights(np.column_stack([rows, rows]), c=0.5)
    assert two[:5] + two[5:] == pytest.approx(one, abs=5e-3)
