"""Bradley-Terry, Plackett-Luce and win rates against planted truth, choix, and each other."""

from __future__ import annotations

import itertools

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from models import newton
from models.newton import scaled_variances
from models.ranking import PairLoss, bradley_terry, plackett_luce, win_rates

TRUTH = np.linspace(-2, 2, 20)


def compare(truth: np.ndarray, m: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m random pairs judged by a Bradley-Terry choice."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, len(truth), m)
    b = (a + rng.integers(1, len(truth), m)) % len(truth)
    return a, b, np.where(rng.random(m) < expit(truth[a] - truth[b]), 1, -1)


def ranked(truth: np.ndarray, m: int, size: int, *, rng: np.random.Generator) -> list[list[int]]:
    """m rankings of ``size`` random items, by a Plackett-Luce choice."""
    rankings = []
    for _ in range(m):
        shown = rng.permutation(len(truth))[:size]
        rankings.append(shown[np.argsort(-(truth[shown] + rng.gumbel(size=size)))].tolist())
    return rankings


def rmse(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - found.mean() - truth + truth.mean()) ** 2)))


def test_scores_come_near_the_planted_ones():
    """Method, baseline (log-odds of raw win shares) and the noise floor of five times the data."""
    a, b, outcome = compare(TRUTH, 2_000, seed=0)
    fit = bradley_terry(a, b, outcome, n_items=20)
    raw = np.log((fit.wins + 0.5) / (fit.games - fit.wins + 0.5))
    ceiling = bradley_terry(*compare(TRUTH, 10_000, seed=1), n_items=20)
    assert rmse(ceiling.scores, TRUTH) < 0.12
    assert rmse(fit.scores, TRUTH) <= 0.2 < rmse(raw, TRUTH)
    assert fit.is_connected
    assert fit.converged
    assert fit.message == "Comparisons connect 20 items."
    assert fit.games.sum() == 2 * 2_000
    assert fit.wins.sum() == 2_000


def test_scores_equal_choix_with_the_same_prior():
    a, b, outcome = compare(TRUTH, 800, seed=2)
    pairs = [(i, j) if o > 0 else (j, i) for i, j, o in zip(a, b, outcome, strict=True)]
    data = [(int(i), int(j)) for i, j in pairs]
    fit = bradley_terry(a, b, outcome, n_items=20, ridge=0.2)
    oracle = choix.opt_pairwise(20, data, alpha=0.1, tol=1e-12)  # choix: alpha * sum(s^2)
    assert fit.scores == pytest.approx(oracle - oracle.mean(), abs=1e-6)
    bare = bradley_terry(a, b, outcome, n_items=20, ridge=1e-9)
    assert bare.scores == pytest.approx(choix.ilsr_pairwise(20, data), abs=1e-5)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = np.linspace(-1, 1, 8)
    held = []
    for seed in range(150):
        fit = bradley_terry(*compare(truth, 400, seed=seed), n_items=8)
        held.append((fit.low <= truth) & (truth <= fit.high))
    assert 0.93 <= np.mean(held) <= 0.97, np.mean(held)


def test_pairs_of_one_ranking_need_clusters_or_plackett_luce():
    """Six pairs of a ranking of four are not six facts: the naive interval is too narrow."""
    truth = np.linspace(-1, 1, 10)
    rng = np.random.default_rng(5)
    held: dict[str, list[np.ndarray]] = {"pairs": [], "clustered": [], "plackett-luce": []}
    for _ in range(60):
        rankings = ranked(truth, 150, 4, rng=rng)
        pairs = np.array([p for ranking in rankings for p in itertools.combinations(ranking, 2)])
        ones, cluster = np.ones(len(pairs), dtype=int), np.repeat(np.arange(150), 6)
        fits = {
            "pairs": bradley_terry(pairs[:, 0], pairs[:, 1], ones, n_items=10),
            "clustered": bradley_terry(
                pairs[:, 0], pairs[:, 1], ones, n_items=10, clusters=cluster
            ),
            "plackett-luce": plackett_luce(rankings, n_items=10),
        }
        for name, fit in fits.items():
            held[name].append((fit.low <= truth) & (truth <= fit.high))
    coverage = {name: float(np.mean(hits)) for name, hits in held.items()}
    assert coverage["pairs"] < 0.91, coverage
    assert coverage["clustered"] > 0.91, coverage
    assert coverage["plackett-luce"] > 0.92, coverage


