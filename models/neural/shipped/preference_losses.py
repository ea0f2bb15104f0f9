"""Losses of DPO and its variants, each per row, nothing but torch.

``chosen`` and ``rejected`` (n,) are log-ratios ``log pi(y|x) - log pi_ref(y|x)`` summed over the
tokens of a reply; h is their difference. Every other tensor is (n,) and comes from a column of
the dataset; its manifest says on which scale. Every loss returns (n,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softmax


def dpo(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigmoid(beta h). Rafailov et al. 2023, arXiv 2305.18290."""
    return -logsigmoid(beta * (chosen - rejected))


def cdpo(chosen: Tensor, rejected: Tensor, p: Tensor, *, beta: float = 0.1) -> Tensor:
    """DPO on a soft label: ``p`` is the probability that chosen is the better answer.

    Its optimum is bounded: beta h = logit(p).
    """
    z = beta * (chosen - rejected)
    return -p * logsigmoid(z) - (1 - p) * logsigmoid(-z)


def rdpo(chosen: Tensor, rejected: Tensor, *, flip_rate: float, beta: float = 0.1) -> Tensor:
    """The unbiased estimate of DPO's loss where that share of all labels is flipped, below .5.

    Unbounded below: regularize or stop early, and never stop because it is negative.
    Chowdhury, Kini and Natarajan 2024, arXiv 2403.00409.
    """
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"a flip rate is at least 0 and below .5, not {flip_rate}")
    z = beta * (chosen - rejected)
    clean, flipped = -logsigmoid(z), -logsigmoid(-z)
    return ((1 - flip_rate) * clean - flip_rate * flipped) / (1 - 2 * flip_rate)


def ipo(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """(h - 1 / (2 beta))^2 with h summed over tokens; TRL's ``ipo`` takes means over them, which
    changes what beta means by orders of magnitude. Azar et al. 2023, arXiv 2310.12036."""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def madpo(chosen: Tensor, rejected: Tensor, weight: Tensor, *, beta: float = 0.1) -> Tensor:
    """DPO's loss times a weight of the row (column ``madpo_weight``). arXiv 2510.05342."""
    return weight * dpo(chosen, rejected, beta=beta)


def mappo(chosen: Tensor, rejected: Tensor, margin: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigmoid(beta lr_w - margin beta lr_l); ``margin`` is a difference of rewards in [0, 1].

    A margin of 1 is DPO. Where the model prefers the rejected answer the margin is negative and
    the loss would raise that answer: drop such rows or clip at 0.
    """
    return -logsigmoid(beta * chosen - margin * beta * rejected)


def rpo(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor,
    *,
    beta: float = 0.1,
    eta: float = 1.0,
    form: str = "bwd_kl",
) -> Tensor:
    """Reward-aware: beta h is drawn to ``eta margin``, a difference of rewards.

    ``sq``: their squared distance; ``bwd_kl``: KL from the Bernoulli of the rewards to that of the
    policy; ``fwd_kl``: the other way round. As in NeMo-Aligner. Least, 0, at beta h = eta margin.
    """
    z, target = beta * (chosen - rejected), eta * margin
    if form == "sq":
        return (z - target) ** 2
    own = (logsigmoid(z), logsigmoid(-z))
    aim = (logsigmoid(target), logsigmoid(-target))
    if form == "bwd_kl":
        return aim[0].exp() * (aim[0] - own[0]) + aim[1].exp() * (aim[1] - own[1])
    if form == "fwd_kl":
        return own[0].exp() * (own[0] - aim[0]) + own[1].exp() * (own[1] - aim[1])
    raise ValueError(f"there is no form {form!r}: sq, bwd_kl or fwd_kl")


def smpo(
    chosen: Tensor, rejected: Tensor, p: Tensor, *, beta: float = 0.1, flips: bool = False
) -> Tensor:
    """-log sigmoid((2p - 1) beta h) of a soft label ``p``, the geometric mean of both labels.

    Where p is below .5 the label would be turned: only with ``flips``, else such a row gives the
    constant log 2 and no gradient.
    """
    weight = 2 * p - 1
    if not flips:
        weight = weight.clamp(min=0)
    return -logsigmoid(weight * beta * (chosen - rejected))


def modpo(
    chosen: Tensor, rejected: Tensor, others: Tensor, *, first: float, beta: float = 0.1
) -> Tensor:
    """-log sigmoid((beta h - others) / first). Zhou et al. 2023, arXiv 2310.03708.

    ``others`` (n,): the weighted sum of the differences of the other objectives' scores;
    ``first``: the weight of the preference itself, which divides and so must not be tiny.
    """
    if not first > 0:
        raise ValueError(f"the weight of the preference is above 0, not {first}")
    return -logsigmoid((beta * (chosen - rejected) - others) / first)


def wrpo(
    source: Tensor, target: Tensor, rejected: Tensor, *, alpha: float, beta: float = 0.01
) -> Tensor:
    """Two chosen answers, of a stronger source model and of the model itself: alpha goes from 0
    to about .1 while training. alpha 0 is DPO on the target pair."""
    return -logsigmoid(beta * (alpha * source + (1 - alpha) * target - rejected))


def nca_pair(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """NCA of two replies of which one is chosen. Chen et al. 2024, arXiv 2402.05369."""
    good, bad = beta * chosen, beta * rejected
    return -logsigmoid(good) - 0.5 * logsigmoid(-good) - 0.5 * logsigmoid(-bad)


# Of k replies to one prompt: ratios, shares (n, k); a share is softmax(reward / alpha) -------------


def shares(rewards: Tensor, *, alpha: float) -> Tensor:
    """softmax(rewards / alpha) (n, k); a tiny alpha leaves all to the best."""
    return softmax(rewards / alpha, dim=-1)


def info_nca(ratios: Tensor, share: Tensor, *, beta: float = 0.01) -> Tensor:
    """-sum_i p_i log softmax(beta r)_i. Two replies, one share of 1: DPO."""
    return -(share * torch.log_softmax(beta * ratios, dim=-1)).sum(-1)


def nca(ratios: Tensor, share: Tensor, *, beta: float = 0.01) -> Tensor:
    """-sum_i p_i log sigmoid(beta r_i) - mean_i log sigmoid(-beta r_i)."""
    r = beta * ratios
    return -(share * logsigmoid(r)).sum(-1) - logsigmoid(-r).mean(-1)
