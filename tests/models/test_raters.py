"""Dawid-Skene, CrowdBT, golds and shared errors: planted raters, real crowds, hostile input."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom, kendalltau

from models.crowd import CrowdLoss, sum_votes
from models.gold import consistency, gold_reliability, position_bias, speed, wilson_shares
from models.intervals import wilson
from models.ranking import bradley_terry
from models.raters import UNKNOWN, CrowdBradleyTerry, DawidSkene, MajorityVote, split_accuracy
from models.shared_errors import shared_errors

Judgments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def crowd(seed: int) -> Judgments:
    """METHODS 4.2: 400 items, 5 labels each, 5 raters right at .85, 2 at .15, 3 saying 1 at .9."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 400)
    items = np.repeat(np.arange(400), 5)
    raters = np.concatenate([rng.permutation(10)[:5] for _ in range(400)])
    right = rng.random(2_000) < np.where(raters < 5, 0.85, 0.15)
    honest = np.where(right, truth[items], 1 - truth[items])
    return items, raters, np.where(raters < 7, honest, rng.random(2_000) < 0.9), truth


def oracle_accuracy(judgments: Judgments) -> float:
    """Accuracy of the Bayes rule that knows every rater's true confusion matrix."""
    items, raters, labels, truth = judgments
    says_one = np.empty((10, 2))  # [rater, truth]
    says_one[:5], says_one[5:7], says_one[7:] = (0.15, 0.85), (0.85, 0.15), (0.9, 0.9)
    chance = np.where(labels[:, None] == 1, says_one[raters], 1 - says_one[raters])
    score = np.stack([np.bincount(items, weights=np.log(chance[:, k])) for k in (0, 1)], axis=1)
    return split_accuracy(score, truth)


def test_dawid_skene_beats_voting_and_nears_the_oracle():
    found = []
    for seed in range(10):
        items, raters, labels, truth = judgments = crowd(seed)
        votes = MajorityVote().fit(items, raters, labels)
        fit = DawidSkene().fit(items, raters, labels)
        found.append(
            (
                split_accuracy(fit.posterior_, truth),
                split_accuracy(votes.posterior_, truth),
                oracle_accuracy(judgments),
            )
        )
        assert fit.confusion_[:5, [0, 1], [0, 1]].mean() == pytest.approx(0.85, abs=0.03)
        assert fit.accuracy_[:5].mean() == pytest.approx(0.85, abs=0.03)
        assert (fit.accuracy_[5:7] < 0.3).all()
        assert fit.converged_
    method, baseline, ceiling = np.mean(found, axis=0)
    assert min(row[0] for row in found) > 0.89, found
    assert method > 0.91, (method, baseline, ceiling)
    assert baseline < 0.75, (method, baseline, ceiling)
    assert ceiling - 0.02 < method <= ceiling + 0.005, (method, baseline, ceiling)


def test_accuracy_intervals_hold_the_truth_nearly_as_often_as_they_say():
    held = []
    for seed in range(60):
        fit = DawidSkene().fit(*crowd(seed)[:3])
        held.append((fit.accuracy_low_[:5] <= 0.85) & (fit.accuracy_high_[:5] >= 0.85))
    assert 0.89 < np.mean(held) < 0.97, np.mean(held)


def test_likelihood_with_its_prior_never_falls():
    items, raters, labels, _ = crowd(0)
    last = -np.inf
    for steps in range(1, 12):
        fit = DawidSkene(max_iter=steps, tol=0).fit(items, raters, labels)
        # The confusion that the last likelihood was taken at, and its smoothing as a prior.
        now = fit.log_likelihoods_[-1] + 0.01 * float(np.log(fit.confusion_).sum())
        assert now >= last - 1e-9
        last = now