def test_duplicates_weights_and_direction_are_the_same_thing():
    a, b, outcome = compare(TRUTH, 300, seed=3)
    fit = bradley_terry(a, b, outcome, n_items=20)
    rows, counts = np.unique(np.stack([a, b, outcome]), axis=1, return_counts=True)
    weighted = bradley_terry(*rows, n_items=20, weights=counts)
    turned = bradley_terry(b, a, -outcome, n_items=20)
    order = np.random.default_rng(0).permutation(300)
    shuffled = bradley_terry(a[order], b[order], outcome[order], n_items=20)
    for other in (weighted, turned, shuffled):
        assert other.scores == pytest.approx(fit.scores, abs=1e-9)
        assert other.standard_errors == pytest.approx(fit.standard_errors, abs=1e-9)


def test_renaming_the_items_renames_the_scores():
    a, b, outcome = compare(TRUTH, 500, seed=4)
    name = np.random.default_rng(1).permutation(20)
    fit, renamed = (
        bradley_terry(a, b, outcome, n_items=20),
        bradley_terry(name[a], name[b], outcome, n_items=20),
    )
    assert renamed.scores[name] == pytest.approx(fit.scores, abs=1e-9)
    assert renamed.high[name] == pytest.approx(fit.high, abs=1e-9)


def test_disconnected_graph_is_reported():
    fit = bradley_terry([0, 1, 2, 3, 3], [1, 0, 3, 2, 4], [1, 1, 1, 1, 0], n_items=6)
    assert not fit.is_connected
    assert fit.n_components == 3
    assert "fall into 2 groups" in fit.message
    assert "scores of different groups cannot be compared" in fit.message
    assert "1 item was never compared" in fit.message
    assert fit.components[0] == fit.components[1] != fit.components[2]
    for component in range(3):
        assert fit.scores[fit.components == component].sum() == pytest.approx(0, abs=1e-9)
    assert fit.scores[5] == 0
    assert fit.standard_errors[5] == pytest.approx(10)  # nothing but the prior


def test_unbeaten_item_is_finite_and_named():
    fit = bradley_terry([0, 0, 0, 1, 2, 1], [1, 2, 3, 2, 1, 3], [1] * 6, n_items=4)
    assert fit.unbeaten == (0,)
    assert fit.winless == (3,)
    assert "1 item never lost (0)" in fit.message
    assert np.isfinite(fit.scores).all()
    assert fit.scores[0] == fit.scores.max()
    assert fit.standard_errors[0] > fit.standard_errors[1]


def test_group_that_never_lost_is_reported():
    fit = bradley_terry([0, 1, 2, 3, 0], [1, 0, 3, 2, 2], [1, 1, 1, 1, 1], n_items=4)
    assert (fit.unbeaten, fit.winless) == ((), ())
    assert "as a group never lost" in fit.message


