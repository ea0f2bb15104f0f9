"""How a judge does on labeled pairs in both orders: accuracy, and what the order does to it.

The chosen answer is shown first ("forward") and second ("reverse"). Pairs of one group are not
independent: intervals (95 %) are for as many cases as the groups are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics.generators.types import PreferencePair
from rubrics.judging.orders import Order
from rubrics.judging.types import Decision

Z: Final = 1.959963984540054  # the 97.5 % point of the standard normal distribution
ORDERS: Final[dict[str, Order]] = {
    "forward": (0, 1),
    "reverse": (1, 0),
}  # canonical: chosen, rejected
WRONG: Final = frozenset({"unreadable", "cut"})  # the model's own failures: wrong, not missing

Interval = tuple[float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judgment:
    """Whether a judge named the chosen answer of a pair, in either order; a tie is no.

    ``error``: a call failed, so that the judge said nothing; a key of rubrics.llm.types.FAILURES.
    """

    pair: int
    group: int
    forward: bool
    reverse: bool
    error: str = ""
    is_turned: bool = False  # both orders name the rejected answer

    @property
    def is_recovered(self) -> bool:
        return self.forward and self.reverse and not self.error

    @property
    def side(self) -> int:
        """1 with what people said in both orders, -1 against it in both, else 0."""
        return int(self.is_recovered) - int(self.is_turned)


@dataclass(frozen=True, slots=True)
class Share:
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Gap:
    """Accuracy with the chosen answer shown first less that with it shown second."""

    gap: float
    interval: Interval
    forward: Share
    reverse: Share
    n: int
    groups: int


def judgment_of(pair: PreferencePair, decision: Decision) -> Judgment:
    """``decision`` is on the candidates (chosen, rejected), asked in both orders."""
    told = dict.fromkeys(ORDERS, False)
    turned = set()
    error = decision.error if not decision.opinions else ""
    for one in decision.opinions:
        if one.error and one.error not in WRONG:
            error = one.error
        is_right = not one.error and one.ranks is not None and one.ranks[0] < one.ranks[1]
        for name, order in ORDERS.items():
            if one.shown_order == order:
                told[name] = is_right
                if one.ranks is not None and one.ranks[0] > one.ranks[1]:
                    turned.add(name)
    is_turned = len(turned) == len(ORDERS) and not error
    return Judgment(pair.id, pair.group, told["forward"], told["reverse"], error, is_turned)


def positional_gap(judgments: Sequence[Judgment]) -> Gap | None:
    """Acc_fwd - Acc_rev over the judgments without an error; None where there are none.

    The interval is that of Bonett and Price 2012 (Journal of Educational and Behavioral
    Statistics 37:479) for the difference of two paired shares.
    """
    forward, reverse, groups = _columns(judgments)
    if not len(groups):
        return None
    value, interval = _difference(forward - reverse, groups)
    return Gap(
        value,
        interval,
        Share(float(forward.mean()), _share_interval(forward, groups)),
        Share(float(reverse.mean()), _share_interval(reverse, groups)),
        n=len(groups),
        groups=len(np.unique(groups)),
    )


def averaged_accuracy(judgments: Sequence[Judgment]) -> Share | None:
    """The mean of both orders' accuracies, over the judgments without an error."""
    forward, reverse, groups = _columns(judgments)
    if not len(groups):
        return None
    scores = (forward + reverse) / 2
    return Share(float(scores.mean()), _share_interval(scores, groups, verdicts=2))


def as_figures(judgments: Sequence[Judgment]) -> dict[str, Any] | None:
    """Both of the above as JSON-ready values, with ``failed`` judgments counted beside."""
    share, gap = averaged_accuracy(judgments), positional_gap(judgments)
    if share is None or gap is None:
        return None
    return {
        "accuracy": share.value,
        "interval": list(share.interval),
        "n": gap.n,
        "groups": gap.groups,
        "failed": len(judgments) - gap.n,
        "both_orders": sum(one.is_recovered for one in judgments),
        "positional_gap": _listed(asdict(gap)),
    }


def rise(before: Sequence[Judgment], after: Sequence[Judgment]) -> dict[str, Any] | None:
    """By how much the order-averaged accuracy rose, on the pairs judged both times."""
    earlier = {one.pair: one for one in before if not one.error}
    both = [(earlier[one.pair], one) for one in after if not one.error and one.pair in earlier]
    if not both:
        return None
    gains = [new.forward + new.reverse - old.forward - old.reverse for old, new in both]
    groups = np.array([new.group for _, new in both])
    value, interval = _difference(np.array(gains, dtype=np.float64) / 2, groups)
    return {"value": value, "interval": list(interval), "n": len(both)}


def wilson(hits: float, n: float) -> Interval:
    """Interval of a share, ``hits`` of ``n`` cases. Wilson 1927, JASA 22:209."""
    if n <= 0:
        return 0.0, 1.0
    share = hits / n
    center = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low = 0.0 if hits <= 0 else max(0.0, center - half)
    high = 1.0 if hits >= n else min(1.0, center + half)
    return low, high


def _columns(judgments: Sequence[Judgment]) -> tuple[Floats, Floats, NDArray[Any]]:
    """Right with the chosen first (n,), second (n,) and group (n,), of those without an error."""
    told = [one for one in judgments if not one.error]
    forward = np.array([one.forward for one in told], dtype=np.float64)
    reverse = np.array([one.reverse for one in told], dtype=np.float64)
    return forward, reverse, np.array([one.group for one in told])


def _variance(values: Floats, groups: NDArray[Any]) -> tuple[float, int]:
    """(variance of the mean, groups) where cases come in groups. Liang and Zeger 1986."""
    _, code = np.unique(groups, return_inverse=True)
    surplus = np.bincount(code, weights=values - values.mean())
    size = len(surplus)
    if size < 2:
        return 0.0, size
    return float(size / (size - 1) * (surplus**2).sum()) / len(values) ** 2, size


def _share_interval(scores: Floats, groups: NDArray[Any], *, verdicts: int = 1) -> Interval:
    """Wilson on as many independent verdicts as have this spread; on the groups where none has."""
    mean = float(scores.mean())
    spread, size = _variance(scores, groups)
    n = min(mean * (1 - mean) / spread, verdicts * len(scores)) if spread > 0 else float(size)
    return wilson(mean * n, n)


def _difference(values: Floats, groups: NDArray[Any]) -> tuple[float, Interval]:
    """Mean of differences in [-1, 1] and its interval: adjusted Wald, one more of +1 and of -1."""
    mean = float(values.mean())
    spread, size = _variance(values, groups)
    alone = float(values.var()) / len(values)
    n = len(values) * min(1.0, alone / spread) if spread > 0 else float(size)
    center = n * mean / (n + 2)
    square = (n * float((values**2).mean()) + 2) / (n + 2)
    half = Z * math.sqrt(max(square - center**2, 0.0) / (n + 2))
    return mean, (max(-1.0, center - half), min(1.0, center + half))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
