"""How alike short texts are: the cosine of embeddings, or of character n-grams where there are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

NGRAMS: Final = (2, 4)
BUCKETS: Final = 2**14
WORD: Final = re.compile(r"\w+")
NEGATIONS: Final = frozenset(["no", "not", "never", "none", "without", "cannot", "nor"])
# What hardly any principle does without: it makes those alike that have nothing in common.
COMMON: Final = frozenset(
    ["says", "said", "uses", "use", "used", "gives", "puts", "makes", "does", "answer", "response"]
)
MAX_LEADERS: Final = 2_000  # kinds that texts are put into; a text like none of so many is alone

# Texts -> vectors (n, d), one each. Rows of zeros are like nothing, not like everything.
Embed = Callable[[Sequence[str]], ArrayLike]


class Likeness:
    """Cosines between texts that are known beforehand. ``threshold``: from where two are one."""

    def __init__(self, texts: Sequence[str], *, embed: Embed | None, threshold: float) -> None:
        known = list(dict.fromkeys(texts))
        self._at = {text: at for at, text in enumerate(known)}
        self._rows = _unit(embed(known), len(known)) if embed and known else _ngrams(known)
        self.threshold = threshold

    def alike(self, text: str, others: Sequence[str]) -> bool:
        """Whether any of the others is the same but for its words."""
        if text in others:
            return True
        if not others:
            return False
        return bool(
            self._cosines(text, [self._at[other] for other in others]).max() >= self.threshold
        )

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """For each text the first one that it is like: itself where there is none before it.

        Give the most frequent first: they name the kinds.
        """
        leaders: list[str] = []
        found: dict[str, str] = {}
        for text in texts:
            if text in found:
                continue
            found[text] = text
            if leaders:
                cosines = self._cosines(text, [self._at[leader] for leader in leaders])
                best = int(cosines.argmax())
                if cosines[best] >= self.threshold:
                    found[text] = leaders[best]
                    continue
            if len(leaders) < MAX_LEADERS:
                leaders.append(text)
        return [found[text] for text in texts]

    def _cosines(self, text: str, places: Sequence[int]) -> Any:
        products = self._rows[places] @ self._rows[self._at[text]].T
        return np.asarray(products.todense() if hasattr(products, "todense") else products).ravel()


def _ngrams(texts: Sequence[str]) -> Any:
    """Counts of character n-grams within the words that carry meaning, of length 1, sparse."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, HashingVectorizer

    empty = (ENGLISH_STOP_WORDS | COMMON) - NEGATIONS

    def content(text: str) -> str:
        words = WORD.findall(text.casefold())
        return " ".join([word for word in words if word not in empty] or words)

    hashing = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=NGRAMS,
        n_features=BUCKETS,
        alternate_sign=False,
        preprocessor=content,
    )
    return hashing.transform(texts or [""])


def _unit(vectors: ArrayLike, n: int) -> Any:
    """Rows of length 1 or 0. Raises ValueError for a wrong shape or what is not finite."""
    given = np.asarray(vectors, dtype=np.float64)
    if given.ndim != 2 or len(given) != n or not np.isfinite(given).all():
        raise ValueError(f"embeddings {given.shape} must be finite, ({n}, dimensions)")
    length = np.linalg.norm(given, axis=1, keepdims=True)
    return np.divide(given, length, out=np.zeros_like(given), where=length > 1e-12)
