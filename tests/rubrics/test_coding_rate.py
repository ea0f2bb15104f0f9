"""Greedy selection by coding rate: planted themes, the formula, hostile input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rubrics.coding_rate import Floats, coding_rate, embed_texts, reduced, select

THEMES = {
    "sources": (
        "Cites a source for each claim",
        "Names the source of each claim",
        "Gives a source for every claim it makes",
    ),
    "manner": ("Is written politely", "Uses a polite tone", "Keeps a polite, friendly tone"),
    "language": (
        "Answers in the language of the prompt",
        "Is in the same language as the prompt",
        "Uses the prompt's language",
    ),
    "steps": ("Has a list of steps", "Gives the steps as a list", "Lists the steps in order"),
    "code": ("Contains working code", "The code works", "The code runs without error"),
}


def themes(seed: int, *, noise: float = 0.2) -> Floats:
    """Five directions in 64 dimensions, 20 points about each: (100, 64)."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(5, 64))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return np.repeat(centers, 20, axis=0) + noise * rng.normal(size=(100, 64)) / 8


def covered(indices: object) -> int:
    return len({int(at) // 20 for at in np.asarray(indices)[:5]})


def test_first_five_picks_cover_five_themes_where_random_ones_cover_three() -> None:
    greedy, random = [], []
    for seed in range(20):
        points = themes(seed)
        found = select(points, limit=12, least_novelty=0)
        greedy.append(covered(found.picked))
        gains = [step.gain for step in found.steps]
        assert gains == sorted(gains, reverse=True), "gains fall"
        assert gains[5] < 0.7 * gains[4], "the sixth repeats a theme"
        random.append(covered(np.random.default_rng(seed).permutation(100)))
    assert set(greedy) == {5}
    assert 3.0 < np.mean(random) < 3.8


def test_gains_of_unlike_themes_are_those_of_the_formula() -> None:
    gains = [step.gain for step in select(themes(0), limit=5).steps]
    assert gains == pytest.approx([4.4, 3.7, 3.4, 3.3, 3.1], abs=0.1)


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_it_stops_where_nothing_is_new(noise: float) -> None:
    found = select(themes(1, noise=noise), limit=50)
    assert len(found.steps) == covered(found.picked) == 5
    assert found.stopped == "novelty"
    assert min(step.novelty for step in found.steps) > 0.9
    assert select(themes(1), limit=3).stopped == "limit"


def test_each_pick_is_the_best_and_its_rate_is_that_of_the_formula() -> None:
    points = np.random.default_rng(2).normal(size=(12, 6))
    unit, places = reduced(points)
    found = select(points, limit=8, least_novelty=0)
    assert found.picked == tuple(places[list(found.picked)])
    for at, step in enumerate(found.steps):
        before = list(found.picked[:at])
        rates = {one: coding_rate(unit[[*before, one]]) for one in range(12) if one not in before}
        assert step.rate == pytest.approx(rates[step.index])
        assert step.rate == pytest.approx(max(rates.values()))
        assert step.gain == pytest.approx(step.rate - coding_rate(unit[before]))


def test_rate_by_hand() -> None:
    """Two orthogonal unit points in two dimensions: log(1 + 2 / (2 * .01)) = log 101."""
    assert coding_rate(np.eye(2)) == pytest.approx(np.log(101))
    assert coding_rate([[1.0, 0, 0]]) == pytest.approx(0.5 * np.log(301))
    assert coding_rate(np.zeros((0, 3))) == 0


def test_points_without_direction_are_left_out_and_told() -> None:
    """A failed embedding is a vector of zeros: it must not pass for something new."""
    points = themes(3)
    points[[4, 50]] = 0
    found = select(points, limit=100, least_novelty=0)
    assert found.zero == (4, 50)
    assert not {4, 50} & set(found.picked)
    assert len(found.picked) == 98
    nothing = select(np.zeros((3, 4)), limit=2)
    assert nothing.picked == ()
    assert nothing.zero == (0, 1, 2)


def test_copies_bring_nothing() -> None:
    found = select(np.repeat(np.eye(3), 5, axis=0), limit=10)
    assert found.picked == (0, 5, 10)
    assert select([[1.0, 2.0]], limit=4).picked == (0,)


def test_length_and_rotation_of_the_points_do_not_matter() -> None:
    points = themes(4)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    lengths = np.logspace(-3, 3, 100)[:, None]
    one, two = select(points, limit=8), select(points * lengths @ rotation, limit=8)
    assert one.picked == two.picked


def test_texts_are_told_apart_offline() -> None:
    texts = [text for theme in THEMES.values() for text in theme]
    found = select(embed_texts(texts), limit=5)
    assert len({at // 3 for at in found.picked}) == 5
    vectors = embed_texts([*texts, texts[0], "", "?!"])
    assert vectors[15] == pytest.approx(vectors[0], abs=1e-6)
    assert not vectors[16:].any(), "no word, no direction"
    assert np.array_equal(embed_texts(texts), embed_texts(texts))
    assert embed_texts([]).shape[0] == 0


@given(
    points=st.tuples(st.integers(0, 8), st.integers(1, 5)).flatmap(
        lambda shape: arrays(
            np.float64,
            shape,
            elements=st.one_of(
                st.sampled_from([0.0, 1.0, 1e-300, 1e150, -1e150]), st.floats(-10, 10)
            ),
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_any_points_give_an_order(points: Floats) -> None:
    found = select(points, limit=8, least_novelty=0)
    assert len(found.picked) == len(set(found.picked)) == len(points) - len(found.zero)
    assert all(0 <= step.novelty <= 1 + 1e-9 for step in found.steps)
    json.dumps(found.as_dict(), allow_nan=False)


@given(texts=st.lists(st.text(max_size=12), max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_texts_give_vectors(texts: list[str]) -> None:
    found = embed_texts(texts)
    assert len(found) == len(texts)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"eps": 0.0}, {"patience": 0}, {"least_novelty": 1.5}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limit and patience"):
        select(np.eye(3), **({"limit": 2} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [[[1.0, np.nan]], [[np.inf, 1.0]], [1.0, 2.0]])
def test_points_that_cannot_be_read_are_refused(points: object) -> None:
    with pytest.raises(ValueError, match="finite"):
        select(points, limit=2)  # type: ignore[arg-type]
