"""A rubric at work on a pair: verdicts with their reasons, totals, who comes out first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given

from rubrics.applying import Finding, Rule, apply, apply_here, to_ask
from rubrics.judging.types import Candidate
from rubrics.llm.budget import Budget
from rubrics.llm.types import CallFailed, Picture, Request
from rubrics.programs import PROGRAMS
from rubrics.programs.case import Case, Prompt
from rubrics.programs.evaluate import compute
from rubrics.programs.seen import explain, seen
from rubrics.simulated.mind import Known
from rubrics.verifying import Response, VerifyOptions, request_of
from tests.rubrics.asked_over_http import over_http
from tests.rubrics.test_programs_hostile import TEXTS
from tests.simulated import simulated

ASKED = [{"role": "user", "content": "List three fruits in at most 5 words."}]
OPTIONS = VerifyOptions(model="sim", reasons=True)
SHORT = Rule(1, "Has as many words as asked", 1.5, "program", "asked-words")
SORRY = Rule(2, "Apologizes", -0.5, "program", "apology")
CITES, POLITE = Rule(3, "Cites a source", 2.0), Rule(4, "Is polite", 1.0)
A, B = "Apple, pear and plum.", "I am sorry, but here you are: apples, pears, plums and some more."


def pair(*texts: str) -> list[Candidate]:
    return [Candidate(text) for text in texts]


def tried(server: Any, rules: list[Rule], *texts: str, budget: Budget | None = None) -> Any:
    return over_http(
        server,
        lambda call: apply(rules, ASKED, pair(*texts), call=call, options=OPTIONS),
        budget=budget,
    )


def test_programs_answer_with_what_they_saw_and_the_margin_is_the_difference_of_sums() -> None:
    found = apply_here([SHORT, SORRY], ASKED, pair(A, B))
    first, second = found.rows
    assert [one.said for one in first.findings] == ["yes", "no"]
    assert [one.reason for one in first.findings] == [
        "4 words; at most 5 asked", "13 words; at most 5 asked"
    ]  # fmt: skip
    assert [one.said for one in second.findings] == ["no", "yes"]
    assert second.findings[1].reason == "says “i am sorry”"
    assert [(one.met, one.of) for one in found.totals] == [(2, 2), (0, 2)]
    assert [one.weighted for one in found.totals] == [1.5, -0.5]
    assert found.outcome is not None
    assert (found.outcome.winner, found.outcome.margin) == ("a", 2.0)
    assert found.outcome.most == 2.0
    assert sum(row.difference or 0 for row in found.rows) == found.outcome.margin


def test_swapping_the_sides_turns_the_outcome() -> None:
    there = apply_here([SHORT, SORRY], ASKED, pair(A, B)).outcome
    back = apply_here([SHORT, SORRY], ASKED, pair(B, A)).outcome
    assert there
    assert back
    assert (back.winner, back.margin) == ("b", -there.margin)


def test_one_response_has_a_total_and_no_outcome() -> None:
    found = apply_here([SHORT], ASKED, pair(A))
    assert found.outcome is None
    assert found.totals[0].share == 1.0
    assert list(found.as_json()["totals"]) == ["a"]


def test_narrower_scope_says_that_it_does_not_apply_and_counts_nowhere() -> None:
    outside = Rule(5, "Cites a source", 9.0, outside="only for prompts of the tag “news”")
    found = apply_here([outside, SORRY], ASKED, pair(A, B))
    assert [one.said for one in found.rows[0].findings] == ["n/a", "n/a"]
    assert "news" in found.rows[0].findings[0].reason
    assert to_ask([outside]) == []
    assert found.totals[0].not_applicable == 1
    assert found.outcome
    assert found.outcome.most == 0.5


def test_what_people_and_reward_models_know_comes_from_the_caller() -> None:
    person, reward = Rule(6, "Is kind", 1.0, "person"), Rule(7, "rm-3", 1.0, "reward-model")
    known = {(7, 0): Finding("yes", 0.9, None, "above 90 % of 10", "rm-3")}
    found = apply_here([person, reward], ASKED, pair(A, B), known=known)
    assert [one.reason for one in found.rows[0].findings] == ["a person has to say"] * 2
    assert found.rows[1].findings[0].said == "yes"
    assert found.totals[0].of == 1
    assert found.totals[1].unknown == 2
    # Known of one side only: it moves no sum, or that side would win by being looked at.
    assert found.outcome
    assert found.outcome.winner is None
    assert found.rows[1].difference is None


def test_pictures_are_nothing_that_a_program_reads() -> None:
    picture = Candidate("", Picture("00" * 32, "image/png", b""))
    found = apply_here([SHORT, SORRY], ASKED, [picture, picture])
    assert {one.said for row in found.rows for one in row.findings} == {""}
    assert "picture" in found.rows[0].findings[0].reason


def test_model_says_yes_or_no_with_a_reason_and_a_probability() -> None:
    known = {
        A: Known(0.0, checks={CITES.text: True, POLITE.text: None}),
        B: Known(0.0, checks={CITES.text: False, POLITE.text: True}),
    }
    with simulated(known=known, slip=0.0) as server:
        ended = tried(server, [CITES, POLITE, SHORT], A, B)
    found = ended.value
    cites, polite, _ = found.rows
    assert [one.said for one in cites.findings] == ["yes", "no"]
    assert cites.findings[0].probability > 0.9
    assert cites.findings[1].probability < 0.1
    assert cites.findings[0].reason.startswith("(Simulated.)")
    assert cites.findings[0].by == "sim"
    assert polite.findings[0].said == "n/a"
    assert polite.findings[0].probability < 0.1
    assert polite.findings[0].score == pytest.approx(0.5, abs=0.05)
    assert found.outcome.winner == "a"
    assert ended.counters.calls == 4  # two rules of the model on two responses
    assert found.as_json()["criteria"][0]["a"]["said"] == "yes"


def test_spent_budget_leaves_the_rest_unknown_and_says_why() -> None:
    with simulated() as server:
        ended = tried(server, [CITES, POLITE], A, B, budget=Budget(calls=1))
    found = ended.value
    said = [one for row in found.rows for one in row.findings]
    assert sum(one.error == "budget" for one in said) == 3
    assert any(one.said for one in said)
    assert {one.reason for one in said if one.error} == {"the run's budget is spent"}
    assert found.failures == {"budget": 3}


def test_call_that_fails_is_unknown_with_its_reason() -> None:
    async def call(request: Request) -> Any:
        raise CallFailed("connection")

    work = apply([CITES, SHORT], ASKED, pair(A, B), call=call, options=OPTIONS)
    found = asyncio.run(work)
    assert found.failures == {"connection": 2}
    assert found.rows[0].findings[0].reason == "the connection failed or broke"
    assert found.rows[1].findings[0].said == "yes"


def test_asking_for_reasons_is_another_question_and_not_asking_the_same_as_ever() -> None:
    one = Response(ASKED, Candidate(A))
    plain = request_of("Is kind", one, options=VerifyOptions(model="m"))
    reasoned = request_of("Is kind", one, options=VerifyOptions(model="m", reasons=True))
    assert plain.schema
    assert list(plain.schema["properties"]) == ["verdict"]
    assert reasoned.schema
    assert list(reasoned.schema["properties"]) == ["verdict", "reason"]
    assert plain.key("http://x") != reasoned.key("http://x")
    assert "reason" not in str(plain.messages[1].parts)


@pytest.mark.parametrize(
    ("key", "prompt", "text", "says"),
    [
        ("asked-sentences", "Say it in two sentences.", "One. Two. Three.", "3 sentences; exactly 2"),
        ("asked-bullets", "Give me at least 3 bullet points", "- a\n- b", "2 bullets; at least 3"),
        ("words", "Hi", "a b", "2 words"),
        ("list", "Hi", "- a\n- b", "2 bulleted lines, 0 numbered lines"),
        ("python-parses", "Hi", "```python\n1 +\n```", "0 of 1 block as Python"),
        ("asked-keywords", "Include the words 'sun', 'moon'.", "The sun", "1 of 2 keywords; lacks"),
        ("asked-without", "Do not use the word 'sun'.", "The sun", "has “sun”"),
        ("asked-letter", "The letter q should appear at least 3 times", "q", "“q” 1 time; at least 3"),
        ("asked-no-commas", "Write without commas.", "a, b", "1 comma"),
        ("same-language", "What is the weather like in the city today?",
         "Il fait très beau aujourd'hui dans toute la ville.", "prompt in en, answer in fr"),
        ("sources", "Hi", "See https://example.org/page for more.", "https://example.org"),
        ("hedging", "Hi", "Perhaps. Maybe. Yes.", "2 hedges in 3 sentences"),
        ("varied", "Hi", "a b c d e f", "100 %: different words"),
        ("table", "Hi", "no", "not found: a Markdown table"),
        ("asked-json", "Hi", "no", "the prompt does not ask for it"),
    ],
)  # fmt: skip
def test_program_says_what_it_saw(key: str, prompt: str, text: str, says: str) -> None:
    assert says in seen(key, [{"role": "user", "content": prompt}], text)


@given(prompt=TEXTS, text=TEXTS)
def test_reason_of_any_program_on_any_text_is_one_short_line(prompt: str, text: str) -> None:
    case = Case(Prompt([{"role": "user", "content": prompt}]), text)
    for key in PROGRAMS:
        reason = explain(key, case, compute(key, case))
        assert reason
        assert len(reason) < 600
        assert len(reason.splitlines()) == 1
