from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

torch = pytest.importorskip("torch")

from models.errors import BadArtifact, BadData
from models.neural.attributes import HelpSteer, Regression
from models.neural.gpm import GeneralPreference
from models.neural.lists import PlackettLuce
from models.neural.objectives import (
    Batch,
    BradleyTerry,
    MarginBradleyTerry,
    RobustBradleyTerry,
    ScaledBradleyTerry,
)
from models.objectives import (
    BradleyTerryOptions,
    CenteredOptions,
    GpmOptions,
    HelpSteerOptions,
    MarginOptions,
    RobustOptions,
    ScaledOptions,
    ScoreOptions,
)

pytestmark = pytest.mark.neural

PLAIN = BradleyTerryOptions(center=0)
rewards = st.floats(-50, 50, width=32)
shares = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])


def loss(chosen: float, rejected: float, p: float = 1.0, options=PLAIN) -> float:
    values = torch.tensor([[chosen], [rejected]])
    return BradleyTerry(options).loss(values, batch(p)).item()


def batch(p: float, strength: float = 1.0) -> Batch:
    """One pair."""
    return Batch(
        sizes=torch.tensor([2]),
        p=torch.tensor([p]),
        strength=torch.tensor([strength]),
        ranks=torch.tensor([1, 2]),
        ratings=torch.zeros(2, 0),
    )


def test_loss_has_the_published_values():
    assert loss(1.0, 0.0) == pytest.approx(0.3133, abs=5e-5)
    assert loss(3.0, 3.0) == pytest.approx(math.log(2), abs=1e-6)
    assert loss(0.5, -0.5, p=0.75) == pytest.approx(0.75 * 0.313262 + 0.25 * 1.313262, abs=1e-5)


@given(rewards, rewards, shares)
def test_loss_is_the_same_seen_from_the_other_side(chosen, rejected, p):
    assert loss(chosen, rejected, p) == pytest.approx(loss(rejected, chosen, 1 - p), rel=1e-6)


@given(rewards, rewards, st.floats(-50, 50, width=32))
def test_loss_ignores_a_shift_of_both_rewards_unless_centered(chosen, rejected, shift):
    shifted = loss(chosen + shift, rejected + shift)
    assert shifted == pytest.approx(loss(chosen, rejected), rel=1e-4, abs=1e-4)
    centered = BradleyTerryOptions(center=0.5)
    extra = loss(chosen, rejected, options=centered) - loss(chosen, rejected)
    assert extra == pytest.approx(0.5 * (chosen + rejected) ** 2, rel=1e-3, abs=1e-3)


def test_a_tie_pulls_both_rewards_together():
    values = torch.tensor([2.0, -1.0], requires_grad=True)
    BradleyTerry(PLAIN).loss(values[:, None], batch(0.5, 0.0)).sum().backward()
    assert values.grad[0] > 0 > values.grad[1]
    assert values.grad.sum().item() == pytest.approx(0, abs=1e-7)


def test_loss_stays_finite_at_extreme_margins():
    assert loss(1e4, -1e4) == 0.0
    assert loss(-1e4, 1e4) == pytest.approx(2e4)


def pairwise(kind, options, *, margin: float, p: float = 1.0, strength: float = 1.0) -> float:
    """The loss of one pair in float64."""
    known = batch(p, strength)
    known = replace(known, p=known.p.double(), strength=known.strength.double())
    values = torch.tensor([[margin], [0.0]], dtype=torch.float64)
    return kind(options).loss(values, known).item()


def test_the_losses_of_helpsteer2_have_the_published_values():
    at = {"margin": 1.0, "strength": 2.0}
    assert pairwise(BradleyTerry, PLAIN, **at) == pytest.approx(0.3133, abs=5e-5)
    margin = MarginOptions(center=0)
    assert pairwise(MarginBradleyTerry, margin, **at) == pytest.approx(1.3133, abs=5e-5)
    scaled = ScaledOptions(center=0)
    assert pairwise(ScaledBradleyTerry, scaled, **at) == pytest.approx(0.6265, abs=5e-5)


def test_a_tie_counts_once_and_asks_for_no_margin():
    at = {"margin": 1.5, "p": 0.5, "strength": 0.0}
    plain = pairwise(BradleyTerry, PLAIN, **at)
    assert pairwise(ScaledBradleyTerry, ScaledOptions(center=0), **at) == pytest.approx(plain)
    assert pairwise(MarginBradleyTerry, MarginOptions(center=0), **at) == pytest.approx(plain)


