"""The rule for taking verdicts without a person keeps its promise, whatever the judge is like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from models import selective

Floats = NDArray[np.float64]
LIMIT, RISK, REPETITIONS = 0.05, 0.05, 200
# Three standard errors of a share of 200 above the risk.
MOST = RISK + 3 * (RISK * (1 - RISK) / REPETITIONS) ** 0.5
CASES, WAITING = 800, 4_000


def calibrated(confidence: Floats) -> Floats:
    return 1 - confidence


def overconfident(confidence: Floats) -> Floats:
    """Says 99 % where three in four are right; above all, sure where it is no better."""
    return 0.3 - 0.1 * (confidence - 0.5)


def unrelated(confidence: Floats) -> Floats:
    """Wrong just over the limit whatever it says: every acceptance breaks the promise."""
    return np.full(len(confidence), 0.06)


def backwards(confidence: Floats) -> Floats:
    """The surer, the worse: the surest half is over the limit, all of it under."""
    return 0.09 * (confidence - 0.5) * 2


def steep(confidence: Floats) -> Floats:
    """Wrong on a coin's throw at 50 %, almost never above 85 %."""
    return 0.5 * (2 - 2 * confidence) ** 1.5


JUDGES = {
    judge.__name__: judge for judge in (calibrated, overconfident, unrelated, backwards, steep)
}


@dataclass
class Outcome:
    coverage: float = 0.0
    is_over: bool = False


def confidences(rng: np.random.Generator, n: int) -> Floats:
    return 0.5 + 0.5 * rng.beta(2.5, 1, n)


def true_outcome(rule: selective.Step | None, world: Floats, chance: Floats) -> Outcome:
    """On the whole population, of which the chance to be wrong is known."""
    if rule is None:
        return Outcome()
    accepted = world >= rule.threshold
    return Outcome(accepted.mean(), bool(chance[accepted].mean() > LIMIT + 1e-9))


def oracle(world: Floats, chance: Floats) -> float:
    """The largest share that can be accepted by anybody who knows the true chances."""
    order = np.argsort(-world)
    mean = np.cumsum(chance[order]) / np.arange(1, len(world) + 1)
    kept = np.flatnonzero(mean <= LIMIT)
    return (kept[-1] + 1) / len(world) if len(kept) else 0.0


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_limit_holds_over_repetitions_whatever_the_judge(name: str) -> None:
    rng = np.random.default_rng(sorted(JUDGES).index(name))
    world = confidences(rng, 200_000)
    chance = JUDGES[name](world)
    ours, plain = [], []
    for _ in range(REPETITIONS):
        known = confidences(rng, CASES)
        wrong = rng.random(CASES) < JUDGES[name](known)
        thresholds = selective.grid(confidences(rng, WAITING), cases=CASES, limit=LIMIT, risk=RISK)
        choice = selective.fixed_sequence(
            known, wrong, thresholds=thresholds, limit=LIMIT, risk=RISK
        )
        ours.append(true_outcome(choice.rule, world, chance))
        baseline = selective.naive(known, wrong, limit=LIMIT, risk=RISK)
        plain.append(true_outcome(baseline, world, chance))
    violations = np.mean([one.is_over for one in ours])
    saved = np.mean([one.coverage for one in ours])
    possible = oracle(world, chance)
    print(  # shown by pytest -rP
        f"{name}: over the limit {violations:.3f} of the time, the naive rule"
        f" {np.mean([one.is_over for one in plain]):.3f}; accepted {saved:.3f},"
        f" possible {possible:.3f}"
    )
    assert violations <= MOST
    if name == "calibrated":
        assert np.mean([one.is_over for one in plain]) > MOST, "the naive rule does not hold"
    if name == "steep":
        assert possible >= saved > possible / 2, "what can be saved mostly is"
    if name in ("overconfident", "unrelated"):
        assert saved <= MOST


