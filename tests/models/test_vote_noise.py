"""Agreement and noise from counts of votes: equal to the long way, and true to what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import vote_noise
from models.agreement import Ratings, measure
from models.vote_noise import (
    Estimate,
    disagreement,
    flip_rate,
    row_noise,
    vote_agreement,
)

PAIRS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans()),
    min_size=1,
    max_size=40,
)


def split_up(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, kinds = np.unique(rows, axis=0, return_inverse=True)
    return counts, kinds.reshape(-1)


def as_ratings(rows: np.ndarray) -> Ratings:
    """One row per vote: who said what does not matter, only that they are different people."""
    units, raters, values = [], [], []
    for unit, counts in enumerate(rows.tolist()):
        said = [value for value, count in enumerate(counts) for _ in range(count)]
        for rater, value in enumerate(said):
            units.append(unit)
            raters.append(rater)
            values.append(float(value))
    whole = (np.array(column, dtype=np.int64) for column in (units, raters))
    return Ratings(*whole, np.array(values))


@given(PAIRS)
def test_read_in_blocks_the_figures_are_the_same(pairs: list[tuple[int, int, int, bool]]) -> None:
    counts, kinds = split_up(np.array([pair[:3] for pair in pairs]))
    groups = np.cumsum([pair[3] for pair in pairs])

    def figures() -> tuple[object, ...]:
        return vote_agreement(counts, kinds, groups), disagreement(counts, kinds, groups)

    whole = figures()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vote_noise, "PAIRS_AT_ONCE", 3)
        assert figures() == whole


@given(PAIRS)
def test_figures_from_counts_are_those_of_single_votes(
    pairs: list[tuple[int, int, int, bool]],
) -> None:
    rows = np.array([pair[:3] for pair in pairs])
    groups = np.cumsum([pair[3] for pair in pairs])
    found = vote_agreement(*split_up(rows), groups)
    ratings = as_ratings(rows)
    for statistic, mine in (("alpha", found.alpha), ("percent", found.percent)):
        other = measure(ratings, statistic=statistic, replicates=1)
        assert mine.value == pytest.approx(other.value, abs=1e-9)
        if mine.interval is not None:
            assert mine.interval[0] <= mine.value + 1e-9
            assert mine.value <= mine.interval[1] + 1e-9
    assert found.pairs == int((rows.sum(axis=1) > 1).sum())
    assert found.single == int((rows.sum(axis=1) == 1).sum())
    assert found.votes == int(rows.sum())
    assert (found.alpha.value is None) == bool(found.reason)


def test_a_table_with_gaps_gives_the_alpha_of_its_counts() -> None:
    nan = np.nan
    table = np.array(
        [
            [nan, nan, nan, nan, nan, 2, 0, 1, 0, 0, 2, 2, nan, 2, nan],
            [0, nan, 1, 0, 2, 2, 1, 2, 2, nan, nan, nan, nan, nan, nan],
            [nan, nan, 1, 0, 2, 2, 1, nan, 2, 0, 2, 2, nan, 2, 1],
        ]
    )
    rows = np.array([[(unit == value).sum() for value in (0, 1, 2)] for unit in table.T])
    found = vote_agreement(*split_up(rows), np.arange(len(rows)))
    assert found.alpha.value == pytest.approx(measure(table, replicates=1).value)


def test_pairs_of_one_prompt_that_say_the_same_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    said = np.where(rng.random(60) < 0.7, 2, 1)
    rows = np.repeat(np.stack([said, 0 * said, 2 - said], axis=1), 10, axis=0)
    alone = vote_agreement(*split_up(rows), np.arange(600)).percent.interval
    together = vote_agreement(*split_up(rows), np.repeat(np.arange(60), 10)).percent.interval
    assert alone is not None
    assert together is not None
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


@pytest.mark.parametrize("error", [0.05, 0.2, 0.35])
def test_planted_noise_of_votes_and_rows_is_found(error: float) -> None:
    rng = np.random.default_rng(8)
    truth = rng.random(4_000) < 0.5
    votes = rng.binomial(3, np.where(truth, 1 - error, error))  # for a
    rows = np.stack([votes, np.zeros_like(votes), 3 - votes], axis=1)
    groups = np.arange(len(rows)) // 2
    found, pairs = disagreement(*split_up(rows), groups)
    assert pairs == 4_000
    per_vote = flip_rate(found)
    assert per_vote.interval is not None
    assert per_vote.interval[0] < error < per_vote.interval[1]
    is_a = votes > 1
    wrong = float((is_a != truth).mean())
    leads = np.where(is_a, 2 * votes - 3, 3 - 2 * votes)
    noise = row_noise(per_vote, dict(zip(*np.unique(leads, return_counts=True), strict=True)))
    assert noise.interval is not None
    assert noise.value == pytest.approx(wrong, abs=0.02)
    assert noise.interval[0] - 0.01 < wrong < noise.interval[1] + 0.01


def test_a_recipe_that_keeps_the_agreed_ones_does_not_hide_the_noise_of_votes() -> None:
    rng = np.random.default_rng(2)
    votes = rng.binomial(3, 0.7, size=3_000)
    rows = np.stack([votes, 0 * votes, 3 - votes], axis=1)
    agreed = rows[(votes == 3) | (votes == 0)]
    whole, _ = disagreement(*split_up(rows), np.arange(len(rows)))
    kept, _ = disagreement(*split_up(agreed), np.arange(len(agreed)))
    assert flip_rate(kept).value == 0
    assert flip_rate(whole).value == pytest.approx(0.3, abs=0.03)
    unanimous = row_noise(flip_rate(whole), {3: len(agreed)})
    assert unanimous.value == pytest.approx(0.027 / (0.027 + 0.343), abs=0.03)


def test_nothing_is_claimed_of_nothing() -> None:
    nothing = vote_agreement(np.zeros((0, 3)), [], [])
    assert (nothing.alpha.value, nothing.pairs) == (None, 0)
    assert disagreement(np.zeros((0, 3)), [], []) == (Estimate(None), 0)
    assert flip_rate(Estimate(None)).value is None
    assert row_noise(Estimate(None), {1: 3}).value is None
    same = vote_agreement([[3, 0, 0]], [0] * 5, np.arange(5))
    assert same.alpha.value is None
    assert "all votes say the same" in same.reason
    assert same.percent.value == 1
    assert same.percent.interval is not None
    assert same.percent.interval[0] < 0.6, "five pairs prove little"


def test_a_flip_rate_ends_at_one_half() -> None:
    assert flip_rate(Estimate(0.5, (0.4, 0.6))).value == 0.5
    assert flip_rate(Estimate(0.7, (0.6, 0.8))).interval == (0.5, 0.5)
    level = row_noise(Estimate(0.0, (0.0, 0.1)), {1: 1, 0: 1, -1: 1})
    assert level.value == pytest.approx(0.5)


def test_ragged_or_falling_input_is_refused() -> None:
    with pytest.raises(ValueError, match="equal"):
        vote_agreement([[1, 0, 1]], [0, 0], [0])
    with pytest.raises(ValueError, match="rows of counts"):
        vote_agreement([[1, 0, 1]], [1], [0])
    with pytest.raises(ValueError, match="follow each other"):
        disagreement([[1, 0, 1]], [0, 0], [1, 0])
