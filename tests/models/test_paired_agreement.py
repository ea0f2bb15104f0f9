"""Coefficients from tables of two raters are those of the long way, and families have names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.agreement import Ratings, cohen_kappa, krippendorff_alpha
from models.families import family_of
from models.intervals import group_codes
from models.paired_agreement import paired_agreement
from models.resampling import mean_interval, resampled_sums


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_coefficients_are_those_of_the_library(rows):
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    both = Ratings.from_matrix(np.stack([a, b]).astype(float))
    expected = {
        "cohen": cohen_kappa(a, b),
        "nominal": krippendorff_alpha(both),
        "ordinal": krippendorff_alpha(both, "ordinal"),
    }
    for statistic, value in expected.items():
        found = paired_agreement(
            a, b, np.arange(len(a)), classes=3, statistic=statistic, replicates=5
        )
        assert found.value == (None if value is None else pytest.approx(value))


def test_interval_draws_prompts_whole():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 300)
    b = np.where(rng.random(300) < 0.7, a, rng.integers(0, 3, 300))
    once = paired_agreement(a, b, np.arange(300), classes=3, statistic="cohen")
    four = [np.repeat(one, 4) for one in (a, b, np.arange(300))]
    again = paired_agreement(*four, classes=3, statistic="cohen")
    assert again.value == pytest.approx(once.value)
    assert np.subtract(*again.interval) == pytest.approx(np.subtract(*once.interval), rel=0.2)
    assert once.interval[0] < once.value < once.interval[1]
    assert (again.n, again.groups) == (1200, 300)


def test_nothing_and_nonsense():
    assert paired_agreement([], [], [], classes=3, statistic="cohen").value is None
    same = paired_agreement([1, 1], [1, 1], [0, 1], classes=3, statistic="nominal")
    assert (same.value, same.interval) == (None, None)
    with pytest.raises(ValueError, match="classes"):
        paired_agreement([3], [0], [0], classes=3, statistic="cohen")


def test_clustered_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.normal(1, 1, 60), 5) + rng.normal(0, 0.3, 300)
        low, high = mean_interval(values, np.repeat(np.arange(60), 5))
        covered += low <= 1 <= high
    assert 180 <= covered <= 199


def test_resampled_sums_keep_rows_of_a_cluster_together():
    values = np.array([[1.0, 1], [2, 1], [10, 1]])
    sums = resampled_sums(values, [7, 7, 9], replicates=50, seed=0)
    assert {tuple(row) for row in sums.tolist()} <= {(6.0, 4.0), (13.0, 3.0), (20.0, 2.0)}


@given(
    st.lists(st.one_of(st.integers(-50, 50), st.integers(-(2**62), 2**62)), max_size=30),
)
def test_group_codes_are_those_of_unique(labels):
    given_ = np.array(labels, dtype=np.int64)
    expected = np.unique(given_, return_inverse=True)[1]
    assert group_codes(given_).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gpt-4o-mini", "gpt"),
        ("openai/o3-mini", "gpt"),
        ("text-davinci-003", "gpt"),
        ("ChatGPT", "gpt"),
        ("claude-3-opus", "claude"),
        ("meta-llama/Llama-3-8B-Instruct", "llama"),
        ("Mixtral-8x7B", "mistral"),
        ("Qwen/Qwen3-32B", "qwen"),
        ("qwen2.5-7b", "qwen"),
        ("cerebras-gpt-6.7B", "cerebras"),
        ("pythia-6.9b", "pythia"),
        ("7", ""),
        ("", ""),
    ],
)
def test_families_by_the_word_a_name_begins_with(name, family):
    assert family_of(name) == family