@given(st.floats(-30, 30), st.floats(0, 0.45))
def test_the_robust_loss_is_unbiased_under_flips(margin, flip_rate):
    """By enumeration: with a flip at rate e and without, its mean is the loss of clean votes."""
    options = RobustOptions(center=0, flip_rate=flip_rate)
    right = pairwise(RobustBradleyTerry, options, margin=margin)
    wrong = pairwise(RobustBradleyTerry, options, margin=margin, p=0.0)
    clean = pairwise(BradleyTerry, PLAIN, margin=margin)
    mean = (1 - flip_rate) * right + flip_rate * wrong
    assert mean == pytest.approx(clean, abs=1e-12, rel=1e-12)


def test_smoothing_stops_at_the_log_odds_of_its_rate():
    options = BradleyTerryOptions(center=0, smoothing=0.1)
    best = math.log(0.9 / 0.1)
    at_best = pairwise(BradleyTerry, options, margin=best)
    for other in (best - 0.1, best + 0.1):
        assert pairwise(BradleyTerry, options, margin=other) > at_best


# Regression.


def rated(ratings, outputs, **options):
    """The losses of pairs, and the objective; ratings (2n, a) were its training data too."""
    table = np.array(ratings, dtype=np.float32)
    names = [f"a{i}" for i in range(table.shape[1])]
    made = Regression(ScoreOptions(**options), attributes=names)
    made.begin(torch.nn.Linear(1, 1), table)
    rows = len(table) // 2
    known = Batch(
        sizes=torch.full((rows,), 2),
        p=torch.ones(rows),
        strength=torch.ones(rows),
        ranks=torch.tensor([1, 2] * rows),
        ratings=torch.from_numpy(table),
    )
    return made.loss(torch.tensor(outputs), known), made


def test_regression_leaves_out_what_was_not_rated():
    nan = float("nan")
    ratings = [[1.0, nan], [3.0, 10.0], [nan, 20.0], [2.0, nan]]
    # By column: mean 2, deviation sqrt(2/3); mean 15, deviation 5.
    outputs = [[0.0, 9.0], [0.0, 0.0], [9.0, 3.0], [1.0, 9.0]]
    losses, made = rated(ratings, outputs)
    assert losses.tolist() == pytest.approx([(1.5 + 1.5 + 1) / 3, (4 + 1) / 2], abs=1e-5)
    assert made.mean.tolist() == [2.0, 15.0]
    assert made.deviation.tolist() == pytest.approx([math.sqrt(2 / 3), 5.0])


def test_what_was_not_rated_gives_no_gradient():
    outputs = torch.zeros(2, 1, requires_grad=True)
    made = Regression(ScoreOptions(), attributes=["quality"])
    known = replace(batch(1.0), ratings=torch.tensor([[float("nan")], [2.0]]))
    made.loss(outputs, known).sum().backward()
    assert outputs.grad.tolist() == [[0.0], [-4.0]]


