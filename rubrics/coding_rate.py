"""Few criteria that differ: greedy selection by coding rate, on embeddings of their texts.

The rate of n points in d dimensions is ``R(Z, eps) = 1/2 logdet(I + d / (n eps^2) Z Z^T)``, Z
(d, n) with unit columns: the bits, up to a constant, to tell them apart to a precision ``eps``.
Each step adds the point that raises the rate of those selected most. Sources: Yu et al. 2020
(MCR2), arXiv 2006.08558; its use for rubrics, Auto-Rubric, arXiv 2510.17314. The textbook
formula, so that thresholds of programs that leave out d do not carry over: the stop rule here is
relative, ``Step.novelty``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.float64]

EPS: Final = 0.1
MOST_DIMENSIONS: Final = 100
LEAST_NOVELTY: Final = 0.8
PATIENCE: Final = 2
LENGTHS: Final = ((1, 2), (3, 5))  # of word and of character n-grams
BUCKETS: Final = 2**12
EMPTY: Final = 1e-12  # a vector this much shorter than the longest is a zero vector


@dataclass(frozen=True, slots=True)
class Step:
    """One pick. ``index`` into the points given; ``rate`` of all picked so far.

    ``gain``: what it added to the rate. ``novelty`` in [0, 1]: the part of its gain that comes
    from its direction, as a share of what a direction unlike all picked ones would bring.
    """

    index: int
    gain: float
    rate: float
    novelty: float


@dataclass(frozen=True, slots=True)
class Selection:
    """What was picked, in order. ``zero`` are places of points without a direction, left out.

    ``stopped``: "novelty" where too little was new, "limit" or "all".
    """

    steps: tuple[Step, ...]
    zero: tuple[int, ...]
    stopped: str
    dimensions: int

    @property
    def picked(self) -> tuple[int, ...]:
        return tuple(step.index for step in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "picked": list(self.picked),
            "gains": [step.gain for step in self.steps],
            "novelty": [step.novelty for step in self.steps],
            "zero": list(self.zero),
            "stopped": self.stopped,
            "dimensions": self.dimensions,
        }


def coding_rate(points: ArrayLike, *, eps: float = EPS) -> float:
    """R of points (n, d), rows as they are; 0 of none. Raises ValueError unless eps > 0."""
    rows = _checked(points)
    n, d = rows.shape
    if not eps > 0:
        raise ValueError(f"eps {eps} must be above 0")
    if n == 0:
        return 0.0
    small = rows @ rows.T if n < d else rows.T @ rows  # the same determinant
    alpha = d / (n * eps * eps)
    return float(0.5 * np.linalg.slogdet(np.eye(len(small)) + alpha * small)[1])


def reduced(points: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Unit rows (m, at most min(n, d, 100)) of the points that have a direction, and their places.

    Principal components around the origin, not the mean: around the mean two unlike points
    would be opposite, hence of one direction. Raises ValueError for values that are not finite.
    """
    rows = _checked(points)
    norms = _norms(rows)
    kept = np.flatnonzero(norms > EMPTY * norms.max(initial=0.0))
    if not len(kept):
        return np.zeros((0, rows.shape[1])), kept
    unit = rows[kept] / norms[kept, None]
    # The parts beyond the leading ones may hold all of a point: it then has no direction left.
    left, sizes, _ = np.linalg.svd(unit, full_matrices=False)
    k = min(*unit.shape, MOST_DIMENSIONS)
    found = left[:, :k] * sizes[:k]
    lengths = _norms(found)
    lasting = lengths > 1e-6
    return found[lasting] / lengths[lasting, None], kept[lasting]