def test_gold_turns_a_world_of_adversaries_the_right_way_round():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 300)
    items, raters = np.divmod(np.arange(1_500), 5)
    right = rng.random(1_500) < np.where(raters < 2, 0.9, 0.2)
    labels = np.where(right, truth[items], 1 - truth[items])
    gold = np.full(300, UNKNOWN)
    gold[:30] = truth[:30]
    hidden = np.where(gold == UNKNOWN, truth, UNKNOWN)
    without = DawidSkene().fit(items, raters, labels)
    fit = DawidSkene().fit(items, raters, labels, gold)
    assert split_accuracy(without.posterior_, hidden) < 0.3
    assert split_accuracy(fit.posterior_, hidden) > 0.9
    assert (fit.posterior_[np.arange(30), truth[:30]] == 1).all()


def test_renaming_and_reordering_change_nothing():
    items, raters, labels, _ = crowd(2)
    rng = np.random.default_rng(0)
    rows, item, rater = rng.permutation(2_000), rng.permutation(400), rng.permutation(10)
    fit = DawidSkene().fit(items, raters, labels)
    other = DawidSkene().fit(item[items][rows], rater[raters][rows], 1 - labels[rows])
    assert other.posterior_[item][:, ::-1] == pytest.approx(fit.posterior_, abs=1e-7)
    assert other.confusion_[rater][:, ::-1, ::-1] == pytest.approx(fit.confusion_, abs=1e-7)
    assert other.accuracy_low_[rater] == pytest.approx(fit.accuracy_low_, abs=1e-7)


def test_gaps_in_the_codes_are_items_and_raters_unheard_of():
    fit = DawidSkene().fit([0, 0, 2], [0, 3, 3], [0, 0, 2], n_items=4, n_raters=5, n_classes=3)
    assert fit.posterior_[1] == pytest.approx(fit.prior_)
    assert fit.prior_.sum() == pytest.approx(1)
    assert fit.n_judgments_.tolist() == [1, 0, 0, 2, 0]
    assert np.isnan(fit.accuracy_[1])
    assert (fit.accuracy_low_[1], fit.accuracy_high_[1]) == (0, 1)


def test_rater_with_one_vote_is_hardly_known():
    items, raters, labels, _ = crowd(3)
    fit = DawidSkene().fit(np.append(items, 0), np.append(raters, 10), np.append(labels, 1))
    assert fit.n_judgments_[10] == 1
    assert fit.accuracy_high_[10] - fit.accuracy_low_[10] > 0.6


def test_votes_are_shares_and_ties_are_said():
    fit = MajorityVote().fit([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [1, 1, 0, 0, 1], n_items=3)
    assert fit.posterior_ == pytest.approx(np.array([[1 / 3, 2 / 3], [0.5, 0.5], [0.5, 0.5]]))
    assert fit.labels_.tolist() == [1, 0, 0]
    assert fit.is_tied_.tolist() == [False, True, True]
    assert split_accuracy(fit.posterior_, [1, 1, UNKNOWN]) == pytest.approx(0.75)
    assert split_accuracy(fit.posterior_, [UNKNOWN] * 3) is None


@pytest.mark.parametrize("model", [DawidSkene, MajorityVote])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([], [], []), "no judgments"),
        (([0], [0], [0, 1]), "differ in shape"),
        (([0], [-1], [0]), "raters must be"),
        (([0], [0], [0.5]), "whole numbers"),
        (([[0]], [[0]], [[0]]), "one-dimensional"),
        ((["x"], [0], [0]), "whole numbers"),
        (([0], [0], [10**6]), "too many"),
    ],
    ids=range(7),
)
def test_bad_judgments_are_refused(model, rows, message):
    with pytest.raises(ValueError, match=message):
        model().fit(*rows)


