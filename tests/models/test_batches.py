from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from models.neural.batches import batches

pytestmark = pytest.mark.neural


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_batches_hold_every_pair_once_in_an_order_fixed_by_the_seed(n, by_length):
    lengths = np.random.default_rng(0).integers(1, 500, size=n)
    found = batches(lengths, 8, seed=(3, 0), by_length=by_length)
    assert sorted(np.concatenate(found)) == list(range(n))
    assert len(found) == -(-n // 8)
    again = batches(lengths, 8, seed=(3, 0), by_length=by_length)
    assert np.array_equal(np.concatenate(found), np.concatenate(again))
    if n == 1000:
        other = batches(lengths, 8, seed=(3, 1), by_length=by_length)
        assert not np.array_equal(np.concatenate(found), np.concatenate(other))


def test_grouping_by_length_leaves_little_to_pad():
    lengths = np.random.default_rng(1).lognormal(5, 0.8, size=5000).astype(int) + 1

    def padded(by_length: bool) -> float:
        found = batches(lengths, 16, seed=(0, 0), by_length=by_length)
        return sum(len(b) * lengths[b].max() for b in found) / lengths.sum()

    assert padded(by_length=False) > 2.0
    assert padded(by_length=True) < 1.15


def test_the_longest_batch_comes_first_so_that_memory_fails_early():
    lengths = np.arange(1, 2001)
    first = batches(lengths, 16, seed=(0, 0), by_length=True)[0]
    assert lengths[first].max() == 2000
