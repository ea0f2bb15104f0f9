"""Plackett-Luce: whole rankings, place by place."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from models.neural.objectives import Batch, Objective, negative_log_likelihood
from models.objectives import CenteredOptions
from models.plackett import stages


class PlackettLuce(Objective):
    """-Σ_places [s_place - logsumexp(s of those not yet placed)] + center (2 mean s)².

    Ties: the mean over the orders of the tied answers, exact up to five (models.plackett), or, with
    ``ties`` "drop", only that each of them is better than all below. A row of two is a pair with
    its share of votes p. Source: Plackett 1975, Applied Statistics 24:193.
    """

    options: CenteredOptions
    reads = "lists"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        rows = len(batch.sizes)  # all of one size k
        scores = outputs[:, 0].view(rows, -1)  # (b, k)
        centering = self.options.center * (2 * scores.mean(1)).square()
        if scores.shape[1] == 2:
            return negative_log_likelihood(scores[:, 0] - scores[:, 1], batch.p) + centering
        order = batch.ranks.view(rows, -1).argsort(dim=1, stable=True)
        ranks = batch.ranks.view(rows, -1).gather(1, order)  # (b, k) ascending
        return self.listwise(scores.gather(1, order), ranks) + centering

    def listwise(self, scores: Tensor, ranks: Tensor) -> Tensor:
        """The loss (b,) of rankings (b, k), the best first."""
        found = torch.zeros(len(scores), device=scores.device)
        patterns, of_row = torch.unique(ranks, dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns.tolist()):
            rows = of_row == number
            member, weight, chosen = (
                part.to(scores.device) for part in choices(tuple(pattern), self.options.ties)
            )
            s = scores[rows]  # (m, k)
            left = s[:, None].masked_fill(~member, -torch.inf).logsumexp(2)  # (m, t)
            found = found.index_put((rows,), left @ weight - s @ chosen)
        return found


@lru_cache(maxsize=4096)
def choices(ranks: tuple[int, ...], ties: str) -> tuple[Tensor, Tensor, Tensor]:
    """What a ranking of k answers, best first, says: t choices of one out of some.

    member (t, k), who could be chosen; weight (t,); chosen (k,), how much each answer won.
    """
    k = len(ranks)
    groups = [tuple(i for i in range(k) if ranks[i] == rank) for rank in sorted(set(ranks))]
    chosen = torch.zeros(k)
    found: list[tuple[tuple[int, ...], float]] = []
    if ties == "drop":
        for group in groups[:-1]:
            below = tuple(range(group[-1] + 1, k))
            found += [((one, *below), 1.0) for one in group]
            chosen[list(group)] = 1.0
    else:
        found = list(stages(tuple(groups)))
        chosen[:] = 1.0
        chosen[list(groups[-1])] -= 1 / len(groups[-1])  # the one left is chosen by nobody
    member = torch.zeros(len(found), k, dtype=torch.bool)
    for row, (members, _) in enumerate(found):
        member[row, list(members)] = True
    return member, torch.tensor([share for _, share in found]), chosen
