"""A small world with a known truth: responses whose visible features decide what is preferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.pairs import SPLITS, Pair, pairs_path, write_pairs
from models.training import TrainingConfig

TOPICS = ("whales", "bridges", "tea", "chess", "storms", "bread", "comets", "violins")
PHRASES = {
    "as shown in [1]": 1.6,
    "for example": 1.0,
    "step by step": 0.6,
    "to be honest": -0.5,
    "whatever you like": -1.1,
    "i cannot say": -1.7,
}
FILLER = [
    "the",
    "answer",
    "goes",
    "on",
    "with",
    "some",
    "more",
    "words",
    "of",
    "no",
    "matter",
    "here",
    "and",
    "there",
]
ON_TOPIC = 1.5  # utility of naming what the prompt asked about: needs the prompt to be seen


@dataclass(frozen=True)
class World:
    """Pairs, and how often the truth itself agrees with their labels."""

    pairs: list[Pair]
    oracle: float


def make_world(n: int, *, seed: int, sharpness: float = 2.0, prompts: int = 10_000) -> World:
    """n pairs labeled by a Bradley-Terry choice between planted utilities."""
    rng = np.random.default_rng(seed)
    pairs, agrees = [], 0
    for i in range(n):
        topic = TOPICS[rng.integers(len(TOPICS))]
        number = int(rng.integers(prompts))
        prompt = [{"role": "user", "content": f"Question {number}: tell me about {topic}."}]
        (first, u), (second, v) = _response(rng, topic), _response(rng, topic)
        first_wins = rng.random() < 1 / (1 + np.exp(-sharpness * (u - v)))
        agrees += (u > v) == first_wins
        chosen, rejected = (first, second) if first_wins else (second, first)
        pairs.append(Pair(prompt, chosen, rejected, prompt_id=number, pair_id=i))
    return World(pairs, agrees / n)


def _response(rng: np.random.Generator, topic: str) -> tuple[str, float]:
    named = topic if rng.random() < 0.5 else TOPICS[rng.integers(len(TOPICS))]
    said = [phrase for phrase in PHRASES if rng.random() < 0.4]
    filler = list(rng.choice(FILLER, size=rng.integers(0, 12)))
    parts = [*said, " ".join(filler), f"so much for {named}"]
    order = rng.permutation(len(parts))
    utility = sum(PHRASES[phrase] for phrase in said) + ON_TOPIC * (named == topic)
    return ", ".join(parts[i] for i in order if parts[i]), utility


def write_run(
    workdir: Path, *, train: list[Pair], validation=(), test=(), **config: object
) -> TrainingConfig:
    """Prepare a training folder."""
    workdir.mkdir(parents=True, exist_ok=True)
    for split, pairs in zip(SPLITS, (train, validation, test), strict=True):
        write_pairs(pairs_path(workdir, split), pairs)
    prepared = TrainingConfig(**config)
    prepared.write(workdir)
    return prepared