def test_only_ties_say_that_all_are_alike():
    fit = bradley_terry([0, 1, 2], [1, 2, 0], [0, 0, 0], n_items=3)
    assert fit.scores == pytest.approx(np.zeros(3), abs=1e-9)
    assert fit.wins.tolist() == [1, 1, 1]
    assert fit.unbeaten == fit.winless == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [], "b": [], "outcome": []}, "no comparisons"),
        ({"a": [0]}, "must be equal in shape"),
        ({"a": [0, 1]}, "with itself"),
        ({"a": [0, 5]}, r"a must be in 0\.\.2"),
        ({"a": [0.5, 0.1]}, "whole numbers"),
        ({"outcome": [1, 2]}, "outcome must be"),
        ({"outcome": [1, np.nan]}, "outcome must be"),
        ({"weights": [1, -1]}, "not negative"),
        ({"weights": [1, np.inf]}, "finite"),
        ({"clusters": [1]}, "clusters"),
        ({"ridge": 0}, "ridge"),
        ({"level": 1.0}, "level"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_comparisons_are_refused(change, message):
    good = {"a": [0, 2], "b": [1, 1], "outcome": [1, -1], "n_items": 3}
    with pytest.raises(ValueError, match=message):
        bradley_terry(**(good | change))


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from([-1, 0, 1])),
        min_size=1,
        max_size=40,
    ),
    weight=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_any_comparisons_give_numbers(rows, weight):
    a = np.array([row[0] for row in rows])
    b = (a + [row[1] for row in rows]) % 6
    outcome = [row[2] for row in rows]
    fit = bradley_terry(a, b, outcome, n_items=6, weights=np.full(len(rows), weight))
    for values in (fit.scores, fit.standard_errors, fit.low, fit.high, fit.wins):
        assert np.isfinite(values).all()
    assert fit.converged
    rates = win_rates(a, b, outcome, n_items=6)
    known = fit.games > 0
    assert ((rates.low <= rates.share) & (rates.share <= rates.high))[known].all()
    assert np.isnan(rates.share[~known]).all()


def test_approximate_errors_come_near_the_exact_ones(monkeypatch):
    a, b, outcome = compare(np.random.default_rng(0).normal(size=600), 12_000, seed=6)
    exact = bradley_terry(a, b, outcome, n_items=600)
    clusters = np.arange(12_000) // 6
    exact_clustered = bradley_terry(a, b, outcome, n_items=600, clusters=clusters)
    monkeypatch.setattr("models.fitting.DENSE_LIMIT", 100)
    for truth, names in ((exact, None), (exact_clustered, clusters)):
        fit = bradley_terry(a, b, outcome, n_items=600, clusters=names)
        assert fit.covariance is None
        assert fit.interval_method.endswith("diagonal approximation")
        ratio = fit.standard_errors / truth.standard_errors
        assert np.median(ratio) == pytest.approx(1, abs=0.05)
        assert ratio.min() > 0.95
        assert ratio.max() < 1.05


def test_iterative_and_direct_solutions_agree(monkeypatch):
    a, b, outcome = compare(TRUTH, 500, seed=7)
    direct = bradley_terry(a, b, outcome, n_items=20)
    monkeypatch.setattr(newton, "DIRECT_LIMIT", 0)
    assert bradley_terry(a, b, outcome, n_items=20).scores == pytest.approx(direct.scores, abs=1e-7)


def test_many_items_never_need_a_dense_matrix():
    truth = np.random.default_rng(0).normal(size=30_000)
    fit = bradley_terry(*compare(truth, 150_000, seed=8), n_items=30_000)
    assert fit.converged
    assert fit.covariance is None
    held = (fit.low <= truth - truth.mean()) & (truth - truth.mean() <= fit.high)
    assert 0.92 < held.mean() < 0.98


def test_gradient_and_curvature_of_pairs_are_those_of_the_loss():
    fit = bradley_terry([0, 1, 2, 0], [1, 2, 0, 2], [1, 0, -1, 1], n_items=3)
    assert fit.converged
    from models.comparisons import aggregate

    edges = aggregate([0, 1, 2, 0], [1, 2, 0, 2], [1, 0, -1, 1], n_items=3, weights=None)
    assert_derivatives(PairLoss(edges, 3), np.array([0.3, -0.4, 1.1]))


def assert_derivatives(loss, at: np.ndarray) -> None:
    """Analytic derivatives equal central differences."""
    step = 1e-5 * np.eye(len(at))
    slope = [(loss.value(at + h) - loss.value(at - h)) / 2e-5 for h in step]
    assert loss.gradient(at) == pytest.approx(np.array(slope), abs=1e-7)
    bend = [(loss.gradient(at + h) - loss.gradient(at - h)) / 2e-5 for h in step]
    assert loss.curvature(at).toarray() == pytest.approx(np.array(bend), abs=1e-7)


# -- Plackett-Luce


