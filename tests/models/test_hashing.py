from __future__ import annotations

import time
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from models.backbones import HashingOptions
from models.neural.hashing import DENSE, WORD, encode

pytestmark = pytest.mark.neural

ASK = [{"role": "user", "content": "Tell me about whales"}]
OPTIONS = HashingOptions()


def features(conversations, options=OPTIONS):
    """One dict of place to value per conversation."""
    encoded = encode(conversations, options)
    ends = np.cumsum(encoded.lengths)
    parts = np.split(np.arange(len(encoded.ids)), ends[:-1])
    return [dict(zip(encoded.ids[p].tolist(), encoded.values[p], strict=True)) for p in parts]


def hashed(found):
    return {place: value for place, value in found.items() if place >= DENSE}


def test_features_are_the_same_in_every_process_and_release():
    """Python salts its own hash() per process; a changed value here makes saved models wrong."""
    encoded = encode([(ASK, "Whales sing, and sing.")], HashingOptions(char_ngrams=4))
    assert crc32(encoded.ids.tobytes()) == 1564477111
    assert encoded.values.sum() == pytest.approx(52.66, abs=5e-3)


def test_ngrams_are_counted_by_their_root():
    (found,) = features([([], "sing sing sing sing")])
    # "sing" four times and "sing sing" three times
    assert sorted(hashed(found).values()) == pytest.approx([3**0.5, 2.0])


def test_ngrams_do_not_cross_from_one_response_into_the_next():
    alone = [features([([], text)])[0] for text in ("one two", "three four", "")]
    assert features([([], "one two"), ([], "three four"), ([], "")]) == alone


def test_features_depend_on_the_prompt():
    on, off = features([(ASK, "whales"), ([{"role": "user", "content": "tea"}], "whales")])
    extra = hashed(on).keys() - hashed(off).keys()
    assert len(extra) == 1  # the shared word
    assert on[2] == 1.0  # every word of the response is in the last turn
    assert 2 not in off


def test_words_of_earlier_turns_are_told_from_the_last():
    earlier = [*ASK, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "go"}]
    (found,) = features([(earlier, "whales")])
    assert 2 not in found
    assert found[3] == 1.0


def test_case_is_ignored_and_unspaced_scripts_are_split():
    assert features([([], "Hello, WORLD")]) == features([([], "hello, world")])
    assert WORD.findall("我喜欢 tea, 42%") == ["我", "喜", "欢", "tea", ",", "42", "%"]


def test_long_texts_are_cut_and_counted():
    options = HashingOptions(max_words=16)
    prompt = [{"role": "user", "content": "early " * 50 + "late " * 16}]
    encoded = encode([(prompt, "w " * 17), (prompt, "w " * 16)], options)
    assert encoded.notes["answers_cut"] == 1
    first, second, third = features(
        [(prompt, "late"), (prompt, "early"), (prompt, "late " * 40)], options
    )
    assert first[2] == 1.0
    assert 2 not in second
    assert third[0] == pytest.approx(np.log1p(16) / 4)


texts = st.text(st.characters(codec="utf-8", categories=None), max_size=60)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.integers(0, 6))
def test_any_text_gives_sorted_places_in_range_and_finite_values(rows, chars):
    options = HashingOptions(buckets_log2=10, char_ngrams=chars)
    conversations = [([{"role": "user", "content": a}], b) for a, b in rows]
    encoded = encode(conversations, options)
    assert encoded.lengths.sum() == len(encoded.ids) == len(encoded.values)
    assert np.isfinite(encoded.values).all()
    for found in features(conversations, options):
        assert list(found) == sorted(found)
        assert all(0 <= place < 1024 for place in found)


def test_a_huge_response_costs_moments():
    start = time.perf_counter()
    encode([(ASK, "word " * 200_000), (ASK, "x" * 10_000_000), (ASK, "\x00" * 100_000)], OPTIONS)
    assert time.perf_counter() - start < 5
