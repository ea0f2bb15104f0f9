from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("torch")

from models.neural.store import Encoded, build_store, open_store, pack
from models.pairs import Pair, answer_text

pytestmark = pytest.mark.neural


def encode(conversations, *, values=True):
    """One id per character of the answer."""
    answers = [answer_text(answer) for _, answer in conversations]
    ids = np.array([ord(c) for answer in answers for c in answer], dtype=np.int32)
    weights = ids.astype(np.float32) / 2 if values else None
    lengths = np.array([len(answer) for answer in answers], dtype=np.int64)
    return Encoded(ids, weights, lengths, Counter(seen=len(answers)))


def make(n):
    return [Pair([], "x" * (i % 5), "y" * (i % 3), p=i / n, pair_id=i) for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 1024, 2500])
@pytest.mark.parametrize("values", [True, False])
def test_store_gives_back_what_was_encoded(tmp_path, n, values):
    pairs, counts = make(n), []
    store = build_store(
        tmp_path / "s", pairs, lambda rows: encode(rows, values=values), counts.append
    )
    assert len(store) == n
    assert counts == [*range(1024, n, 1024), *([n] if n else [])]
    assert store.notes == ({"seen": 2 * n} if n else {})
    assert (store.values is not None) == (values and n > 1)
    assert np.array_equal(store.columns["pair_id"], np.arange(n))
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, 2 * n, size=50) if n else np.zeros(0, np.int64)
    positions, lengths = store.gather(sequences)
    sides = [(pair.chosen, pair.rejected) for pair in pairs]
    expected = [sides[s // 2][s % 2] for s in sequences]
    assert "".join(map(chr, store.ids[positions])) == "".join(expected)
    assert lengths.tolist() == [len(text) for text in expected]
    assert store.characters.reshape(-1, 2).tolist() == [[len(a), len(b)] for a, b in sides]


def test_store_interrupted_while_being_built_leaves_nothing(tmp_path):
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "cache" / "s", make(3), encode, stop)
    assert list((tmp_path / "cache").iterdir()) == []
    assert open_store(tmp_path / "cache" / "s") is None


def test_pack_makes_a_store_of_single_conversations():
    store = pack(encode([([], "ab"), ([], ""), ([], "cde")]))
    assert store.lengths.tolist() == [2, 0, 3]
    positions, _ = store.gather(np.array([2, 0]))
    assert "".join(map(chr, store.ids[positions])) == "cdeab"
