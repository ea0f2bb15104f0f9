"""Replies of models, tidy, untidy and hostile."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubrics.llm.parsing import MAX_CHARACTERS, read_json, read_token

WANTED = {"reasoning": "good", "verdict": "A"}
PLAIN = '{"reasoning": "good", "verdict": "A"}'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"\n  {PLAIN}\n",
        f"```json\n{PLAIN}\n```",
        f"Sure! Here it is:\n```\n{PLAIN}\n```\nAnything else?",
        f"The format is {{like this}}, so: {PLAIN} I hope that helps.",
        f'An example: {{"verdict": "B"}}. My verdict: {PLAIN}',
        f'<think>Maybe {{"verdict": "B"}}?</think>{PLAIN}',
        f'it was {{"verdict": "B"}} first</think>\n{PLAIN}',
        '{"reasoning": "good", "verdict": "A",}',
        "{'reasoning': 'good', 'verdict': 'A'}",
        "{reasoning: good, verdict: A}",
        '{"reasoning": "good", "verdict": "A"',
        '{"reasoning": "good", "verdict": "A',
    ],
    ids=str,
)
def test_read_json_finds_the_object(text: str) -> None:
    assert read_json(text) == WANTED


def test_read_json_prefers_the_whole_over_what_it_quotes() -> None:
    quoted = {"reasoning": 'it says </think>{"verdict": "A"} and ```', "verdict": "B"}
    assert read_json(orjson.dumps(quoted).decode()) == quoted


def test_read_json_takes_line_ends_within_texts() -> None:
    assert read_json('{"reasoning": "one\ntwo"}') == {"reasoning": "one\ntwo"}


def test_read_json_cleans_what_no_table_holds() -> None:
    read = read_json('{"a": "x\\u0000y\\ud800", "b": NaN, "c": [Infinity, 1.5]}')
    assert read == {"a": "x\ufffdy?", "b": None, "c": [None, 1.5]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no object here",
        "[1, 2]",
        "<think>" + PLAIN,
        "{" * 100_000,
        "[{" * 50_000,
        '{"a":' * 20_000,
        "{'" * 9_000,
        "x" * (MAX_CHARACTERS + 1),
        "<think>" * 20_000,
        "1" * 10_000,
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_read_json_refuses_what_holds_none(text: str) -> None:
    with pytest.raises(ValueError, match="reply"):
        read_json(text)


@given(st.text(alphabet="{}[]\"',:\\ntrue0.5e-/*#<think>`\n\x00\ud800é", max_size=300))
@example('{"a": ' + "9" * 5000 + "}")
@example('{"a": 1e999}')
def test_read_json_gives_a_storable_object_or_value_error(text: str) -> None:
    try:
        read = read_json(text)
    except ValueError:
        return
    assert isinstance(read, dict)
    assert "\x00" not in str(read)
    assert "\\u0000" not in orjson.dumps(read, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("[[A]]", "A"),
        ("I think [[b]] is better", "B"),
        ("Not [[A]] but [[B]]", "B"),
        ("<think>[[A]]</think> My verdict: [[ C ]]", "C"),
        ("A", "A"),
        (" **B**.", "B"),
        ("[[A]] or [[nothing]]", "A"),
    ],
    ids=str,
)
def test_read_token_finds_the_last(text: str, token: str) -> None:
    assert read_token(text, ("A", "B", "C")) == token


@pytest.mark.parametrize("text", ["", "A is better", "[[D]]", "[[", "<think>[[A]]"], ids=repr)
def test_read_token_refuses_what_holds_none(text: str) -> None:
    with pytest.raises(ValueError, match="none of A, B"):
        read_token(text, ("A", "B"))
