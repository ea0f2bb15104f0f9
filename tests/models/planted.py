"""A small world with a known truth: responses whose visible features decide what is preferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.pairs import (
    SPLITS,
    Pair,
    Ranked,
    lists_path,
    pairs_path,
    parse_ranked,
    write_pairs,
)
from models.training import TrainingConfig
from models.workdir import ATTRIBUTES as ATTRIBUTES_FILE
from models.workdir import write_json

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


LEVELS = ("i cannot say", "for example", "as shown in [1]")  # worst to best
ATTRIBUTES = ("quality", "length")


def make_graded(n: int, *, seed: int, flips: float = 0.1) -> World:
    """n pairs of answers of unlike levels with strengths and ratings, some votes and ratings wrong.

    A reader of one phrase can be as good as the oracle, so a tiny model has no excuse.
    """
    rng = np.random.default_rng(seed)
    pairs, agrees = [], 0
    for i in range(n):
        levels = rng.choice(len(LEVELS), size=2, replace=False)
        better, worse = (_graded(rng, level) for level in sorted(levels, reverse=True))
        is_right = rng.random() >= flips
        agrees += is_right
        (chosen, one), (rejected, other) = (better, worse) if is_right else (worse, better)
        strength = int(abs(levels[0] - levels[1])) if is_right else 1
        ratings = {"chosen_ratings": one, "rejected_ratings": other if i % 5 else None}
        pairs.append(Pair(PROMPT, chosen, rejected, 1.0, 1.0, strength, i, i, **ratings))
    return World(pairs, agrees / n)


def make_rankings(n: int, *, seed: int, flips: float = 0.1) -> list[Ranked]:
    """n rankings of four answers, two of which may be alike and tied, some with two exchanged."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        levels = rng.integers(len(LEVELS), size=4)
        answers = [_graded(rng, level)[0] for level in levels]
        ranks = [int(1 + len(LEVELS) - level) for level in levels]
        if rng.random() < flips:
            ranks[0], ranks[1] = ranks[1], ranks[0]
        found.append(parse_ranked({"prompt": PROMPT, "answers": answers, "ranks": ranks}))
    return found


PROMPT = [{"role": "user", "content": "Question 0: tell me about tea."}]


def _graded(rng: np.random.Generator, level: int) -> tuple[str, dict[str, float]]:
    """An answer of a level, and ratings of it: 0 to 4, and its words on a scale of their own."""
    words = [LEVELS[level], *rng.choice(FILLER, size=rng.integers(0, 6))]
    rating = float(np.clip(level + rng.integers(-1, 2) * (rng.random() < 0.3), 0, 4))
    return " ".join(words[i] for i in rng.permutation(len(words))), {
        "quality": rating,
        "length": 100.0 * len(words),
    }


def write_run(
    workdir: Path,
    *,
    train: list[Pair],
    validation=(),
    test=(),
    rankings=(),
    attributes=(),
    **config: object,
) -> TrainingConfig:
    """Prepare a training folder."""
    workdir.mkdir(parents=True, exist_ok=True)
    for split, pairs in zip(SPLITS, (train, validation, test), strict=True):
        write_pairs(pairs_path(workdir, split), pairs)
    if rankings:
        write_pairs(lists_path(workdir, "train"), rankings)
    if attributes:
        write_json(workdir / ATTRIBUTES_FILE, list(attributes))
    prepared = TrainingConfig(**config)
    prepared.write(workdir)
    return prepared
