"""Best of n: exact against every subset, and a planted model that is gamed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.best_of_n import curve, pick_weights, win_shares


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.data())
def test_weights_are_those_of_all_subsets(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    expected = np.zeros(len(scores))
    subsets = list(combinations(range(len(scores)), n))
    for subset in subsets:
        best = [at for at in subset if scores[at] == max(scores[i] for i in subset)]
        expected[best] += 1 / len(best) / len(subsets)
    found = pick_weights(scores, n)
    assert found == pytest.approx(expected)
    assert found.sum() == pytest.approx(1)


def test_win_shares_count_a_tie_as_half() -> None:
    assert win_shares([3, 1, 1, 0]).tolist() == pytest.approx([1, 0.5, 0.5, 0])
    assert win_shares([[1, 1], [2, 1]]).tolist() == [[0.5, 0.5], [1, 0]]


def test_more_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match="of 3"):
        pick_weights([1, 2, 3], 4)


def planted(*, tail: float, prompts: int = 150, k: int = 64) -> tuple[np.ndarray, ...]:
    """A model that sees the gold and something heavy-tailed that the gold pays for."""
    rng = np.random.default_rng(0)
    skill = rng.normal(size=(prompts, k))
    trick = np.abs(rng.standard_t(2, size=(prompts, k)))
    proxy = skill + tail * trick
    gold = skill - 0.4 * tail * trick**2
    return proxy.ravel(), gold.ravel(), np.repeat(np.arange(prompts), k)


def test_a_planted_flaw_bends_the_gold_down_while_the_score_rises() -> None:
    found = curve(*planted(tail=0.6))
    assert found is not None
    assert [point.n for point in found.points] == [1, 2, 4, 8, 16, 32, 64]
    first, last = found.points[0], found.points[-1]
    assert first.proxy.value == pytest.approx(0.5)
    assert first.gold.value == pytest.approx(0.5)
    assert last.proxy.value == pytest.approx(1)  # the best of all beats every other
    assert last.oracle.value == pytest.approx(1)
    assert last.kl == pytest.approx(np.log(64) - 63 / 64)
    assert found.is_gamed
    assert 1 < found.peak < 64
    assert last.gold.value < max(point.gold.value for point in found.points) - 0.1
    assert all(point.gold.value <= point.oracle.value + 1e-12 for point in found.points)


def test_an_honest_model_is_not_called_gamed() -> None:
    found = curve(*planted(tail=0.0))
    assert found is not None
    assert not found.is_gamed
    assert found.peak == 64
    assert (found.drop.value, found.drop.interval) == (0.0, None)


def test_prompts_with_too_few_candidates_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(1)
    sizes = [6] * 12 + [3] * 8 + [1] * 5
    prompts = np.repeat(np.arange(25), sizes)
    proxy, gold = rng.normal(size=len(prompts)), rng.normal(size=len(prompts))
    found = curve(proxy, gold, prompts)
    assert found is not None
    assert ([one.n for one in found.points], found.prompts, found.left_out) == ([1, 2, 4, 6], 12, 8)
    gold[prompts < 12] = np.nan
    assert curve(proxy, gold, prompts) is None  # eight prompts are left
    assert curve([], [], []) is None