def test_plackett_luce_equals_choix_with_the_same_prior():
    rankings = ranked(np.linspace(-1, 1, 10), 200, 4, rng=np.random.default_rng(0))
    fit = plackett_luce(rankings, n_items=10, ridge=0.2)
    oracle = choix.opt_rankings(10, rankings, alpha=0.1, tol=1e-12)
    assert fit.scores == pytest.approx(oracle - oracle.mean(), abs=1e-6)
    bare = plackett_luce(rankings, n_items=10, ridge=1e-9)
    assert bare.scores == pytest.approx(choix.ilsr_rankings(10, rankings), abs=1e-5)


def test_plackett_luce_comes_near_the_planted_scores():
    """METHODS: 300 rankings of 4 of 10 items; pairs do about as well in the point."""
    truth = np.linspace(-1, 1, 10)
    found: dict[str, list[float]] = {"plackett-luce": [], "pairs": [], "first only": []}
    rng = np.random.default_rng(1)
    for _ in range(10):
        rankings = ranked(truth, 300, 4, rng=rng)
        pairs = np.array([p for ranking in rankings for p in itertools.combinations(ranking, 2)])
        ones = np.ones(len(pairs), dtype=int)
        first = [[ranking[0], ranking[1:]] for ranking in rankings]
        fits = {
            "plackett-luce": plackett_luce(rankings, n_items=10),
            "pairs": bradley_terry(pairs[:, 0], pairs[:, 1], ones, n_items=10),
            "first only": plackett_luce(first, n_items=10, is_partial=True),
        }
        for name, fit in fits.items():
            found[name].append(rmse(fit.scores, truth))
    mean = {name: float(np.mean(errors)) for name, errors in found.items()}
    assert mean["plackett-luce"] < 0.16, mean
    assert mean["plackett-luce"] < mean["first only"], mean
    assert mean["plackett-luce"] == pytest.approx(mean["pairs"], abs=0.02)


def test_rankings_of_two_are_bradley_terry():
    rankings = [[0, 1], [1, 2], [2, 0], [0, 1], [[1, 2]], [[0, 2]]]
    pairs = bradley_terry([0, 1, 2, 0, 1, 0], [1, 2, 0, 1, 2, 2], [1, 1, 1, 1, 0, 0], n_items=3)
    lists = plackett_luce(rankings, n_items=3)
    assert lists.scores == pytest.approx(pairs.scores, abs=1e-9)
    assert lists.standard_errors == pytest.approx(pairs.standard_errors, abs=1e-9)
    assert lists.wins == pytest.approx(pairs.wins)
    assert lists.games == pytest.approx(pairs.games)


@pytest.mark.parametrize("tied", [2, 3, 4, 6, 7])
def test_tie_is_the_average_over_its_orders(tied):
    """Weights 1/t! on every order give the same fit as one tie, if with other places settled."""
    items = tied + 1
    anchor = [list(range(items)), list(range(items))[::-1]]  # keeps the optimum off the center
    group = list(range(1, items))
    orders = list(itertools.permutations(group))
    spelled = [[0, *order] for order in orders]
    fit = plackett_luce([[0, group]] * len(orders) + anchor * 3, n_items=items)
    by_hand = plackett_luce(spelled + anchor * 3, n_items=items)
    assert fit.scores == pytest.approx(by_hand.scores, abs=1e-6 if tied <= 5 else 0.01)


def test_top_of_a_ranking_says_nothing_of_the_rest():
    fit = plackett_luce([[0, [1, 2, 3]]] * 5 + [[1, [0, 2, 3]]] * 2, n_items=4, is_partial=True)
    assert fit.scores[0] > fit.scores[1] > fit.scores[2]
    assert fit.scores[2] == pytest.approx(fit.scores[3])
    assert fit.games.tolist() == [17, 11, 7, 7]
    told = plackett_luce([[0, [1, 2, 3]]] * 5 + [[1, [0, 2, 3]]] * 2, n_items=4)
    assert told.standard_errors[2] < fit.standard_errors[2]


def test_rankings_of_separate_items_are_reported():
    fit = plackett_luce([[0, 1], [1, 0], [2, 3]], n_items=5)
    assert fit.n_components == 3
    assert "1 item never lost (2)" in fit.message
    assert np.isfinite(fit.high).all()