def test_grid_of_the_known_cases_keeps_the_limit_too() -> None:
    rng = np.random.default_rng(17)
    world = confidences(rng, 200_000)
    chance = calibrated(world)
    over = 0
    for _ in range(REPETITIONS):
        known = confidences(rng, CASES)
        wrong = rng.random(CASES) < calibrated(known)
        thresholds = selective.grid(known, cases=CASES, limit=LIMIT, risk=RISK)
        choice = selective.fixed_sequence(
            known, wrong, thresholds=thresholds, limit=LIMIT, risk=RISK
        )
        over += true_outcome(choice.rule, world, chance).is_over
    assert over / REPETITIONS <= MOST


def accepts(known: Floats, wrong: NDArray[np.bool_], waiting: Floats) -> bool:
    thresholds = selective.grid(waiting, cases=len(known), limit=LIMIT, risk=RISK)
    choice = selective.fixed_sequence(known, wrong, thresholds=thresholds, limit=LIMIT, risk=RISK)
    return choice.rule is not None


def test_pairs_of_one_prompt_break_the_promise_and_one_per_prompt_keeps_it() -> None:
    """Ten pairs a prompt, all right or all wrong, as sure as each other: 1,600 cases know as
    much as 160."""
    rng = np.random.default_rng(3)
    share, size, prompts = 0.07, 10, 160  # over the limit: whoever accepts anything is wrong
    as_independent = as_groups = 0
    for _ in range(REPETITIONS):
        groups = np.repeat(np.arange(prompts), size)
        wrong = np.repeat(rng.random(prompts) < share, size)
        known = np.repeat(confidences(rng, prompts), size)
        waiting = confidences(rng, WAITING)
        drawn = selective.one_per_group(groups, rng.permutation(len(groups)))
        as_independent += accepts(known, wrong, waiting)
        as_groups += accepts(known[drawn], wrong[drawn], waiting)
    assert as_independent / REPETITIONS > MOST
    assert as_groups / REPETITIONS <= MOST


def test_one_per_group_takes_each_group_once_by_its_keys_alone() -> None:
    rng = np.random.default_rng(0)
    groups, keys = rng.integers(0, 50, 400), rng.permutation(400)
    rows = selective.one_per_group(groups, keys)
    assert sorted(groups[rows]) == sorted(set(groups.tolist()))
    mixed = rng.permutation(400)
    again = selective.one_per_group(groups[mixed], keys[mixed])
    assert set(keys[mixed][again]) == set(keys[rows]), "not by the order of the rows"
    assert len(selective.one_per_group([], [])) == 0
    same = selective.one_per_group(np.zeros(2_000, dtype=int), np.arange(2_000))
    others = [selective.one_per_group([0, 0], [key, key + 1])[0] for key in range(200)]
    assert len(same) == 1
    assert 60 < sum(others) < 140, "the first is as good as the second"


def test_test_is_the_exact_binomial_one() -> None:
    assert selective.least_cases(0.05, 0.05) == 59
    for n, wrong in ((58, 0), (59, 0), (92, 1), (93, 1)):
        errors = np.arange(n) < wrong
        choice = selective.fixed_sequence(
            np.ones(n), errors, thresholds=[0.5], limit=0.05, risk=0.05
        )
        assert (choice.rule is not None) == (binom.cdf(wrong, n, 0.05) <= 0.05)
        assert (choice.tried[0].bound <= 0.05) == (choice.rule is not None)


def test_too_few_cases_try_nothing_and_accept_nothing() -> None:
    for cases in (0, 1, 58):
        thresholds = selective.grid(np.full(100, 0.9), cases=cases, limit=0.05, risk=0.05)
        assert len(thresholds) == 0
    assert len(selective.grid([], cases=1000, limit=0.05, risk=0.05)) == 0
    assert selective.fixed_sequence([], [], thresholds=[], limit=0.05, risk=0.05).rule is None
    assert selective.naive([], [], limit=0.05, risk=0.05) is None


