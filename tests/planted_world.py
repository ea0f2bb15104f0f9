"""The planted world of METHODS 0.1: pairs of answers whose surface decides which is better.

An answer's features stand in its text, where a simulated judge finds them by pattern; its
utility is their weighted sum, scaled so that differences within pairs spread by one. Choices
follow the utilities with noise, position bias and length bias. Everything is drawn from ``seed``.

Utilities: ``u = phi @ w[group]``, and between two answers also ``phi_i' S phi_j`` with S
antisymmetric where ``skew`` is not 0: preferences that run in circles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rubrics.simulated import features
from rubrics.simulated.features import LENGTH

Array = NDArray[np.float64]

# How a text comes to have a feature, and no other.
PHRASES: Final = {
    "heading": "# In short",
    "flattery": "What a wonderful question.",
    "citation": "It stands at https://example.org/source to read.",
    "code": "Try `run it` once.",
    "bold": "**Mind this.**",
    "example": "For example, think of tea.",
    "steps": "Go step by step.",
    "polite": "Thank you for asking.",
    "hedge": "Perhaps it is so.",
    "refusal": "I can't go further.",
    "exclamation": "Well!",
    "list": "- one point\n- one point more",
}
CRITERIA: Final = {
    "heading": "Has a heading",
    "flattery": "Flatters the user",
    "citation": "Cites a source",
    "code": "Shows code",
    "bold": "Puts what matters in bold",
    "example": "Gives an example",
    "steps": "Goes through the steps",
    "polite": "Is polite",
    "hedge": "Hedges",
    "refusal": "Refuses to answer",
    "exclamation": "Uses exclamation marks",
    "list": "Uses a list",
    LENGTH: "Is exhaustive",
}
NAMES: Final = (*PHRASES, LENGTH)
WEIGHTS: Final = {
    "citation": 1.0,
    "example": 0.9,
    "steps": 0.8,
    "list": 0.7,
    "polite": 0.6,
    "code": 0.6,
    "bold": 0.4,
    "heading": 0.3,
    "hedge": -0.7,
    "flattery": -0.6,
    "exclamation": -0.5,
    "refusal": -1.0,
    LENGTH: 0.3,
}
TOPICS: Final = ("whales", "bridges", "tea", "chess", "storms", "bread", "comets", "violins")
WORDS: Final = (
    "the",
    "matter",
    "goes",
    "on",
    "with",
    "some",
    "more",
    "words",
    "of",
    "no",
    "weight",
)
HAVE: Final = 0.4  # probability of each feature


@dataclass(frozen=True)
class PlantedAnswer:
    """``phi``: shape (features,), in the order of NAMES."""

    text: str
    phi: Array
    utility: float


@dataclass(frozen=True)
class PlantedPair:
    """``difference`` is how much better the first is; ``group`` whose taste it is judged by."""

    prompt: str
    group: int
    first: PlantedAnswer
    second: PlantedAnswer
    difference: float


@dataclass(frozen=True)
class PlantedWorld:
    """``weights``: shape (groups, features), after scaling."""

    pairs: tuple[PlantedPair, ...]
    weights: Array

    @property
    def differences(self) -> Array:
        """Shape (pairs,)."""
        return np.array([pair.difference for pair in self.pairs])

    @property
    def longer(self) -> Array:
        """Shape (pairs,): +1 where the first is longer, -1 where the second is, 0 for equal."""
        return np.sign([len(pair.first.text) - len(pair.second.text) for pair in self.pairs])

    @property
    def known(self) -> dict[str, float]:
        """Text to utility, as a simulated server takes it."""
        both = (answer for pair in self.pairs for answer in (pair.first, pair.second))
        return {answer.text: answer.utility for answer in both}


def planted_world(
    pairs: int,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    groups: int = 1,
    skew: float = 0.0,
) -> PlantedWorld:
    """Pairs that differ in text and prompt. ``weights`` leave out what does not count.

    Every group after the first has the first's weights in another order.
    """
    rng = np.random.default_rng(seed)
    table = WEIGHTS if weights is None else weights
    base = np.array([table.get(name, 0.0) for name in NAMES])
    w = np.stack([base, *(rng.permutation(base) for _ in range(groups - 1))])
    loop = rng.normal(size=(len(NAMES), len(NAMES)))
    loop = skew * (loop - loop.T) / 2
    drawn = []
    for number in range(pairs):
        topic = TOPICS[rng.integers(len(TOPICS))]
        group = int(rng.integers(groups))
        texts = [_render(rng, topic, f"{number}{side}") for side in "ab"]
        drawn.append((f"Group {group}, question {number}: what of {topic}?", group, texts))
    phi = np.array([[phi_of(text) for text in texts] for _, _, texts in drawn])
    group_of = np.array([group for _, group, _ in drawn])
    u = np.einsum("nsd,nd->ns", phi, w[group_of])
    gap = u[:, 0] - u[:, 1] + np.einsum("nd,de,ne->n", phi[:, 0], loop, phi[:, 1])
    scale = float(np.sqrt(np.mean(gap**2)))
    made = [
        PlantedPair(
            prompt=prompt,
            group=group,
            first=PlantedAnswer(texts[0], phi[n, 0], float(u[n, 0] / scale)),
            second=PlantedAnswer(texts[1], phi[n, 1], float(u[n, 1] / scale)),
            difference=float(gap[n] / scale),
        )
        for n, (prompt, group, texts) in enumerate(drawn)
    ]
    return PlantedWorld(tuple(made), w / scale)


def phi_of(text: str) -> Array:
    """The features of a text as a simulated judge sees them, in the order of NAMES."""
    found = features.features_of(text)
    return np.array([found[name] for name in NAMES])


def _render(rng: np.random.Generator, topic: str, mark: str) -> str:
    """A text of its own: ``mark`` is in it."""
    has = [name for name in PHRASES if rng.random() < HAVE]
    words = " ".join(rng.choice(WORDS, size=int(rng.lognormal(3.4, 0.7)) + 1))
    opening = [PHRASES[name] for name in has if name == "heading"]
    middle = [PHRASES[name] for name in has if name not in ("heading", "list")]
    closing = [PHRASES[name] for name in has if name == "list"]
    said = " ".join([f"Of {topic}, case {mark}: {words}.", *rng.permutation(middle)])
    return "\n".join([*opening, said, *closing])


def choose(
    shown: Array,
    *,
    rng: np.random.Generator,
    noise: float = 0.7,
    link: Literal["gaussian", "logistic"] = "gaussian",
    position_bias: float = 0.0,
    length_bias: float = 0.0,
    longer: Array | None = None,
    flip: float = 0.0,
) -> Array:
    """+1 where what is shown first is chosen, else -1; shape of ``shown``.

    ``shown``: how much better the one shown first is; ``longer`` likewise +1, -1 or 0. A spammer
    has ``flip`` .5, an adversary .9.
    """
    draw = rng.normal if link == "gaussian" else rng.logistic
    latent = shown + position_bias + noise * draw(size=shown.shape)
    chosen = np.where(latent > 0, 1.0, -1.0)
    if longer is not None:
        unread = (rng.random(shown.shape) < length_bias) & (longer != 0)
        chosen = np.where(unread, longer, chosen)
    return np.where(rng.random(shown.shape) < flip, -chosen, chosen)


@dataclass(frozen=True)
class OrderFigures:
    """METHODS 2.1's columns. A choice is +1 for what is shown first, for each of two orders."""

    accuracy: float  # of single orders
    first_share: float
    consistency: float
    accuracy_consistent: float
    accuracy_forward: float  # where the better one is shown first
    accuracy_reversed: float


def order_figures(differences: Array, forward: Array, backward: Array) -> OrderFigures:
    """Figures of choices on pairs shown as they are (``forward``) and swapped (``backward``)."""
    truth = np.sign(differences)
    right = np.stack([forward == truth, -backward == truth])
    better_first = np.stack([truth > 0, truth < 0])
    agree = forward == -backward
    return OrderFigures(
        accuracy=float(right.mean()),
        first_share=float(np.mean([forward > 0, backward > 0])),
        consistency=float(agree.mean()),
        accuracy_consistent=float(right[0][agree].mean()),
        accuracy_forward=float(right[better_first].mean()),
        accuracy_reversed=float(right[~better_first].mean()),
    )