@pytest.mark.parametrize(
    ("rankings", "message"),
    [
        ([], "no rankings"),
        ([[1], []], "no rankings"),
        ([[0, 1, 0]], "twice"),
        ([[0, [1, 0]]], "twice"),
        ([[0, 7]], "items must be in"),
        ([[0, -1]], "items must be in"),
    ],
    ids=range(6),
)
def test_bad_rankings_are_refused(rankings, message):
    with pytest.raises(ValueError, match=message):
        plackett_luce(rankings, n_items=3)


@given(
    st.lists(
        st.permutations(range(5)).flatmap(
            lambda order: st.lists(st.integers(0, 4), max_size=3).map(
                lambda cuts: [
                    list(order[i:j])
                    for i, j in itertools.pairwise([0, *sorted(set(cuts) - {0}), 5])
                ]
            )
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_rankings_give_numbers(rankings):
    fit = plackett_luce(rankings, n_items=5)
    for values in (fit.scores, fit.low, fit.high):
        assert np.isfinite(values).all()
    backwards = plackett_luce([ranking[::-1] for ranking in rankings], n_items=5)
    assert backwards.wins == pytest.approx(fit.games - fit.wins)


# -- win rates


def test_win_rates_forgive_a_hard_schedule():
    """Item 0 and 1 are equal, but 1 met the strong ones only."""
    truth = np.array([0.0, 0.0, 1.5, 1.5, -1.5, -1.5])
    rng = np.random.default_rng(2)
    a = np.concatenate([np.zeros(600, int), np.ones(600, int), rng.integers(2, 6, 2_000)])
    b = np.concatenate([rng.choice([4, 5], 600), rng.choice([2, 3], 600), np.zeros(2_000, int)])
    b[1_200:] = 2 + (a[1_200:] - 2 + rng.integers(1, 4, 2_000)) % 4
    outcome = np.where(rng.random(3_200) < expit(truth[a] - truth[b]), 1, -1)
    rates = win_rates(a, b, outcome, n_items=6)
    field = expit(truth[:, None] - truth[None, :])
    np.fill_diagonal(field, 0)
    oracle = field.sum(axis=1) / 5
    raw = rates.wins / (rates.wins + rates.losses)
    assert abs(raw[0] - raw[1]) > 0.5
    assert rates.share == pytest.approx(oracle, abs=0.08)
    assert ((rates.low <= oracle) & (oracle <= rates.high)).sum() >= 5
    assert (rates.low > 0).all()
    assert (rates.high < 1).all()


def test_win_rate_intervals_hold_the_truth_as_often_as_they_say():
    truth = np.array([-1.0, -0.3, 0.2, 1.1])
    oracle = (expit(truth[:, None] - truth[None, :]).sum(axis=1) - 0.5) / 3
    held = []
    for seed in range(150):
        rates = win_rates(*compare(truth, 150, seed=seed), n_items=4)
        held.append((rates.low <= oracle) & (oracle <= rates.high))
    assert 0.92 <= np.mean(held) <= 0.98, np.mean(held)


def test_win_rates_count_wins_ties_and_losses():
    rates = win_rates([0, 0, 1, 2], [1, 1, 0, 0], [1, 0, 1, -1], n_items=4)
    assert rates.wins.tolist() == [2, 1, 0, 0]
    assert rates.ties.tolist() == [1, 1, 0, 0]
    assert rates.losses.tolist() == [1, 1, 1, 0]
    assert np.isnan(rates.share[3])


def test_win_rates_are_for_generators_not_for_everything():
    with pytest.raises(ValueError, match="at most 2,000 items"):
        win_rates([0], [1], [1], n_items=2_001)


def test_scaled_variances_of_lone_items_are_none():
    from models.comparisons import aggregate

    edges = aggregate([0, 1], [1, 0], [1, 1], n_items=3, weights=None)
    hessian = PairLoss(edges, 3).curvature(np.zeros(3))
    variances = scaled_variances(hessian, np.array([0, 0, 1]), ridge=0.01)
    assert variances[2] == 0
    assert variances[0] > 0