@pytest.mark.parametrize(
    ("score", "expected"),
    [("", [1.5, 3.5]), ("a1", [2.0, 4.0]), ("a0=2, a1=-0.5", [1.0, 4.0])],
)
def test_a_score_is_one_attribute_or_a_mix(score, expected):
    made = Regression(ScoreOptions(score=score), attributes=["a0", "a1"])
    assert made.scores(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == expected


@pytest.mark.parametrize("score", ["a=b", "=1", "a=nan", "a=0, b=0", "a=inf"])
def test_a_mix_that_cannot_be_read_is_refused(score):
    with pytest.raises(ValidationError, match="score"):
        ScoreOptions(score=score)


def test_ratings_that_are_not_there_are_named():
    with pytest.raises(BadData, match="no ratings to learn from"):
        Regression(ScoreOptions(), attributes=[])
    with pytest.raises(BadData, match="Nothing is rated on wit"):
        Regression(ScoreOptions(score="wit"), attributes=["a"])
    with pytest.raises(BadData, match="Nothing is rated on wit"):
        HelpSteer(HelpSteerOptions(score="a, wit"), attributes=["a"])
    made = Regression(ScoreOptions(), attributes=["a", "b"])
    with pytest.raises(BadData, match="training split is rated on b"):
        made.begin(torch.nn.Linear(1, 1), np.array([[1, np.nan]], dtype=np.float32))


def test_the_recipe_learns_the_attributes_of_its_score_only():
    made = HelpSteer(HelpSteerOptions(score="b"), attributes=["a", "b", "c"])
    assert (made.attributes, made.outputs) == (("b",), 1)
    assert [phase.name for phase in made.phases()] == ["ratings", "preferences"]


# Rankings.


def listwise(scores, ranks, ties="half") -> float:
    made = PlackettLuce(CenteredOptions(center=0, ties=ties))
    k = len(scores)
    known = Batch(
        sizes=torch.tensor([k]),
        p=torch.ones(1),
        strength=torch.ones(1),
        ranks=torch.tensor(ranks, dtype=torch.int8),
        ratings=torch.zeros(k, 0),
    )
    return made.loss(torch.tensor(scores)[:, None], known).item()


def by_enumeration(scores, ranks) -> float:
    """The mean negative log-likelihood over every order that the ranks allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(ranks[a] <= ranks[b] for a, b in itertools.pairwise(order))
    ]
    losses = []
    for order in orders:
        left = [scores[i] for i in order]
        losses.append(sum(np.logaddexp.reduce(left[i:]) - left[i] for i in range(len(left) - 1)))
    return float(np.mean(losses))


@given(st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(1, 4)), min_size=3, max_size=5))
def test_a_ranking_costs_what_the_mean_over_its_orders_costs(answers):
    scores, ranks = zip(*answers, strict=True)
    dense = [sorted(set(ranks)).index(rank) + 1 for rank in ranks]
    expected = by_enumeration(scores, dense)
    assert listwise(scores, dense) == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_a_dropped_tie_says_that_each_is_better_than_all_below():
    a, b, c = 0.3, -0.7, 1.1
    expected = np.logaddexp(a, c) - a + np.logaddexp(b, c) - b
    assert listwise([a, b, c], [1, 1, 2], ties="drop") == pytest.approx(expected, abs=1e-6)
    assert listwise([a, b, c], [1, 1, 1], ties="drop") == 0.0
    assert listwise([a, b, c], [2, 3, 1], ties="drop") == pytest.approx(
        listwise([a, b, c], [2, 3, 1]), abs=1e-6
    )


def test_a_list_of_two_is_a_pair_with_its_share_of_votes():
    values = torch.tensor([[0.5], [-0.25]])
    made = PlackettLuce(CenteredOptions(center=0.25))
    plain = BradleyTerry(BradleyTerryOptions(center=0.25))
    assert made.loss(values, batch(0.75)).item() == plain.loss(values, batch(0.75)).item()


# General preferences.

embeddings = st.lists(st.floats(-100, 100, width=32), min_size=9, max_size=9)


@given(embeddings, embeddings, st.sampled_from([2, 4, 6, 8]), st.sampled_from([0.1, 1.0]))
def test_general_preferences_are_antisymmetric_to_the_last_bit(one, other, dim, tau):
    made = GeneralPreference(GpmOptions(dim=dim, tau=tau))
    i, j = torch.tensor(one)[: 1 + dim], torch.tensor(other)[: 1 + dim]
    margins = made.margins(torch.stack([i, j, j, i, i, i]))
    assert margins[0].item() == -margins[1].item()
    assert margins[2].item() == 0.0


def test_general_preferences_hold_bradley_terry():
    made = GeneralPreference(GpmOptions(dim=2))
    assert made.margins(torch.tensor([[0.5, 0.0, 0.0], [-1.0, 2.0, 3.0]])).item() == 1.5
    assert made.margins(torch.tensor([[0.5, 1.0, 2.0], [-1.0, 4.0, 3.0]])).item() == 1.5 + 3 - 8


def test_a_score_is_the_mean_chance_against_the_references():
    made = GeneralPreference(GpmOptions(dim=2))
    with pytest.raises(BadArtifact, match="lacks the references"):
        made.scores(torch.zeros(1, 3))
    made.refer(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    expected = [(1 / (1 + math.exp(-r)) + 1 / (1 + math.exp(1 - r))) / 2 for r in (0.0, 2.0)]
    again = GeneralPreference(GpmOptions(dim=2))
    again.load_state(made.state())
    found = again.scores(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 3, 10])
def test_dimensions_come_in_twos(dim):
    with pytest.raises(ValidationError, match="dim"):
        GpmOptions(dim=dim)
