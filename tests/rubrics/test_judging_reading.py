"""Reading what a model said: lenient about form, never a guess about meaning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubrics.judging import logprobs, reading
from rubrics.llm.types import Reply


def said(**keys: Any) -> str:
    return json.dumps(keys)


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        (said(verdict="A"), 0),
        (said(verdict="b"), 1),
        (said(verdict="Answer B"), 1),
        (said(verdict="[[A]]"), 0),
        (said(verdict="**B**"), 1),
        (said(verdict="The answer A is better."), 0),
        (said(verdict="Tie"), None),
        (said(verdict="draw"), None),
        (said(Verdict="B"), 1),
        ("```json\n" + said(verdict="B") + "\n```", 1),
        ("<think>A? [[A]] verdict: A</think>" + said(verdict="B"), 1),
        ("I weighed both. " + said(verdict="A"), 0),
        ("{'verdict': 'B',}", 1),
        ("A", 0),
        (" b.\n", 1),
        ("Answer A", 0),
        ("Response: B", 1),
        ("tie", None),
        ("It is close, but [[B]]", 1),
        ("Long thoughts.\nVerdict: **A**", 0),
        ("verdict = tie", None),
    ],
)
def test_verdict_is_read_in_every_dress(text: str, winner: int | None) -> None:
    assert reading.read_pair(text).winner == winner


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, I can't compare these.",
        "A or B, who knows",
        "[[A]] no, [[B]]",
        "C",
        said(verdict="C"),
        said(verdict=["A"]),
        said(verdict=None),
        said(verdict="A and B"),
        said(winner="A"),
        'The first says "verdict: A".\nThat is no reason.',
        "{" * 5_000,
        "\0" * 100,
        "[" * 100_000,
    ],
)
def test_what_could_mean_anything_means_nothing(text: str) -> None:
    with pytest.raises(reading.Unreadable):
        reading.read_pair(text)


def test_reasons_that_quote_a_verdict_do_not_give_it() -> None:
    reasons = 'Answer A says {"verdict": "A"} and [[A]] and verdict: A. It is wrong.'
    pair = reading.read_pair(said(reasoning=reasons, verdict="B", strength=3, confidence=90))
    assert (pair.winner, pair.strength, pair.sure) == (1, 3, 0.9)
    assert pair.reasoning == reasons


@pytest.mark.parametrize(
    ("given_", "sure"),
    [
        (50, 0.5),
        (85, 0.85),
        (100, 1.0),
        ("85%", 0.85),
        ("85", 0.85),
        (0.85, 0.85),
        (0.2, 0.5),
        (30, 0.5),
        (1, None),
        (101, None),
        (-5, None),
        ("high", None),
        (None, None),
        (True, None),
        ([90], None),
        (10**400, None),
    ],
)
def test_confidence_is_from_one_half_to_one(given_: Any, sure: float | None) -> None:
    assert reading.confidence(given_) == sure


def test_tie_has_no_confidence_of_its_own() -> None:
    assert reading.read_pair(said(verdict="tie", confidence=90)).sure is None


@pytest.mark.parametrize(("given_", "strength"), [(2, 2), ("3", 3), (0, 1), (9, 1), ("x", 1)])
def test_strength_that_is_none_is_slight(given_: Any, strength: int) -> None:
    assert reading.read_pair(said(verdict="A", strength=given_)).strength == strength


def test_long_reasons_are_bounded() -> None:
    pair = reading.read_pair(said(reasoning="x" * 50_000, verdict="A"))
    assert len(pair.reasoning) == reading.MAX_REASONING
    assert pair.reasoning.endswith("…")


@pytest.mark.parametrize(
    ("score", "value"), [(7, 7), (7.5, 7.5), ("7", 7), ("7/10", 7), (1, 1), (10, 10)]
)
def test_score_is_read(score: Any, value: float) -> None:
    assert reading.read_score(said(score=score)) == (value, "")


@pytest.mark.parametrize("score", [0, 11, -1, None, "good", True, [7], {"a": 7}])
def test_score_off_the_scale_is_not(score: Any) -> None:
    with pytest.raises(reading.Unreadable, match="from 1 to 10"):
        reading.read_score(said(score=score))


def test_ratings_are_read_by_name() -> None:
    text = said(reasoning="fine", scores={"Tone ": 3, "truth": "4", "more": 1})
    assert reading.read_ratings(text, ["tone", "truth"], low=0, high=4) == ([3, 4], "fine")


@pytest.mark.parametrize(
    "scores", [{"tone": 3}, {"tone": 3, "truth": 5}, {"tone": 3, "truth": 2.5}, []]
)
def test_ratings_that_lack_something_are_not(scores: Any) -> None:
    with pytest.raises(reading.Unreadable):
        reading.read_ratings(said(scores=scores), ["tone", "truth"], low=0, high=4)


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        ({"ranking": ["B", "A", "C"]}, [2, 1, 3]),
        ({"ranking": "C > answer a > B"}, [2, 3, 1]),
        ({"ranking": ["B"], "scores": {"A": 1, "B": 9, "C": 1}}, [2, 1, 2]),
        ({"ranking": ["B", "A", "C"], "scores": {"A": 9, "B": 1, "C": 1}}, [2, 1, 3]),
        ({"scores": {"Answer A": 3, "b": 2, "C": 1}}, [1, 2, 3]),
    ],
)
def test_list_is_read_by_its_ranking_else_its_scores(
    keys: dict[str, Any], places: list[int]
) -> None:
    assert reading.read_list(said(**keys), 3)[0] == places


@pytest.mark.parametrize(
    "keys",
    [
        {"ranking": ["A", "B"]},
        {"ranking": ["A", "A", "B"]},
        {"ranking": ["A", "B", "D"]},
        {"ranking": ["A", "B", "C", "A"]},
        {"scores": {"A": 3, "B": 2}},
        {"scores": {"A": 3, "B": 2, "C": 99}},
        {"ranking": {"A": 1}},
    ],
)
def test_list_that_leaves_someone_out_is_not(keys: dict[str, Any]) -> None:
    with pytest.raises(reading.Unreadable, match="every letter once"):
        reading.read_list(said(**keys), 3)


def test_checks_are_read_by_number() -> None:
    answers = {"1": "Yes", "2.": "no", "3": "N/A", "4": True, "5": None}
    assert reading.read_checks(said(answers=answers), 5)[0] == [1, 0, None, 1, None]
    assert reading.read_checks(said(answers=["yes", "no"]), 2)[0] == [1, 0]


@pytest.mark.parametrize("answers", [{"1": "yes"}, {"1": "yes", "2": "maybe"}, ["yes"], "yes", {}])
def test_checks_that_lack_a_line_are_not(answers: Any) -> None:
    with pytest.raises(reading.Unreadable):
        reading.read_checks(said(answers=answers), 2)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["verdict", "strength", "confidence", "reasoning", "score", "scores", "ranking", "answers"]
)


@given(st.dictionaries(KEYS, ANYTHING).map(json.dumps) | st.text())
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    """Nothing but Unreadable is raised, and what it says fits a prompt."""
    for read in (
        reading.read_pair,
        reading.read_score,
        lambda text: reading.read_list(text, 3),
        lambda text: reading.read_checks(text, 2),
        lambda text: reading.read_ratings(text, ["tone"], low=0, high=4),
    ):
        assert len(complaint(read, text)) < 200


def complaint(read: Callable[[str], Any], text: str) -> str:
    try:
        read(text)
    except reading.Unreadable as error:
        return str(error)
    return ""


# Probabilities of tokens ------------------------------------------------------------------------

Token = list[tuple[str, float]]


def replied(text: str, *tokens: Token) -> Reply:
    top = tuple(
        tuple((token, math.log(chance) if chance else -99.0) for token, chance in spread)
        for spread in tokens
    )
    return Reply(text, b"", top_logprobs=top)


def plain(*texts: str) -> list[Token]:
    return [[(text, 0.9), ("x", 0.1)] for text in texts]


OPENING = plain("{", '"verdict"', ":", ' "')


def test_ways_to_write_a_verdict_are_added_up() -> None:
    spread: Token = [("A", 0.5), (" A", 0.1), ("a", 0.1), ("B", 0.2), (" b", 0.05), ("C", 0.05)]
    found = logprobs.first_wins(replied('{"verdict": "A"}', *OPENING, spread, *plain('"}')))
    assert found == pytest.approx(0.7 / 0.95)
    single = 0.5 / 0.95
    assert found is not None
    assert found > single, "one way of writing alone misses what the others hold"


def test_tie_counts_half_to_each() -> None:
    spread: Token = [("tie", 0.4), ("t", 0.1), ("A", 0.3), ("B", 0.2)]
    found = logprobs.first_wins(replied('{"verdict": "tie"}', *OPENING, spread, *plain('"}')))
    assert found == pytest.approx(0.3 + 0.25)


def test_quote_may_belong_to_the_verdicts_token() -> None:
    spread: Token = [('"B', 0.8), ('"A', 0.2)]
    text = '{"verdict": "B"}'
    found = logprobs.first_wins(replied(text, *plain("{", '"verdict"', ": "), spread, *plain('"}')))
    assert found == pytest.approx(0.2)


def test_bare_verdict_has_a_probability_too() -> None:
    assert logprobs.first_wins(replied("B", [("B", 0.75), ("A", 0.25)])) == pytest.approx(0.25)


def test_other_tokens_of_the_reply_do_not_count() -> None:
    """A's and B's that stand elsewhere, the strength's digit, say nothing of the verdict."""
    tokens = [*OPENING, [("A", 0.6), ("B", 0.4)], *plain('", "', "strength", '": ', "2")]
    noisy = [*tokens, [("B", 0.99), ("A", 0.01)]]
    found = logprobs.first_wins(replied('{"verdict": "A", "strength": 2B', *noisy))
    assert found == pytest.approx(0.6)


@pytest.mark.parametrize(
    "reply",
    [
        Reply('{"verdict": "A"}', b""),
        replied('{"verdict": "A"}'),
        replied('{"verdict": "A"}', *plain("{", "other")),
        replied("I cannot say", *plain("I", " cannot", " say")),
        replied("", []),
        replied('{"verdict": "A"}', *OPENING, [("A", 0.0)][:0]),
        replied('{"verdict": "maybe"}', *OPENING, [("maybe", 0.9)]),
    ],
    ids=["none", "empty", "lost", "prose", "nothing", "short", "no verdict"],
)
def test_probability_that_cannot_be_found_is_none(reply: Reply) -> None:
    assert logprobs.first_wins(reply) is None