def test_bad_gold_and_options_are_refused():
    with pytest.raises(ValueError, match="gold"):
        DawidSkene().fit([0, 1], [0, 0], [0, 1], [0, 1, 0], n_items=2)
    with pytest.raises(ValueError, match="gold"):
        DawidSkene().fit([0, 1], [0, 0], [0, 1], [0, 7])
    with pytest.raises(ValueError, match="smoothing"):
        DawidSkene(smoothing=0).fit([0], [0], [0])


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=50
    )
)
def test_any_judgments_give_probabilities(rows):
    items, raters, labels = (list(column) for column in zip(*rows, strict=True))
    fit = DawidSkene().fit(items, raters, labels)
    assert np.isfinite(fit.posterior_).all()
    assert fit.posterior_.sum(axis=1) == pytest.approx(1)
    assert fit.confusion_.sum(axis=2) == pytest.approx(1)
    assert np.isfinite(fit.log_likelihoods_).all()
    assert (fit.accuracy_low_ <= fit.accuracy_high_).all()
    found = shared_errors(items, raters, labels, fit)
    assert found.excess is None or np.isfinite(found.excess)


# -- real crowds


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def coded(
    rows: Iterable[tuple[str, str, str]], gold: dict[str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(item, rater, label) names as codes, and the true label of every item."""
    columns = [np.unique(column, return_inverse=True) for column in zip(*rows, strict=True)]
    code = {str(name): number for number, name in enumerate(columns[2][0])}
    truth = [code.get(gold.get(str(item), ""), UNKNOWN) for item in columns[0][0]]
    return columns[0][1], columns[1][1], columns[2][1], np.array(truth)


def snow(data: Path, name: str) -> Judgments:
    rows = read(data / f"crowdtruth/snow2008_{name}.csv.gz")
    gold = {row["item"]: row["gold"] for row in rows}
    return coded(((row["item"], row["worker"], row["response"]) for row in rows), gold)


def get_another_label(data: Path, name: str) -> Judgments:
    folder = data / "get_another_label" / name
    with (folder / "gold.csv").open(encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader)
        gold = {row[0]: row[1] for row in reader}
    rows = read(folder / "labels.csv.gz")
    return coded(((row["item"], row["worker"], row["label"]) for row in rows), gold)


def llmbar(data: Path) -> Judgments:
    """The 419 LLMBar pairs; a rater is a judge with a strategy; unreadable verdicts left out."""
    with gzip.open(data / "llmbar/judgments.jsonl.gz", "rt", encoding="utf-8") as file:
        every = [json.loads(line) for line in file]
    rows = [row for row in every if row["subset"].startswith("LLMBar") and row["winner"]]
    names = [f"{row['subset']} {row['idx']}" for row in rows]
    gold = {name: str(row["label"]) for name, row in zip(names, rows, strict=True)}
    return coded(
        (
            (name, f"{row['judge']} {row['strategy']}", row["winner"])
            for name, row in zip(names, rows, strict=True)
        ),
        gold,
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "majority", "learned", "is_warning"),
    [
        ("rte", 0.8969, 0.9275, False),
        ("temp", 0.9361, 0.9416, False),
        ("wsd", 0.9944, 0.9944, False),
        ("BarzanMozafari", 0.6960, 0.7120, False),
        ("AdultContent2", 0.7598, 0.7387, True),
        ("LLMBar", 0.5776, 0.4893, True),
    ],
)
def test_known_answers_of_real_crowds(data_dir, name, majority, learned, is_warning):
    """Accuracy of voting and of Dawid-Skene; the warning is there wherever voting is better."""
    if name == "LLMBar":
        items, raters, labels, truth = llmbar(data_dir)
    elif len(name) < 5:
        items, raters, labels, truth = snow(data_dir, name)
    else:
        items, raters, labels, truth = get_another_label(data_dir, name)
    votes, fit = MajorityVote().fit(items, raters, labels), DawidSkene()
    fit.fit(items, raters, labels)
    assert split_accuracy(votes.posterior_, truth) == pytest.approx(majority, abs=5e-5)
    assert split_accuracy(fit.posterior_, truth) == pytest.approx(learned, abs=5e-5)
    found = shared_errors(items, raters, labels, fit)
    assert found.is_warning == is_warning, found
    assert bool(found.worst) == is_warning


# -- shared errors


def panel(seed: int, *, alike: int, copied: float) -> Judgments:
    """12 raters right at .8 on 300 items; the first ``alike`` repeat a common slip."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 300)
    right = rng.random((300, 12)) < 0.8
    common = rng.random(300) < 0.8
    repeats = rng.random((300, alike)) < copied
    right[:, :alike] = np.where(repeats, common[:, None], right[:, :alike])
    items, raters = np.divmod(np.arange(3_600), 12)
    return items, raters, np.where(right, truth[:, None], 1 - truth[:, None]).ravel(), truth


def test_shared_errors_warn_of_copies_and_name_them():
    items, raters, labels, _ = panel(0, alike=4, copied=0.7)
    found = shared_errors(items, raters, labels, DawidSkene().fit(items, raters, labels))
    assert found.is_warning
    assert found.excess > 0
    assert "can do worse than voting" in found.message
    assert {(pair.first, pair.second) for pair in found.worst} <= {
        (a, b) for a in range(4) for b in range(a + 1, 4)
    }
    for pair in found.worst:
        assert pair.shared == 300
        assert pair.agreement > pair.expected
        assert pair.p_value < 0.01 / 66


def test_independent_raters_give_no_warning():
    warned = 0
    for seed in range(30):
        items, raters, labels, _ = panel(seed, alike=0, copied=0) if seed % 2 else crowd(seed)
        found = shared_errors(items, raters, labels, DawidSkene().fit(items, raters, labels))
        warned += found.is_warning
        assert abs(found.excess) < 0.05
    assert warned == 0


def test_shared_errors_of_strangers_are_not_known():
    fit = DawidSkene().fit([0, 0, 1], [0, 1, 0], [0, 1, 1])
    found = shared_errors([0, 0, 1], [0, 1, 0], [0, 1, 1], fit)
    assert (found.is_warning, found.excess, found.n_pairs) == (False, None, 0)
    assert "not known" in found.message


# -- CrowdBT

ETA = np.array([0.95] * 8 + [0.5] * 4 + [0.1] * 3)
SCORES = np.linspace(-2, 2, 20)


def votes(eta: np.ndarray, m: int, *, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    raters, a = rng.integers(0, len(eta), m), rng.integers(0, 20, m)
    b = (a + rng.integers(1, 20, m)) % 20
    first_is_better = rng.random(m) < expit(SCORES[a] - SCORES[b])
    honest = rng.random(m) < eta[raters]
    return raters, a, b, np.where(first_is_better == honest, 1, -1)


def rmse(scores: np.ndarray) -> float:
    return float(np.sqrt(np.mean((scores - scores.mean() - SCORES) ** 2)))


def test_crowd_bt_beats_pooling_and_nears_the_oracle():
    """METHODS 4.4: tau .928 against .798, reliabilities within .053, rmse .22 against .95."""
    found: dict[str, list[float]] = {}
    for seed in range(100, 108):
        raters, a, b, outcome = votes(ETA, 3_000, seed=seed)
        fit = CrowdBradleyTerry().fit(raters, a, b, outcome)
        pooled = bradley_terry(a, b, outcome, n_items=20)
        # The oracle knows every reliability: a vote counts by its sign and its log-odds.
        weight = np.log(ETA / (1 - ETA))[raters]
        oracle = bradley_terry(
            a, b, (outcome * np.sign(weight)).astype(int), n_items=20, weights=np.abs(weight)
        )
        held = (fit.reliability_low_ <= ETA) & (fit.reliability_high_ >= ETA)
        row = {
            "tau": kendalltau(fit.scores_, SCORES)[0],
            "tau pooled": kendalltau(pooled.scores, SCORES)[0],
            "tau oracle": kendalltau(oracle.scores, SCORES)[0],
            "error of eta": float(np.abs(fit.reliability_ - ETA).mean()),
            "rmse": rmse(fit.scores_),
            "rmse pooled": rmse(pooled.scores),
            "held": float(held.mean()),
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
        assert fit.converged_
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    assert mean["tau"] > 0.91, mean
    assert mean["tau"] > mean["tau pooled"] + 0.08, mean
    assert mean["tau"] > mean["tau oracle"] - 0.02, mean
    assert mean["error of eta"] < 0.055, mean
    assert mean["rmse"] < 0.3, mean
    assert mean["rmse pooled"] > 0.8, mean
    assert mean["held"] > 0.88, mean


def test_crowd_bt_gradient_is_that_of_its_loss():
    raters, a, b, outcome = votes(ETA, 200, seed=0)
    outcome[::5] = 0
    gold = ([0, 3], [19, 12], [-1, -1])
    people, golds = (raters, a, b, outcome), ([15, 15], *gold)
    everyone = [np.append(x, y) for x, y in zip(people, golds, strict=True)]
    cells = sum_votes(*everyone, n_items=20, n_raters=16)
    loss = CrowdLoss(cells, 20, 15, anchor=0.7, prior=(3.0, 1.5))
    at = np.random.default_rng(0).normal(size=35)
    _, gradient = loss(at)
    step = 1e-5 * np.eye(35)
    by_hand = [(loss(at + h)[0] - loss(at - h)[0]) / 2e-5 for h in step]
    assert gradient == pytest.approx(np.array(by_hand), abs=1e-6)


def test_crowd_bt_information_is_the_mean_curvature():
    """On cells filled with their expected votes the Hessian of the loss is the information."""
    raters, a, b, outcome = votes(ETA, 400, seed=1)
    cells = sum_votes(raters, a, b, outcome, n_items=20, n_raters=16)
    at = np.random.default_rng(1).normal(size=35) / 2
    total = cells.for_i + cells.for_j
    chance, _, _ = CrowdLoss(cells, 20, 15, 1.0, (3.0, 1.1)).chances(at)
    expected = type(cells)(cells.rater, cells.i, cells.j, total * chance, total * (1 - chance))
    loss = CrowdLoss(expected, 20, 15, 1.0, (3.0, 1.1))
    step = 1e-5 * np.eye(35)
    hessian = np.array([(loss(at + h)[1] - loss(at - h)[1]) / 2e-5 for h in step])
    assert loss.information(at).toarray() == pytest.approx(hessian, abs=1e-5)


def test_crowd_bt_sign_is_held_by_the_prior_and_turned_by_gold():
    eta = np.array([0.1] * 8 + [0.9] * 3)  # most are adversaries
    raters, a, b, outcome = votes(eta, 3_000, seed=2)
    mirrored = CrowdBradleyTerry().fit(raters, a, b, outcome)
    assert kendalltau(mirrored.scores_, SCORES)[0] < -0.8
    low, high = np.divmod(np.arange(100), 10)
    gold = (low[::3], high[::3] + 10, np.full(34, -1))
    fit = CrowdBradleyTerry().fit(raters, a, b, outcome, gold=gold)
    assert kendalltau(fit.scores_, SCORES)[0] > 0.8
    assert (fit.reliability_[:8] < 0.3).all()
    assert fit.n_votes_.sum() == 3_000


def test_crowd_bt_is_blind_to_names_order_and_direction():
    raters, a, b, outcome = votes(ETA, 1_000, seed=3)
    rng = np.random.default_rng(0)
    rows, rater, item = rng.permutation(1_000), rng.permutation(15), rng.permutation(20)
    fit = CrowdBradleyTerry().fit(raters, a, b, outcome)
    other = CrowdBradleyTerry().fit(
        rater[raters][rows], item[b][rows], item[a][rows], -outcome[rows]
    )
    assert other.scores_[item] == pytest.approx(fit.scores_, abs=1e-3)
    assert other.reliability_[rater] == pytest.approx(fit.reliability_, abs=1e-3)


def test_crowd_bt_probabilities_are_of_the_first():
    fit = CrowdBradleyTerry().fit([0] * 9, [0] * 9, [1] * 9, [1] * 8 + [0])
    forth, back = fit.predict_proba([0, 1], [1, 0])
    assert forth > 0.5
    assert forth + back == pytest.approx(1)
    with pytest.raises(ValueError, match="a must be in"):
        fit.predict_proba([2], [0])


def test_crowd_bt_of_only_ties_prefers_nothing():
    fit = CrowdBradleyTerry().fit([0, 1, 0], [0, 1, 2], [1, 2, 0], [0, 0, 0])
    assert fit.scores_ == pytest.approx(np.zeros(3), abs=1e-4)


def test_crowd_bt_rater_with_one_vote_is_hardly_known():
    raters, a, b, outcome = votes(ETA, 1_000, seed=4)
    fit = CrowdBradleyTerry().fit(
        np.append(raters, 15), np.append(a, 19), np.append(b, 0), np.append(outcome, 1)
    )
    assert fit.n_votes_[15] == 1
    assert fit.reliability_high_[15] - fit.reliability_low_[15] > 0.5


def test_crowd_bt_of_many_says_how_its_intervals_were_made(monkeypatch):
    data = votes(ETA, 500, seed=5)
    assert CrowdBradleyTerry().fit(*data).interval_method_ == "joint curvature"
    monkeypatch.setattr("models.crowd.DENSE_LIMIT", 10)
    assert CrowdBradleyTerry().fit(*data).interval_method_ == "diagonal curvature"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (([], [], [], []), {}, "no votes"),
        (([0], [0], [0], [1]), {}, "with itself"),
        (([0], [0], [1], [3]), {}, "outcome"),
        (([0, 1], [0], [1], [1]), {}, "shapes differ"),
        (([0], [-1], [1], [1]), {}, "a must be"),
        (([0], [0], [1], [1]), {"anchor": 0}, "anchor"),
        (([0], [0], [1], [1]), {"prior": (2.0, 3.0)}, "prior"),
    ],
    ids=range(7),
)
def test_crowd_bt_refuses_bad_votes(rows, options, message):
    with pytest.raises(ValueError, match=message):
        CrowdBradleyTerry(**options).fit(*rows)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 4), st.integers(1, 4), st.sampled_from([-1, 0, 1])
        ),
        min_size=1,
        max_size=30,
    )
)
def test_crowd_bt_gives_numbers_for_any_votes(rows):
    raters, a, step, outcome = (np.array(column) for column in zip(*rows, strict=True))
    fit = CrowdBradleyTerry().fit(raters, a, (a + step) % 5, outcome)
    for values in (fit.scores_, fit.score_low_, fit.score_high_, fit.weights_):
        assert np.isfinite(values).all()
    assert (fit.reliability_low_ <= fit.reliability_).all()
    assert (fit.reliability_ <= fit.reliability_high_).all()