def test_first_failure_ends_the_search() -> None:
    """Errors among the surest: what looks clean further down is not reached."""
    scores = np.concatenate([np.full(200, 0.99), np.full(5_000, 0.8)])
    errors = np.arange(len(scores)) < 40
    choice = selective.fixed_sequence(scores, errors, thresholds=[0.99, 0.8], limit=0.05, risk=0.05)
    assert choice.rule is None
    assert len(choice.tried) == 1
    assert (
        selective.fixed_sequence(scores, errors, thresholds=[0.8], limit=0.05, risk=0.05).rule
        is not None
    ), "by itself it would have passed"


def test_equal_confidences_are_accepted_together() -> None:
    scores = np.array([0.9] * 300 + [0.8] * 300)
    errors = np.array([False] * 300 + [True] * 300)
    thresholds = selective.grid(scores, cases=600, limit=0.05, risk=0.05)
    assert set(thresholds) == {0.9, 0.8}
    rule = selective.fixed_sequence(
        scores, errors, thresholds=thresholds, limit=0.05, risk=0.05
    ).rule
    assert rule is not None
    assert (rule.threshold, rule.accepted, rule.wrong, rule.coverage) == (0.9, 300, 0, 0.5)


def test_conformal_selection_keeps_the_limit_on_average() -> None:
    rng = np.random.default_rng(5)
    shares, taken = [], []
    for _ in range(REPETITIONS):
        known, others = confidences(rng, 400), confidences(rng, 400)
        wrong = rng.random(400) < steep(known)
        chosen = selective.conformal_selection(known, wrong, others, limit=0.1)
        errors = rng.random(400) < steep(others)
        shares.append(errors[chosen].mean() if chosen.any() else 0.0)
        taken.append(chosen.mean())
    assert np.mean(shares) <= 0.1 + 3 * np.std(shares) / REPETITIONS**0.5
    assert np.mean(taken) > 0.5
    assert not selective.conformal_selection([0.5] * 9, [True] * 9, [0.9], limit=0.05).any()
    assert len(selective.conformal_selection([0.5], [True], [], limit=0.05)) == 0


def test_chance_right_rises_and_matches_the_known_cases() -> None:
    rng = np.random.default_rng(2)
    known = confidences(rng, 50_000)
    wrong = rng.random(50_000) < 1 - known
    knots = selective.chance_right(known, wrong)
    at, fitted = np.array(knots).T
    assert (np.diff(at) > 0).all()
    assert (np.diff(fitted) > 0).all()
    middle = (at > 0.6) & (at < 0.99)
    assert np.abs(fitted[middle] - at[middle]).max() < 0.05
    assert selective.chance_right([], []) == []


def test_curve_says_what_was_counted() -> None:
    scores = np.linspace(1, 0.5, 200)
    errors = np.arange(200) >= 150
    points = selective.curve(scores, errors, cases=400)
    assert points[0].coverage >= selective.LEAST_IN_CURVE / 400
    assert points[-1].coverage == pytest.approx(0.5)
    assert points[-1].share == pytest.approx(0.25)
    assert all(one.low <= one.share <= one.high for one in points)
    assert len(points) <= selective.CURVE_POINTS
    assert selective.curve(scores[:5], errors[:5], cases=5) == []


@pytest.mark.parametrize(
    ("confidence", "wrong"), [([0.5, float("nan")], [0, 1]), ([0.5], [0, 1]), ([[0.5]], [[0]])]
)
def test_ragged_or_nameless_confidences_are_refused(confidence: list, wrong: list) -> None:
    with pytest.raises(ValueError, match="confidence"):
        selective.fixed_sequence(confidence, wrong, thresholds=[0.5], limit=0.05, risk=0.05)


@pytest.mark.parametrize(("limit", "risk"), [(0, 0.05), (1, 0.05), (0.05, 0), (0.05, 1)])
def test_limits_that_mean_nothing_are_refused(limit: float, risk: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        selective.least_cases(limit, risk)
