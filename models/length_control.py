"""Win rates at equal lengths, as AlpacaEval does, and how winning depends on length. Numpy.

A verdict for the longer of two answers may mean that it is better or that it is longer. The
logistic model ``logit P(m beats b | x) = theta + phi * tanh(delta / std(delta)) + psi * gamma_x``
takes the two apart; its prediction with the length term at zero is the length-controlled win rate.
It says what the judge would have said at equal lengths, on average: it corrects no single verdict.

Sign: ``delta`` is the length of m minus that of b, so a positive ``phi`` prefers longer answers.
(AlpacaEval's code subtracts the other way round, and its coefficient has the other sign.)
Source: Dubois et al. 2024, Length-Controlled AlpacaEval, arXiv 2404.04475.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from models.intervals import Accuracy, Interval, estimate_accuracy, group_codes, wilson
from models.resampling import resampled_sums
from rubrics.registry import Method

__all__ = ["LENGTH_CONTROLS", "Controlled", "LengthBucket", "by_length_ratio", "glm", "plain"]

Floats = NDArray[np.float64]

LENGTH_CONTROLS: Final[dict[str, Method]] = {
    "plain": Method(
        path="models.length_control:plain",
        label="Plain logistic model",
        summary="swapping the two models gives exactly 100 minus the win rate",
    ),
    "alpaca-eval": Method(
        path="models.length_control:glm",
        label="AlpacaEval's",
        summary="an L1 penalty chosen by folds, steadied by rows of the baseline against itself",
    ),
}

RIDGE: Final = 1e-3  # keeps coefficients finite where one side always wins
STEPS: Final = 50
TOLERANCE: Final = 1e-9
REPLICATES: Final = 400
FEWEST: Final = 10  # comparisons
GAMED_WEIGHT: Final = 0.2  # of all rows of the baseline against itself, beside 1 per real row
FOLDS: Final = 5
SEED: Final = 123
LARGEST_SHIFT: Final = 0.10
LARGEST_RATIO: Final = 4.0
RATIOS: Final = tuple(float(2.0**step) for step in np.arange(-2, 2.5, 0.5))  # 1/4 ... 4


@dataclass(frozen=True)
class Controlled:
    """A win rate as it is and at equal lengths, in 0..1, each with its 95 % interval.

    ``coefficient`` is phi of tanh(standardized length difference), positive where longer is
    preferred. ``n`` comparisons on ``groups`` prompts. ``difficulty`` is psi, None where no
    difficulty was given. ``warning`` is empty where the correction is of a believable size.
    """

    raw: Accuracy
    controlled: float
    interval: Interval | None
    coefficient: float
    coefficient_interval: Interval | None
    difficulty: float | None
    n: int
    groups: int
    method: str
    warning: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self) | {"raw": self.raw.as_dict()}


@dataclass(frozen=True)
class LengthBucket:
    """Win share of the answer that is ``ratio`` times as long, pairs between ``low`` and ``high``."""

    ratio: float
    low: float
    high: float
    share: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """Comparisons as the model takes them; ``features`` (n, 2 or 3): one, length, difficulty."""

    won: Floats
    features: Floats
    groups: NDArray[np.int64]


def plain(
    won: ArrayLike,
    lengths: ArrayLike,
    lengths_other: ArrayLike,
    groups: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Controlled | None:
    """The model by maximum likelihood, with a ridge so weak that it only keeps it finite.

    won (n,) in 0..1: 1 where m beats b, .5 a tie; lengths of m and of b (n,) in characters; groups
    (n,) the prompt. ``difficulty`` (n,): log-odds by which *other* models beat b on the prompt, 0
    where that is not known; from m's own comparisons it would absorb the effect.
    Exact: swapping m and b (with ``-difficulty``) gives one minus both rates and the same phi.
    The interval is a bootstrap over prompts, each replicate one Newton step from the optimum.
    None for fewer than FEWEST comparisons. Raises ValueError on unequal shapes or values out of
    range.
    """
    rows = _rows(won, lengths, lengths_other, groups, difficulty)
    if rows is None:
        return None
    beta = _fit(rows)
    rates, slopes = _bootstrap(rows, beta, replicates=replicates, seed=seed)
    return _result(
        rows,
        beta,
        "plain",
        interval=_percentiles(rates),
        slope=_percentiles(slopes),
        seed=seed,
    )


def glm(
    won: ArrayLike,
    lengths: ArrayLike,
    lengths_other: ArrayLike,
    groups: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    replicates: int = 0,
    seed: int = 0,
) -> Controlled | None:
    """The model as AlpacaEval fits it; arguments and errors as of ``plain``.

    Soft labels become two weighted rows; an L1 penalty is chosen by five folds over prompts; there
    is no intercept beside the constant that marks "not the baseline itself". For every comparison
    two rows of the baseline against a shorter and a longer version of itself, which must come out
    even, weigh GAMED_WEIGHT / 2 each: they keep the length term small where there is little to go
    by, so this one is not antisymmetric. Baseline against itself is exactly one half.
    ``replicates`` bootstraps over prompts with the chosen penalty, which takes a fit each; 0 none.
    """
    rows = _rows(won, lengths, lengths_other, groups, difficulty)
    if rows is None or len(np.unique(rows.groups)) < FOLDS:
        return None
    if np.all(rows.won == 0.5) and not rows.features[:, 1].any():  # the baseline against itself
        return _result(rows, np.zeros(rows.features.shape[1]), "alpaca-eval", seed=seed)
    features, target, weights, groups_ = _doubled(rows)
    beta, penalty = _chosen(features, target, weights, groups_)
    rates, slopes = [], []
    rng = np.random.default_rng(seed)
    prompts = int(rows.groups.max()) + 1
    for _ in range(replicates):
        times = np.bincount(rng.integers(prompts, size=prompts), minlength=prompts)
        one = _liblinear(features, target, weights * times[groups_], penalty)
        rates.append(_rate(rows, one, times[rows.groups].astype(np.float64)))
        slopes.append(one[1])
    found = {"interval": _percentiles(np.array(rates)), "slope": _percentiles(np.array(slopes))}
    return _result(rows, beta, "alpaca-eval", **found, seed=seed)


def by_length_ratio(
    won: ArrayLike, lengths: ArrayLike, lengths_other: ArrayLike
) -> list[LengthBucket]:
    """Win share by how many times longer an answer is, in half octaves from a quarter to four.

    won (n,) in 0..1, a tie .5. Every pair is looked at from both sides, since which answer stands
    first means nothing here: the curve is symmetric about one half at equal lengths, and its ``n``
    counts pairs. The outermost buckets hold all beyond. Pairs with an empty answer are left out.
    """
    share, own, other = (np.asarray(one, dtype=np.float64) for one in (won, lengths, lengths_other))
    kept = (own > 0) & (other > 0)
    share, steps = share[kept], np.log2(own[kept] / other[kept]) * 2
    # Ties of rounding go outward on both sides, so that the two sides stay mirror images.
    place = np.clip(np.sign(steps) * np.floor(np.abs(steps) + 0.5), -4, 4).astype(np.int64)
    found = []
    for step, ratio in zip(range(-4, 5), RATIOS, strict=True):
        here, mirrored = share[place == step], 1 - share[place == -step]
        wins = np.concatenate([here, mirrored])
        n = len(here) if step == 0 else len(wins)
        mean = float(wins.mean()) if n else None
        interval = wilson(mean * n, n) if mean is not None else None
        low, high = 2.0 ** ((step - 0.5) / 2), 2.0 ** ((step + 0.5) / 2)
        found.append(LengthBucket(ratio, low, high, mean, interval, n))
    return found


def _rows(
    won: ArrayLike,
    lengths: ArrayLike,
    lengths_other: ArrayLike,
    groups: ArrayLike,
    difficulty: ArrayLike | None,
) -> _Rows | None:
    share = np.asarray(won, dtype=np.float64)
    own, other = (np.asarray(one, dtype=np.float64) for one in (lengths, lengths_other))
    names = np.asarray(groups)
    hard = None if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    shapes = {one.shape for one in (share, own, other, names, *([] if hard is None else [hard]))}
    if len(shapes) > 1 or share.ndim != 1:
        raise ValueError(f"the columns must be equal and (n,), not {sorted(shapes)}")
    if share.size and not (share.min() >= 0 and share.max() <= 1):
        raise ValueError("won must be in 0..1")
    if len(share) < FEWEST:
        return None
    delta = own - other
    spread = float(delta.std())
    length = np.tanh(delta / spread) if spread > 0 else np.zeros(len(delta))
    columns = [np.ones(len(share)), length]
    if hard is not None and hard.any():
        columns.append(hard)
    return _Rows(share, np.stack(columns, axis=1), group_codes(names))


def _fit(rows: _Rows) -> Floats:
    """Coefficients at the maximum, by Newton with halved steps."""
    x, width = rows.features, rows.features.shape[1]
    beta = np.zeros(width)

    def loss(at: Floats) -> float:
        score = x @ at
        terms = np.logaddexp(0, score) - rows.won * score
        return float(terms.sum() + RIDGE / 2 * at @ at)

    value = loss(beta)
    for _ in range(STEPS):
        chance = expit(x @ beta)
        gradient = x.T @ (chance - rows.won) + RIDGE * beta
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + RIDGE * np.eye(width)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := loss(beta - size * step)) > value and size > 1e-6:
            size /= 2
        if after > value:
            break
        beta, value = beta - size * step, after
        if np.abs(size * step).max() < TOLERANCE:
            break
    return beta


def _bootstrap(rows: _Rows, beta: Floats, *, replicates: int, seed: int) -> tuple[Floats, Floats]:
    """Rates and length coefficients of resampled prompts, (replicates,) each.

    A replicate is one Newton step with its own gradient and curvature, both sums over prompts, so
    that it costs a product of matrices and no fit.
    """
    x, width = rows.features, rows.features.shape[1]
    chance = expit(x @ beta)
    pull = chance * (1 - chance)
    upper = np.triu_indices(width)
    parts = [x * (chance - rows.won)[:, None], (x[:, upper[0]] * x[:, upper[1]]) * pull[:, None]]
    sums = resampled_sums(
        np.concatenate(parts, axis=1), rows.groups, replicates=replicates, seed=seed
    )
    gradients = sums[:, :width] + RIDGE * beta
    curvatures = np.zeros((len(sums), width, width))
    curvatures[:, upper[0], upper[1]] = curvatures[:, upper[1], upper[0]] = sums[:, width:]
    curvatures += RIDGE * np.eye(width)
    moved = beta - np.linalg.solve(curvatures, gradients[:, :, None])[:, :, 0]
    if width == 2:
        return np.asarray(expit(moved[:, 0])), moved[:, 1]
    # The rate averages over the difficulties there are: they are known, not drawn.
    hard = rows.features[:, 2]
    shares = expit(moved[:, 0][:, None] + moved[:, 2][:, None] * _nodes(hard)[None, :])
    return np.asarray(shares.mean(axis=1)), moved[:, 1]


def _nodes(values: Floats) -> Floats:
    """Up to 200 quantiles that stand for a column."""
    return np.quantile(values, (np.arange(200) + 0.5) / 200) if len(values) > 200 else values


def _rate(rows: _Rows, beta: Floats, weights: Floats | None = None) -> float:
    """Mean prediction with the length term at zero."""
    score = np.full(len(rows.won), beta[0])
    if rows.features.shape[1] > 2:
        score = score + beta[2] * rows.features[:, 2]
    return float(np.average(expit(score), weights=weights))


def _doubled(rows: _Rows) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Features, hard labels, weights and prompts: soft labels and the baseline against itself."""
    x = rows.features
    shorter, longer = np.zeros_like(x), np.zeros_like(x)
    shorter[:, 1], longer[:, 1] = -np.abs(x[:, 1]), np.abs(x[:, 1])
    even = np.full(len(x), 0.5)
    features = np.concatenate([x, shorter, longer])
    share = np.concatenate([rows.won, even, even])
    gamed = np.full(len(x), GAMED_WEIGHT / 2)
    weights = np.concatenate([np.ones(len(x)), gamed, gamed])
    groups = np.tile(rows.groups, 3)
    target = np.repeat([1, 0], len(features)).astype(np.int64)
    doubled = np.concatenate([weights * share, weights * (1 - share)])
    kept = doubled > 0
    both = np.concatenate([features, features])
    return both[kept], target[kept], doubled[kept], np.tile(groups, 2)[kept]