# -- golds, position, consistency, speed


@pytest.mark.parametrize(
    ("golds", "rates"),
    [(8, {0.95: 0.0, 0.85: 0.02, 0.75: 0.11, 0.5: 0.64}), (20, {0.85: 0.0, 0.75: 0.04, 0.5: 0.75})],
)
def test_gold_flags_at_the_exact_binomial_rates(golds, rates):
    hits = np.arange(golds + 1)
    flagged = gold_reliability(hits, golds - hits).flagged
    for accuracy, rate in rates.items():
        assert binom.pmf(hits, golds, accuracy) @ flagged == pytest.approx(rate, abs=0.006)


def test_optimistic_prior_catches_few_coin_flippers():
    for golds, rate in ((8, 0.15), (20, 0.59)):
        hits = np.arange(golds + 1)
        flagged = gold_reliability(hits, golds - hits, prior=(4, 1)).flagged
        assert binom.pmf(hits, golds, 0.5) @ flagged == pytest.approx(rate, abs=0.006)


def test_one_failed_gold_flags_nobody():
    found = gold_reliability([0, 0], [1, 2])
    assert (found.below_threshold > 0.9).all()
    assert found.flagged.tolist() == [False, True]


def test_gold_weight_is_the_log_odds_of_the_mean():
    found = gold_reliability([0, 8, 0], [0, 0, 8])
    assert found.mean == pytest.approx([0.5, 10 / 12, 2 / 12])
    assert found.weight == pytest.approx([0, np.log(5), -np.log(5)])
    assert ((found.low < found.mean) & (found.mean < found.high)).all()
    assert found.n.tolist() == [0, 8, 8]


