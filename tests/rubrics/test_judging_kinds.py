"""What is asked of several answers, and of kinds that are no comparison."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from rubrics.llm.types import Request
from tests.rubrics.judging import (
    Scripted,
    answers_of,
    decide,
    item,
    judge,
    prefers,
    sections_of,
    text_of,
)

# More than two ----------------------------------------------------------------------------------

FOUR = ("a", "dddd", "ccc", "bb")
BY_LENGTH = (4, 1, 2, 3)


def ranked(request: Request) -> dict[str, Any]:
    shown = answers_of(request)
    order = sorted(range(len(shown)), key=lambda slot: -len(shown[slot]))
    return {
        "reasoning": "by length",
        "scores": {"ABCDEFGHIJ"[slot]: len(shown[slot]) for slot in order},
        "ranking": ["ABCDEFGHIJ"[slot] for slot in order],
    }


def test_ranking_by_pairs_asks_every_pair_in_both_orders() -> None:
    call = prefers(len, confidence=90)
    of = judge()
    decision = decide(of, item(*FOUR, kind="ranking"), call)
    assert len(call.requests) == of.plan(item(*FOUR, kind="ranking")) == 12
    assert decision.ranks == BY_LENGTH
    assert decision.strength == 3
    assert decision.confidence == pytest.approx(0.9), "the mean chance of the best"
    assert decision.probability is None
    assert decision.is_consistent is True
    assert {one.shown_order for one in decision.opinions} == {
        order for pair in combinations(range(4), 2) for order in (pair, pair[::-1])
    }
    assert all(sorted(one.ranks or ()) == [0, 0, 1, 2] for one in decision.opinions)


def test_ring_of_preferences_is_a_tie() -> None:
    beats = {("a", "bb"), ("bb", "ccc"), ("ccc", "a")}

    def say(request: Request) -> dict[str, Any]:
        shown = answers_of(request)
        return {"verdict": "A" if tuple(shown) in beats else "B", "confidence": 90}

    decision = decide(judge(), item("a", "bb", "ccc", kind="ranking"), Scripted(say))
    assert (decision.ranks, decision.strength) == ((1, 1, 1), 0)


@pytest.mark.parametrize("combine", ["soft-average", "agree-only"])
def test_list_is_asked_in_balanced_orders(combine: str) -> None:
    call = Scripted(ranked)
    of = judge(mode="listwise", combine=combine)
    decision = decide(of, item(*FOUR, kind="ranking"), call)
    assert len(call.requests) == of.plan(item(*FOUR, kind="ranking")) == 4
    firsts = Counter(answers_of(request)[0] for request in call.requests)
    assert firsts == Counter(FOUR)
    assert decision.ranks == BY_LENGTH
    assert decision.is_consistent is True
    scores = decision.opinions[0].scores
    assert scores == {"score": [1.0, 4.0, 3.0, 2.0]}


def test_list_that_goes_by_place_says_nothing() -> None:
    call = Scripted(lambda request: {"ranking": ["A", "B", "C", "D"]})
    decision = decide(judge(mode="listwise"), item(*FOUR, kind="ranking"), call)
    assert decision.ranks == (1, 1, 1, 1)
    assert decision.is_consistent is False


def test_pair_can_be_asked_as_a_list() -> None:
    decision = decide(judge(mode="listwise"), item("a", "bb"), Scripted(ranked))
    assert (decision.ranks, decision.probability) == ((2, 1), 0.0)
    assert len(decision.opinions) == 2


def test_pointwise_scores_each_by_itself() -> None:
    call = Scripted(lambda request: {"reasoning": "ok", "score": len(answers_of(request)[0])})
    of = judge(mode="pointwise", repeats=2, temperature=1.0)
    decision = decide(of, item(*FOUR, kind="ranking"), call)
    assert len(call.requests) == of.plan(item(*FOUR, kind="ranking")) == 8
    assert decision.ranks == BY_LENGTH
    assert {len(answers_of(request)) for request in call.requests} == {1}
    assert "answer A" not in text_of(call.requests[0])
    assert decision.rationale.startswith("First answer: ok\n\nSecond answer: ok")


@pytest.mark.parametrize(
    ("scores", "ranks", "strength"),
    [((7, 7), (1, 1), 0), ((8, 7), (1, 2), 1), ((3, 9), (2, 1), 3), ((10, 6), (1, 2), 2)],
)
def test_pointwise_pair_goes_by_the_gap(
    scores: tuple[int, int], ranks: tuple[int, int], strength: int
) -> None:
    given = dict(zip("xy", scores, strict=True))
    call = Scripted(lambda request: {"score": given[answers_of(request)[0]]})
    decision = decide(judge(mode="pointwise"), item("x", "y"), call)
    assert (decision.ranks, decision.strength) == (ranks, strength)
    assert decision.probability == pytest.approx(0.5 + (scores[0] - scores[1]) / 18)


# Other kinds ------------------------------------------------------------------------------------


def test_rating_gives_whole_numbers_per_attribute() -> None:
    def say(request: Request) -> dict[str, Any]:
        text = answers_of(request)[0]
        return {"scores": {"Help\nful": len(text) - request.salt, "tone": 2}}

    what = item("a", "bbb", kind="rating", attributes=("Help ful", "tone"), low=-1, high=4)
    of = judge(repeats=2)
    call = Scripted(say)
    decision = decide(of, what, call)
    assert of.plan(what) == len(call.requests) == 4
    assert decision.ratings == {"Help ful": [1, 3], "tone": [2, 2]}, "one half is rounded up"
    assert (decision.ranks, decision.strength) == ((2, 1), 2)
    assert sections_of(call.requests[0])["attributes"] == "Help ful\ntone"
    assert "from -1 to 4" in text_of(call.requests[0])


def test_checklist_says_what_holds_and_a_fault_passes_with_a_no() -> None:
    def say(request: Request) -> dict[str, Any]:
        is_good = answers_of(request)[0] == "good"
        return {"answers": {"1": "yes", "2": "n/a", "3": "no" if is_good else "yes"}}

    what = item(
        "bad", "good", kind="checklist", criteria=("On topic", "Cites"), failures=("Broken",)
    )
    call = Scripted(say)
    decision = decide(judge(), what, call)
    assert decision.ratings == {"On topic": [1, 1], "Cites": [None, None], "Broken": [1, 0]}
    assert decision.ranks == (2, 1)
    assert sections_of(call.requests[0])["checklist"] == "1. On topic\n2. Cites\n3. Broken"
    assert "Line 3 names a fault" in text_of(call.requests[0])


def test_checklist_of_a_jury_goes_by_its_majority() -> None:
    said = {"m": "yes", "n": "no", "o": "yes"}
    call = Scripted(lambda request: {"answers": {"1": said[request.model], "2": "n/a"}})
    what = item("x", kind="checklist", criteria=("Kind", "Odd"))
    decision = decide(judge(models=list(said)), what, call)
    assert decision.ratings == {"Kind": [1], "Odd": [None]}
    assert (decision.ranks, decision.strength) == ((1,), 0)


@pytest.mark.parametrize("mode", ["pairwise", "pointwise", "listwise"])
def test_best_and_worst_are_one_each(mode: str) -> None:
    def say(request: Request) -> dict[str, Any]:
        if mode == "listwise":
            return ranked(request)
        lengths = [len(text) for text in answers_of(request)]
        if mode == "pointwise":
            return {"score": lengths[0]}
        return {"verdict": "A" if lengths[0] > lengths[1] else "B"}

    decision = decide(judge(mode=mode), item(*FOUR, kind="best-worst"), Scripted(say))
    assert (decision.ranks, decision.strength) == ((3, 1, 2, 2), 2)


def test_no_single_best_is_no_verdict_on_best_and_worst() -> None:
    call = Scripted(lambda request: {"score": 5})
    decision = decide(judge(mode="pointwise"), item(*FOUR, kind="best-worst"), call)
    assert (decision.ranks, decision.error) == (None, "unfit")


@pytest.mark.parametrize(
    "what",
    [
        item("alone"),
        item(kind="ranking"),
        item("x", kind="rating"),
        item("x", kind="checklist"),
    ],
    ids=["one answer", "no answer", "no attribute", "no criterion"],
)
def test_what_cannot_be_asked_costs_no_call(what: Any) -> None:
    call = Scripted(lambda request: {"verdict": "A"})
    decision = decide(judge(), what, call)
    assert (judge().plan(what), call.requests) == (0, [])
    assert (decision.error, decision.ranks) == ("unsupported", None)
    assert decision.detail