def _chosen(
    features: Floats, target: NDArray[np.int64], weights: Floats, groups: NDArray[np.int64]
) -> tuple[Floats, float]:
    """Coefficients and the inverse penalty that five folds over prompts prefer."""
    from sklearn.linear_model import LogisticRegressionCV  # a second of imports, seldom needed
    from sklearn.model_selection import GroupKFold

    folds = list(GroupKFold(FOLDS).split(features, target, groups))
    model = LogisticRegressionCV(
        cv=folds,
        l1_ratios=(1.0,),
        solver="liblinear",
        scoring="neg_log_loss",
        fit_intercept=False,
        random_state=SEED,
        use_legacy_attributes=False,
    )
    with warnings.catch_warnings():
        # Penalties at the loose end of the grid may need more steps than they are worth.
        warnings.filterwarnings("ignore", message="Liblinear failed to converge")
        model.fit(features, target, sample_weight=weights)
    return np.asarray(model.coef_[0], dtype=np.float64), float(np.asarray(model.C_).ravel()[0])


def _liblinear(
    features: Floats, target: NDArray[np.int64], weights: Floats, penalty: float
) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=penalty, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=SEED
    )
    kept = weights > 0
    model.fit(features[kept], target[kept], sample_weight=weights[kept])
    return np.asarray(model.coef_[0], dtype=np.float64)


def _percentiles(values: Floats) -> Interval | None:
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < len(values):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _result(
    rows: _Rows,
    beta: Floats,
    method: str,
    *,
    interval: Interval | None = None,
    slope: Interval | None = None,
    seed: int,
) -> Controlled:
    raw = estimate_accuracy(rows.won, rows.groups, seed=seed)
    assert raw is not None, "there are rows"
    rate = _rate(rows, beta)
    return Controlled(
        raw=raw,
        controlled=rate,
        interval=interval,
        coefficient=float(beta[1]),
        coefficient_interval=slope,
        difficulty=float(beta[2]) if len(beta) > 2 else None,
        n=len(rows.won),
        groups=int(rows.groups.max()) + 1,
        method=method,
        warning=_warning(raw.accuracy, rate),
    )


def _warning(raw: float, rate: float) -> str:
    """AlpacaEval's alarm: a correction too large to be only that."""
    factor = max(raw, rate) / max(min(raw, rate), 1e-9)
    if abs(raw - rate) <= LARGEST_SHIFT and factor <= LARGEST_RATIO:
        return ""
    return (
        f"Lengths move this win rate from {raw:.1%} to {rate:.1%}: so large a correction says "
        "more of the lengths than of the answers."
    )
