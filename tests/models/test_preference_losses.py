"""The losses that go out with datasets: numpy beside torch, and what each becomes at its edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models.neural.shipped import preference_losses as losses

pytestmark = pytest.mark.neural

N, BETA = 500, 0.3
Floats = np.ndarray
EXACT = {"rtol": 0, "atol": 1e-12}


def log_sigmoid(x: Floats) -> Floats:
    return -np.logaddexp(0, -x)


def kl(a: Floats, b: Floats) -> Floats:
    """From the Bernoulli of log-odds a to that of b."""
    p = 1 / (1 + np.exp(-a))
    return p * (log_sigmoid(a) - log_sigmoid(b)) + (1 - p) * (log_sigmoid(-a) - log_sigmoid(-b))


@pytest.fixture
def rows() -> dict[str, Floats]:
    rng = np.random.default_rng(5)
    return {
        "chosen": rng.normal(size=N) * 8,
        "rejected": rng.normal(size=N) * 8,
        "other": rng.normal(size=N) * 8,
        "p": rng.random(N),
        "margin": rng.normal(size=N),
        "weight": rng.random(N) * 2,
    }


def tensors(*values: Floats) -> list[Any]:
    return [torch.from_numpy(value) for value in values]


REFERENCES: dict[str, tuple[Callable[..., Any], Callable[[dict[str, Floats]], Floats], list[str]]]
REFERENCES = {
    "dpo": (
        lambda c, r: losses.dpo(c, r, beta=BETA),
        lambda of: -log_sigmoid(BETA * (of["chosen"] - of["rejected"])),
        ["chosen", "rejected"],
    ),
    "cdpo": (
        lambda c, r, p: losses.cdpo(c, r, p, beta=BETA),
        lambda of: (
            -of["p"] * log_sigmoid(BETA * (of["chosen"] - of["rejected"]))
            - (1 - of["p"]) * log_sigmoid(BETA * (of["rejected"] - of["chosen"]))
        ),
        ["chosen", "rejected", "p"],
    ),
    "rdpo": (
        lambda c, r: losses.rdpo(c, r, flip_rate=0.2, beta=BETA),
        lambda of: (
            (
                -0.8 * log_sigmoid(BETA * (of["chosen"] - of["rejected"]))
                + 0.2 * log_sigmoid(BETA * (of["rejected"] - of["chosen"]))
            )
            / 0.6
        ),
        ["chosen", "rejected"],
    ),
    "ipo": (
        lambda c, r: losses.ipo(c, r, beta=BETA),
        lambda of: (of["chosen"] - of["rejected"] - 1 / (2 * BETA)) ** 2,
        ["chosen", "rejected"],
    ),
    "madpo": (
        lambda c, r, w: losses.madpo(c, r, w, beta=BETA),
        lambda of: -of["weight"] * log_sigmoid(BETA * (of["chosen"] - of["rejected"])),
        ["chosen", "rejected", "weight"],
    ),
    "mappo": (
        lambda c, r, m: losses.mappo(c, r, m, beta=BETA),
        lambda of: -log_sigmoid(BETA * of["chosen"] - of["margin"] * BETA * of["rejected"]),
        ["chosen", "rejected", "margin"],
    ),
    "rpo-sq": (
        lambda c, r, m: losses.rpo(c, r, m, beta=BETA, eta=2.0, form="sq"),
        lambda of: (BETA * (of["chosen"] - of["rejected"]) - 2 * of["margin"]) ** 2,
        ["chosen", "rejected", "margin"],
    ),
    "rpo-bwd": (
        lambda c, r, m: losses.rpo(c, r, m, beta=BETA, eta=2.0),
        lambda of: kl(2 * of["margin"], BETA * (of["chosen"] - of["rejected"])),
        ["chosen", "rejected", "margin"],
    ),
    "rpo-fwd": (
        lambda c, r, m: losses.rpo(c, r, m, beta=BETA, eta=2.0, form="fwd_kl"),
        lambda of: kl(BETA * (of["chosen"] - of["rejected"]), 2 * of["margin"]),
        ["chosen", "rejected", "margin"],
    ),
    "smpo": (
        lambda c, r, p: losses.smpo(c, r, p, beta=BETA, flips=True),
        lambda of: -log_sigmoid((2 * of["p"] - 1) * BETA * (of["chosen"] - of["rejected"])),
        ["chosen", "rejected", "p"],
    ),
    "modpo": (
        lambda c, r, m: losses.modpo(c, r, m, first=0.5, beta=BETA),
        lambda of: -log_sigmoid((BETA * (of["chosen"] - of["rejected"]) - of["margin"]) / 0.5),
        ["chosen", "rejected", "margin"],
    ),
    "wrpo": (
        lambda c, o, r: losses.wrpo(c, o, r, alpha=0.1, beta=BETA),
        lambda of: -log_sigmoid(BETA * (0.1 * of["chosen"] + 0.9 * of["other"] - of["rejected"])),
        ["chosen", "other", "rejected"],
    ),
    "nca-pair": (
        lambda c, r: losses.nca_pair(c, r, beta=BETA),
        lambda of: (
            -log_sigmoid(BETA * of["chosen"])
            - 0.5 * log_sigmoid(-BETA * of["chosen"])
            - 0.5 * log_sigmoid(-BETA * of["rejected"])
        ),
        ["chosen", "rejected"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", REFERENCES)
def test_torch_says_what_numpy_says(key: str, rows: dict[str, Floats]) -> None:
    loss, reference, names = REFERENCES[key]
    found = loss(*tensors(*(rows[name] for name in names)))
    np.testing.assert_allclose(found.numpy(), reference(rows), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_losses_of_lists_say_what_numpy_says(k: int) -> None:
    rng = np.random.default_rng(9)
    ratios, rewards = rng.normal(size=(N, k)) * 5, rng.normal(size=(N, k))
    share = np.exp(rewards / 0.5)
    share /= share.sum(1, keepdims=True)
    given = torch.from_numpy(ratios)
    found = losses.shares(torch.from_numpy(rewards), alpha=0.5)
    np.testing.assert_allclose(found.numpy(), share, **EXACT)
    scaled = BETA * ratios
    info = -(share * (scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))).sum(1)
    np.testing.assert_allclose(losses.info_nca(given, found, beta=BETA).numpy(), info, rtol=1e-10)
    nca = -(share * log_sigmoid(scaled)).sum(1) - log_sigmoid(-scaled).mean(1)
    np.testing.assert_allclose(losses.nca(given, found, beta=BETA).numpy(), nca, rtol=1e-10)


def test_every_variant_becomes_dpo_where_it_should(rows: dict[str, Floats]) -> None:
    chosen, rejected, other = tensors(rows["chosen"], rows["rejected"], rows["other"])
    one, zero = torch.ones(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    plain = losses.dpo(chosen, rejected, beta=BETA)
    pair = torch.stack([chosen, rejected], 1)
    hot = torch.stack([one, zero], 1)
    same = {
        "MaPPO, margin 1": losses.mappo(chosen, rejected, one, beta=BETA),
        "MODPO, all weight on the preference": losses.modpo(
            chosen, rejected, zero, first=1.0, beta=BETA
        ),
        "InfoNCA of two, one-hot": losses.info_nca(pair, hot, beta=BETA),
        "WRPO, alpha 0": losses.wrpo(other, chosen, rejected, alpha=0.0, beta=BETA),
        "rDPO, nothing flipped": losses.rdpo(chosen, rejected, flip_rate=0.0, beta=BETA),
        "cDPO, certain": losses.cdpo(chosen, rejected, one, beta=BETA),
        "MADPO, weight 1": losses.madpo(chosen, rejected, one, beta=BETA),
        "SmPO, certain": losses.smpo(chosen, rejected, one, beta=BETA),
    }
    for name, found in same.items():
        np.testing.assert_allclose(found.numpy(), plain.numpy(), err_msg=name, **EXACT)


def test_pairwise_nca_is_nca_of_two_with_one_share(rows: dict[str, Floats]) -> None:
    chosen, rejected = tensors(rows["chosen"], rows["rejected"])
    one, zero = torch.ones(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    listed = losses.nca(torch.stack([chosen, rejected], 1), torch.stack([one, zero], 1), beta=BETA)
    pair = losses.nca_pair(chosen, rejected, beta=BETA)
    np.testing.assert_allclose(listed.numpy(), pair.numpy(), **EXACT)


@pytest.mark.parametrize("form", ["sq", "bwd_kl", "fwd_kl"])
def test_reward_aware_loss_is_least_where_the_policy_has_the_rewards_margin(form: str) -> None:
    margin = torch.linspace(-2, 2, 9, dtype=torch.float64)
    h = (1.5 * margin / BETA).requires_grad_()
    loss = losses.rpo(h, torch.zeros(9), margin, beta=BETA, eta=1.5, form=form)
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().numpy(), 0, atol=1e-12)
    assert h.grad is not None
    np.testing.assert_allclose(h.grad.numpy(), 0, atol=1e-12)
    beside = losses.rpo(h.detach() + 1, torch.zeros(9), margin, beta=BETA, eta=1.5, form=form)
    assert (beside > 1e-4).all()


def test_rdpo_is_an_unbiased_estimate_of_the_clean_loss(rows: dict[str, Floats]) -> None:
    """By enumeration of both labels: (1 - e) L(z) + e L(-z) = -log sigmoid(z)."""
    chosen, rejected = tensors(rows["chosen"], rows["rejected"])
    rate = 0.3
    mean = (1 - rate) * losses.rdpo(chosen, rejected, flip_rate=rate, beta=BETA)
    mean = mean + rate * losses.rdpo(rejected, chosen, flip_rate=rate, beta=BETA)
    plain = losses.dpo(chosen, rejected, beta=BETA)
    np.testing.assert_allclose(mean.numpy(), plain.numpy(), atol=1e-9)


def test_soft_labels_have_a_bounded_optimum() -> None:
    p = torch.tensor([0.6, 0.75, 0.9], dtype=torch.float64)
    h = (torch.logit(p) / BETA).requires_grad_()
    losses.cdpo(h, torch.zeros(3), p, beta=BETA).sum().backward()
    assert h.grad is not None
    np.testing.assert_allclose(h.grad.numpy(), 0, atol=1e-12)


def test_a_label_that_the_scores_contradict_teaches_nothing_unless_flips_are_asked_for() -> None:
    h = torch.tensor([2.0], requires_grad=True)
    losses.smpo(h, torch.zeros(1), torch.tensor([0.2])).sum().backward()
    assert h.grad is not None
    assert h.grad.item() == 0
    flipped = losses.smpo(h, torch.zeros(1), torch.tensor([0.2]), flips=True)
    assert flipped.item() > np.log(2)


@pytest.mark.parametrize("bad", [-0.1, 0.5, 1.0])
def test_flip_rates_of_a_coin_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="flip rate"):
        losses.rdpo(torch.zeros(1), torch.zeros(1), flip_rate=bad)


def test_dividing_by_no_weight_and_unknown_forms_are_refused() -> None:
    zero = torch.zeros(1)
    with pytest.raises(ValueError, match="above 0"):
        losses.modpo(zero, zero, zero, first=0.0)
    with pytest.raises(ValueError, match="no form"):
        losses.rpo(zero, zero, zero, form="l1")
