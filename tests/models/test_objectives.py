from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from models.neural.objectives import Batch, BradleyTerry
from models.objectives import BradleyTerryOptions

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