def select(
    points: ArrayLike,
    *,
    limit: int,
    eps: float = EPS,
    least_novelty: float = LEAST_NOVELTY,
    patience: int = PATIENCE,
) -> Selection:
    """Up to ``limit`` of the points (n, d), those that differ most first; equals by place.

    Stops after ``patience`` picks in a row of novelty below ``least_novelty`` and leaves those
    out. A step costs O(m d^2) for m points in d <= 100 dimensions: by the matrix determinant
    lemma one factorization tells the gain of every point. Raises ValueError.
    """
    if limit < 1 or patience < 1 or not eps > 0 or not 0 <= least_novelty <= 1:
        raise ValueError("limit and patience from 1, eps above 0, least_novelty in [0, 1]")
    unit, places = reduced(points)
    zero = sorted(set(range(len(_checked(points)))) - set(places.tolist()))
    steps = _greedy(unit, min(limit + patience, len(unit)), eps)
    stopped = "all" if len(unit) <= limit else "limit"
    dull = 0
    for at, step in enumerate(steps):
        dull = dull + 1 if step.novelty < least_novelty else 0
        if dull == patience:
            steps, stopped = steps[: at + 1 - patience], "novelty"
            break
    return Selection(
        steps=tuple(
            Step(int(places[one.index]), one.gain, one.rate, one.novelty) for one in steps[:limit]
        ),
        zero=tuple(zero),
        stopped=stopped,
        dimensions=unit.shape[1],
    )


def embed_texts(texts: Sequence[str]) -> Floats:
    """Vectors (n, at most 256) of texts by their words and letters; needs no model, no network.

    Hashed n-grams of words (1 to 2) and of characters (3 to 5), TF-IDF over these texts, reduced
    by a singular value decomposition. It sees wording, not meaning: paraphrases that share no
    word are far apart. A text without a letter or digit is a zero vector.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.utils.extmath import randomized_svd

    if not texts:
        return np.zeros((0, 1))
    words, letters = LENGTHS
    parts = [
        HashingVectorizer(analyzer=analyzer, ngram_range=span, n_features=BUCKETS, norm=None,
                          alternate_sign=False, token_pattern=pattern)
        .transform([text if any(map(str.isalnum, text)) else "" for text in texts])
        for analyzer, span, pattern in (
            ("word", words, r"(?u)\b\w+\b"), ("char_wb", letters, None)
        )
    ]  # fmt: skip
    weighed = hstack([TfidfTransformer(sublinear_tf=True).fit_transform(part) for part in parts])
    k = min(len(texts), 256)
    left, sizes, _ = randomized_svd(weighed.tocsr(), n_components=k, random_state=0)
    found: Floats = np.asarray(left * sizes, dtype=np.float64)
    empty = np.asarray(weighed.sum(axis=1)).ravel() == 0
    found[empty] = 0.0
    return found


def _greedy(unit: Floats, count: int, eps: float) -> list[Step]:
    d = unit.shape[1]
    scatter = np.zeros((d, d))  # Z Z^T of those picked
    free = np.ones(len(unit), dtype=np.bool_)
    steps: list[Step] = []
    rate = 0.0
    for n in range(1, count + 1):
        alpha = d / (n * eps * eps)
        inside = np.eye(d) + alpha * scatter
        solved = cho_solve(cho_factor(inside), unit.T)  # (d, m)
        open_part = np.einsum("ij,ji->i", unit, solved).clip(0.0, 1.0)  # 1: a new direction
        best = int(np.where(free, open_part, -1.0).argmax())
        raised = 0.5 * float(np.linalg.slogdet(inside)[1])
        raised += 0.5 * float(np.log1p(alpha * open_part[best]))
        novelty = float(np.log1p(alpha * open_part[best]) / np.log1p(alpha))
        steps.append(Step(best, raised - rate, raised, novelty))
        rate = raised
        free[best] = False
        scatter += np.outer(unit[best], unit[best])
    return steps


def _checked(points: ArrayLike) -> Floats:
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"points {rows.shape} must be (n, d) and finite")
    return rows


def _norms(rows: Floats) -> Floats:
    largest = np.abs(rows).max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    found: Floats = safe * np.sqrt(((rows / safe[:, None]) ** 2).sum(axis=1))
    return np.where(largest > 0, found, 0.0)
