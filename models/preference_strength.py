"""How strong a preference is, by the votes of several reward models.

Members that differ by seed and order of the data each give every pair a margin, the reward of the
chosen answer less that of the rejected one. Their mean **mu** is the strength of the preference;
where it is negative the label is probably wrong. Their standard deviation **sigma** is how far
clones of one model disagree, not how far people do. Among the lowest fifth by mu most labels that
were flipped are found; the next fifth is about a coin's throw.

Voters that have learned their pairs by heart agree with every label, wrong ones too: they have to be
stopped early, or vote only on pairs that they were not trained on. ``vote`` refuses others.
Source: Wang et al. 2024, arXiv 2401.06080 (Secrets of RLHF in Large Language Models, part II).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import BadData

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_ACCURATE: Final = 0.97  # on the pairs of training; above it labels are known by heart
FEWEST_MEMBERS: Final = 2


@dataclass(frozen=True, eq=False)
class Strength:
    """Arrays (n,) by pair; ``accuracy`` (k,) by member, NaN for one that has seen no pair.

    ``mu`` is the mean margin and ``sigma`` the standard deviation, ddof 0, over the ``n`` members
    that vote on the pair; NaN where none does.
    """

    mu: Floats
    sigma: Floats
    n: NDArray[np.int64]
    accuracy: Floats

    def lowest(self, share: float) -> Flags:
        """The pairs (n,) with the lowest ``mu``: so large a share of those with a vote.

        Equal ones at the border are all left out. Raises ValueError for a share outside 0..1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is between 0 and 1, not {share}")
        known = np.sort(self.mu[np.isfinite(self.mu)])
        count = round(share * len(known))
        if count == len(known):
            return np.isfinite(self.mu)
        return np.asarray(self.mu < known[count])


def vote(
    margins: ArrayLike,
    *,
    seen: ArrayLike | None = None,
    held_out: bool = False,
    most_accurate: float = MOST_ACCURATE,
) -> Strength:
    """Strength of n preferences by the margins (k, n) of k members, NaN where one has none.

    ``seen`` (k, n) says which pairs each member was trained on; all of them if not given. With
    ``held_out`` a member votes on the others alone (``folds`` lays that out), else on all, and then
    no member may put more than ``most_accurate`` of the pairs it has seen right. Raises BadData
    for members that do, ValueError for shapes that do not fit or fewer than two members.
    """
    given = np.asarray(margins, dtype=np.float64)
    if given.ndim != 2 or len(given) < FEWEST_MEMBERS:
        raise ValueError(f"margins (members, pairs) of two members or more, not {given.shape}")
    known = np.isfinite(given)
    learned = np.ones_like(known) if seen is None else np.asarray(seen, dtype=bool)
    if learned.shape != given.shape:
        raise ValueError(f"seen {learned.shape} is not of the shape of margins {given.shape}")
    accuracy = _share(given > 0, known & learned)
    if not held_out:
        _require_unmemorized(accuracy, most=most_accurate)
    votes = known & ~learned if held_out else known
    n = votes.sum(axis=0)
    mu = _mean(given, votes, n)
    sigma = np.sqrt(_mean((given - mu) ** 2, votes, n))
    return Strength(mu, sigma, n, accuracy)


def folds(groups: ArrayLike, members: int, *, seed: int = 0) -> Flags:
    """Which pairs (members, n) each member is trained on, so that each pair is left to one of them.

    Pairs of one group, such as a prompt, stay together: who was trained on one of them knows the
    others. For several votes on each pair lay out several times, with other seeds. Raises ValueError
    for fewer than two members or fewer groups than members.
    """
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if not FEWEST_MEMBERS <= members <= len(names):
        raise ValueError(f"{members} members for {len(names)} groups")
    place = np.random.default_rng(seed).permutation(len(names)) % members
    seen: Flags = place[code.reshape(-1)][None, :] != np.arange(members)[:, None]
    return seen


def detection(strength: Strength, flipped: ArrayLike) -> tuple[float, float]:
    """(area under the curve, share) of finding flipped labels (n,) by a low mu.

    The area is the chance that a flipped pair has a lower mu than another; the share is that of the
    flipped pairs which stand among the lowest fifth. For planted or checked labels. Raises
    ValueError unless there are flipped and other pairs with a vote.
    """
    from scipy.stats import rankdata  # slow to import, and every page would

    is_flipped = np.asarray(flipped, dtype=bool)
    known = np.isfinite(strength.mu)
    wrong, right = int((known & is_flipped).sum()), int((known & ~is_flipped).sum())
    if not wrong or not right:
        raise ValueError("there have to be flipped pairs and others")
    ranks = rankdata(-strength.mu[known])[is_flipped[known]]
    area = (float(ranks.sum()) - wrong * (wrong + 1) / 2) / (wrong * right)
    return area, float(strength.lowest(0.2)[is_flipped & known].mean())


def _require_unmemorized(accuracy: Floats, *, most: float) -> None:
    known = accuracy[np.isfinite(accuracy)]
    if known.size and known.max() > most:
        raise BadData(
            f"The voters know their training pairs by heart: {int((known > most).sum())} of"
            f" {known.size} members put more than {100 * most:.0f} % of them right, up to"
            f" {100 * known.max():.1f} %. They would agree with wrong labels too.",
            advice="Train for fewer epochs or stop earlier, or let members vote on pairs that they"
            " were not trained on.",
        )


def _share(right: Flags, known: Flags) -> Floats:
    """Of each row the share of what is known that is right; NaN where nothing is."""
    n = known.sum(axis=1)
    return _divide((right & known).sum(axis=1), n)


def _mean(values: Floats, votes: Flags, n: NDArray[np.int64]) -> Floats:
    return _divide(np.where(votes, values, 0.0).sum(axis=0), n)


def _divide(total: NDArray[Any], n: NDArray[np.int64]) -> Floats:
    found: Floats = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    return found
