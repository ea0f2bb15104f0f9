"""Templates, orders, and what of an item reaches the model."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubrics.judging import prompts, schemas, templates
from rubrics.judging.llm import LlmJudge
from rubrics.judging.options import LlmOptions
from rubrics.judging.orders import balanced, drawn, pairs_both, pairs_once
from rubrics.judging.sections import read_sections
from rubrics.judging.types import Candidate, Item
from rubrics.llm.types import Picture
from tests.rubrics.judging import PROMPT, answers_of, decide, item, judge, prefers, text_of

PARTS = "=== pairwise: system ===\nJudge. $nonce\n=== pairwise: user ===\n$answers\n$reply\n"


@pytest.mark.parametrize("name", templates.MODES)
def test_every_mode_has_a_template_that_can_be_filled(name: str) -> None:
    template = templates.load(name)
    assert template.has(name)
    assert len(template.hash) == 64
    system = template.parts[name, "system"]
    assert system.index('"principle"') < system.index('"criteria"') < system.index('"question"')


@pytest.mark.parametrize(
    "name", ["", "nosuch", "../pairwise", "pairwise.txt", "Pairwise", "a" * 99]
)
def test_unknown_template_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(templates.BadTemplate, match="pairwise"):
        templates.load(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(PARTS.replace("$nonce", "$secret"), r"unknown place \$secret", id="unknown"),
        pytest.param(PARTS.replace("$nonce", "5$"), r"unknown place \$", id="dollar"),
        pytest.param(PARTS.replace("$answers", ""), r"lacks \$answers", id="no answers"),
        pytest.param(PARTS.replace("$reply", "$$reply"), r"lacks \$reply", id="no reply"),
        pytest.param(PARTS.partition("=== pairwise: user")[0], "a user part", id="half"),
        pytest.param(PARTS + PARTS, "twice", id="twice"),
        pytest.param(PARTS.replace("pairwise", "duel"), "no such part", id="mode"),
        pytest.param("Hello.\n" + PARTS, "before the first", id="before"),
        pytest.param("", "no “===", id="empty"),
        pytest.param(PARTS + "x" * 100_001, "longer than", id="long"),
    ],
)
def test_template_that_cannot_be_filled_is_refused(text: str, says: str) -> None:
    with pytest.raises(templates.BadTemplate, match=says):
        templates.from_text(text)


def test_places_are_filled_once() -> None:
    """What stands in an answer is never a place, whatever it looks like."""
    template = templates.from_text(PARTS)
    call = prefers(len)
    decide(
        LlmJudge(LlmOptions(models=["m"]), template=template), item("$reply $$ $nonce", "x"), call
    )
    assert "$reply $$ $nonce" in text_of(call.requests[0])


def test_double_dollar_is_one() -> None:
    template = templates.from_text(PARTS.replace("Judge.", "It costs $$5."))
    assert template.fill("pairwise", "system", {"nonce": ("x",)}) == ("It costs $5. x",)


def test_place_with_nothing_in_it_takes_its_line_along() -> None:
    text = PARTS.replace("$answers", "$principle\n$answers\n$notes")
    filled = templates.from_text(text).fill(
        "pairwise",
        "user",
        {"principle": (), "answers": ("answers\n",), "notes": (), "reply": ("reply",)},
    )
    assert filled == ("answers\n\nreply",)


def test_stored_text_works_whatever_the_files_say_now() -> None:
    options = LlmOptions(models=["m"])
    stored = templates.template_of(options).text.replace("impartial", "patient")
    call = prefers(len)
    decide(LlmJudge(options, template=stored), item("a", "bb"), call)
    assert "patient judge" in text_of(call.requests[0])
    rating = item("a", kind="rating", attributes=("tone",), low=0, high=4)
    assert LlmJudge(options, template=stored).plan(rating) == 1, "all kinds are in the text"


def test_stored_text_that_lacks_a_kind_says_so() -> None:
    of = LlmJudge(LlmOptions(models=["m"]), template=PARTS)
    rating = item("a", kind="rating", attributes=("tone",))
    assert of.plan(rating) == 0
    decision = decide(of, rating, prefers(len))
    assert (decision.error, decision.ranks) == ("unsupported", None)
    assert "rating" in decision.detail


def test_template_of_another_mode_is_refused() -> None:
    with pytest.raises(templates.BadTemplate, match="does not ask listwise"):
        templates.template_of(LlmOptions(models=["m"], mode="listwise", template="pairwise"))


def test_judge_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        LlmJudge(LlmOptions())


# Orders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(1, 11))
def test_balanced_orders_are_a_williams_design(k: int) -> None:
    orders = balanced(k)
    assert len(orders) == (k if k % 2 == 0 or k == 1 else 2 * k)
    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == list(range(k)) for order in orders)
    for slot in range(k):
        assert set(Counter(order[slot] for order in orders).values()) == {len(orders) // k}
    after = Counter(pair for order in orders for pair in pairwise(order))
    assert k == 1 or (len(after), len(set(after.values()))) == (k * (k - 1), 1)
    assert {order[::-1] for order in orders} == set(orders)


@pytest.mark.parametrize("k", range(2, 11))
def test_pairs_in_one_order_show_each_answer_first_half_the_time(k: int) -> None:
    for number in range(10):
        orders = pairs_once(k, item=number, repeat=0)
        assert {frozenset(order) for order in orders} == set(map(frozenset, pairs_both(k)))
        assert len(orders) == k * (k - 1) // 2
        firsts = Counter(order[0] for order in orders)
        assert max(firsts.values()) - min(firsts[at] for at in range(k)) <= 1


def test_drawn_orders_hang_on_item_and_repeat_alone() -> None:
    random.seed(1)
    state = random.getstate()
    once = [drawn(4, item=number, repeat=0) for number in range(500)]
    assert random.getstate() == state, "nobody else's draws are disturbed"
    random.seed(2)
    assert once == [drawn(4, item=number, repeat=0) for number in range(500)]
    assert once != [drawn(4, item=number, repeat=1) for number in range(500)]
    firsts = Counter(order[0] for order in once)
    assert min(firsts.values()) > 80, "not one permutation for all"


# What reaches the model -------------------------------------------------------------------------


def test_question_shows_everything_fenced_in_the_order_it_counts() -> None:
    call = prefers(len)
    what = item("one", "three", question="Which is kinder?", guidelines="Be kind.")
    decide(judge(principle="Brevity first.", criteria=["Short\nand sweet", "True"]), what, call)
    text = text_of(call.requests[0])
    assert read_sections(text) == {
        "principle": "Brevity first.",
        "criteria": "- Short and sweet\n- True",
        "question": "Which is kinder?",
        "guidelines": "Be kind.",
        "prompt": "user: What is tea?",
        "answer A": "one",
        "answer B": "three",
    }
    assert next(iter(read_sections(text))) == "principle"
    assert "Kinder" not in str(call.requests[0].schema)


def test_guidelines_can_be_kept_back() -> None:
    call = prefers(len)
    decide(judge(use_guidelines=False), item("a", "bb", guidelines="Be kind."), call)
    assert "Be kind." not in text_of(call.requests[0])


def test_pair_that_must_be_decided_is_not_offered_a_tie() -> None:
    call = prefers(len)
    decide(judge(), item("a", "bb", allow_tie=False), call)
    assert call.requests[0].schema["properties"]["verdict"]["enum"] == ["A", "B"]
    assert '"tie"' not in text_of(call.requests[0])


@pytest.mark.parametrize("is_reasoning", [True, False])
def test_reasons_come_before_the_decision_or_not_at_all(is_reasoning: bool) -> None:
    for schema, words in (
        schemas.pairwise(reasoning=is_reasoning, tie=True),
        schemas.pointwise(reasoning=is_reasoning),
        schemas.listwise("ABC", reasoning=is_reasoning),
        schemas.rating(("tone",), low=0, high=4, reasoning=is_reasoning),
        schemas.checklist(2, reasoning=is_reasoning),
    ):
        keys = list(schema["properties"])
        assert (keys[0] == "reasoning") == is_reasoning
        assert keys == schema["required"]
        assert [words.index(f'"{key}"') for key in keys] == sorted(
            words.index(f'"{key}"') for key in keys
        )
        json.dumps(schema)


def picture(name: str) -> Picture:
    return Picture(name * 64, "image/png", name.encode())


def test_pictures_follow_the_line_that_names_them() -> None:
    what = Item(
        1,
        "pairwise",
        PROMPT,
        (Candidate("", picture("a")), Candidate("with words", picture("b"))),
        source=picture("c"),
        mask=picture("d"),
    )
    question = prompts.ask(
        what,
        (1, 0),
        mode="pairwise",
        options=LlmOptions(models=["m"]),
        template=templates.load("pairwise"),
    )
    parts = question.messages[1].parts
    named = {
        parts[at].digest[0]: parts[at - 1].rstrip().rpartition("\n")[2]  # type: ignore[union-attr]
        for at in range(len(parts))
        if isinstance(parts[at], Picture)
    }
    assert named == {
        "a": "answer B is the next picture",
        "b": "answer A is the next picture",
        "c": "the source of the prompt is the next picture",
        "d": "the mask of the prompt is the next picture",
    }
    text = "".join(part for part in parts if isinstance(part, str))
    assert read_sections(text)["answer A"] == "with words"
    assert "answer B" not in read_sections(text), "an answer that is a picture has no text"


def test_blank_answer_reaches_the_model_as_it_is() -> None:
    for blank in ("", " ", "\n", "\t \n"):
        call = prefers(len)
        decide(judge(), item(blank, "words"), call)
        assert answers_of(call.requests[0]) == [blank, "words"]


def test_long_answers_lose_their_middle_and_it_is_said() -> None:
    call = prefers(len)
    decision = decide(judge(), item("h" + "x" * 199_998 + "t", "short"), call)
    shown = answers_of(call.requests[0])[0]
    assert len(shown) < prompts.MAX_TEXT + 60
    assert shown.startswith("h")
    assert shown.endswith("t")
    assert "[… 140,000 characters left out …]" in shown
    assert "without its middle" in text_of(call.requests[0])
    assert decision.detail == (
        "The first answer was shown without 140,000 of its 200,000 characters."
    )
    assert decision.ranks == (1, 2)


def test_short_answers_are_not_said_to_be_cut() -> None:
    call = prefers(len)
    decision = decide(judge(), item("a" * prompts.MAX_TEXT, "short"), call)
    assert "middle" not in text_of(call.requests[0])
    assert decision.detail == ""


HOSTILE = st.text(st.characters(codec=None) | st.sampled_from("<>/$\0\ud800 AB0f"), max_size=60)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
@example("\0", "\ud800</answer A>", "$reply\ud800", "\udfff\n- x")
def test_whatever_is_written_stays_where_it_was_put(
    prompt: str, first: str, second: str, criterion: str
) -> None:
    what = Item(
        1,
        "pairwise",
        ({"role": "user", "content": prompt},),
        (Candidate(first), Candidate(second)),
        question=criterion,
    )
    call = prefers(len)
    kept = prompts.clean(criterion)  # options refuse halves of characters themselves
    decide(judge(criteria=[kept], principle=kept), what, call)
    for request, order in zip(call.requests, ((first, second), (second, first)), strict=True):
        assert answers_of(request) == [prompts.clean(text) for text in order]
        assert request.key("x"), "it can be kept and sent"
        assert len(request.messages) == 2


@given(HOSTILE)
def test_clean_text_can_be_sent(text: str) -> None:
    clean = prompts.clean(text)
    clean.encode("utf-8")
    assert "\0" not in clean
    assert len(clean) == len(text)
