from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadData
from models.pairs import (
    Pair,
    answer_text,
    clean_text,
    data_sha256,
    pairs_path,
    parse_pair,
    read_pairs,
    write_pairs,
)

# Everything a str can hold, lone surrogates and NUL included.
text = st.text(st.characters(codec=None, categories=None), max_size=40)
message = st.fixed_dictionaries({"role": text, "content": text})
answer = text | st.lists(message, min_size=1, max_size=3)
pairs = st.builds(
    Pair,
    prompt=st.lists(message, max_size=3),
    chosen=answer,
    rejected=answer,
    p=st.floats(0, 1),
    weight=st.floats(0, 1e6),
    strength=st.integers(0, 3),
    prompt_id=st.integers(-(2**63) + 1, 2**63 - 1),
    pair_id=st.integers(0, 10**9),
)


@given(st.lists(pairs, max_size=5))
def test_pairs_survive_writing_and_reading(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "pairs-train.jsonl"
    assert write_pairs(path, rows) == len(rows)
    path.read_bytes().decode("utf-8")  # valid for every reader
    expected = [parse_pair(json.loads(json.dumps(_row(pair)))) for pair in rows]
    assert list(read_pairs(path)) == expected


@given(text)
def test_cleaning_leaves_valid_text_alone_and_makes_the_rest_encodable(value):
    cleaned = clean_text(value)
    cleaned.encode("utf-8")
    assert len(cleaned) == len(value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        assert "\ufffd" in cleaned
    else:
        assert cleaned == value


def test_reading_takes_lone_surrogates_as_json_may_hold_them(tmp_path):
    path = tmp_path / "pairs-test.jsonl"
    path.write_text('{"prompt": [], "chosen": "a\\ud800b", "rejected": "c\\u0000d"}\n\n')
    (pair,) = read_pairs(path)
    assert (pair.chosen, pair.rejected) == ("a\ufffdb", "c\x00d")


GOOD = {"prompt": [], "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2"),
        ("[" * 100_000, "line 2"),
        ("[1]", "one JSON object"),
        ({"prompt": "hello"}, "prompt must be a list"),
        ({"prompt": [{"role": "user"}]}, "a role and a content"),
        ({"prompt": [{"role": "user", "content": [1]}]}, "a role and a content"),
        ({"chosen": None}, "chosen must be text"),
        ({"rejected": []}, "rejected must be text"),
        ({"p": 1.5}, r"p is 1\.5, expected 0 to 1"),
        ({"p": "1"}, "p must be a number"),
        ({"p": float("nan")}, "p must be a number"),
        ({"weight": -1}, "weight is -1"),
        ({"strength": 4}, "strength is 4"),
        ({"prompt_id": 1.0}, "prompt_id must be a whole number"),
        ({"pair_id": 2**70}, "pair_id must be a whole number"),
    ],
)
def test_reading_names_the_line_and_the_reason(tmp_path, line, reason):
    path = tmp_path / "pairs-train.jsonl"
    bad = line if isinstance(line, str) else json.dumps(GOOD | line)
    path.write_text(json.dumps(GOOD) + "\n" + bad + "\n")
    with pytest.raises(BadData, match=reason) as error:
        list(read_pairs(path))
    assert "pairs-train.jsonl, line 2" in error.value.message


def test_writing_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "pairs-train.jsonl"
    write_pairs(path, [Pair([], "old", "older")])

    def broken():
        yield Pair([], "new", "newer")
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_pairs(path, broken())
    assert [pair.chosen for pair in read_pairs(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_data_hash_needs_all_splits_and_tells_them_apart(tmp_path):
    with pytest.raises(BadData, match=r"pairs-train\.jsonl is missing"):
        data_sha256(tmp_path)
    some, other = [Pair([], "a", "b")], [Pair([], "c", "d")]
    hashes = set()
    for train, validation in ((some, other), (other, some), (some, some)):
        write_pairs(pairs_path(tmp_path, "train"), train)
        write_pairs(pairs_path(tmp_path, "validation"), validation)
        write_pairs(pairs_path(tmp_path, "test"), [])
        hashes.add(data_sha256(tmp_path))
    assert len(hashes) == 3


def test_an_answer_of_several_messages_is_read_as_one_text():
    assert answer_text("plain") == "plain"
    messages = [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}]
    assert answer_text(messages) == "a\n\nb"


def _row(pair: Pair) -> dict:
    return {name: getattr(pair, name) for name in Pair.__dataclass_fields__}