def test_gold_counts_that_cannot_be_are_refused():
    for hits, misses in (([-1], [0]), ([1], [np.nan]), ([1], [1, 2])):
        with pytest.raises(ValueError, match="misses"):
            gold_reliability(hits, misses)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20))
def test_wilson_of_many_is_wilson_of_each(counts):
    hits, n = np.array([h for h, _ in counts]), np.array([h + m for h, m in counts])
    found = wilson_shares(hits, n)
    each = [wilson(h, total) for h, total in zip(hits, n, strict=True)]
    assert found.low == pytest.approx([low for low, _ in each], abs=1e-12)
    assert found.high == pytest.approx([high for _, high in each], abs=1e-12)


def test_position_bias_is_called_only_where_the_half_is_outside():
    found = position_bias([50, 70, 30, 3, 0], [100, 100, 100, 3, 0])
    assert found.is_biased.tolist() == [False, True, True, False, False]
    assert found.share[:4] == pytest.approx([0.5, 0.7, 0.3, 1.0])
    assert np.isnan(found.share[4])


def test_consistency_refuses_more_agreement_than_repeats():
    assert consistency([9], [10]).share == pytest.approx([0.9])
    with pytest.raises(ValueError, match=r"0\.\.n"):
        consistency([11], [10])


def test_speed_is_the_median_with_order_statistics():
    rng = np.random.default_rng(0)
    raters = np.repeat([0, 1, 2, 4], [200, 200, 41, 3])
    times = rng.lognormal(np.log(20_000), 0.5, 444)
    times[raters == 2] /= 10
    times[raters == 4] = [5, 6, 7]
    order = rng.permutation(444)
    found = speed(raters[order], times[order], n_raters=5)
    for rater in (0, 1, 2, 4):
        own = times[raters == rater]
        assert found.median[rater] == pytest.approx(np.median(own))
        assert found.ninetieth[rater] == pytest.approx(np.quantile(own, 0.9))
        assert found.low[rater] <= found.median[rater] <= found.high[rater]
    assert found.too_fast.tolist() == [False, False, True, False, False]  # three times are too few
    assert np.isnan(found.median[3])
    assert found.n.tolist() == [200, 200, 41, 0, 3]


def test_median_interval_holds_the_truth_as_often_as_it_says():
    times = np.random.default_rng(1).lognormal(0, 1, (2_000, 15))
    found = speed(np.repeat(np.arange(2_000), 15), times.ravel(), n_raters=2_000)
    assert 0.94 < np.mean((found.low <= 1) & (found.high >= 1)) < 0.98


def test_speed_of_nobody_is_empty_and_bad_times_are_refused():
    found = speed([], [], n_raters=2)
    assert found.group_median is None
    assert not found.too_fast.any()
    for raters, times in (([0], [-1.0]), ([0], [np.inf]), ([5], [1.0]), ([0, 1], [1.0])):
        with pytest.raises(ValueError, match=r"active_ms|raters"):
            speed(raters, times, n_raters=2)
