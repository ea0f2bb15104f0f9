"""The judge that is code: what it decides, why it says so, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rubrics.judging import JUDGES
from rubrics.judging.types import Candidate, Decision, Item
from rubrics.llm.types import Picture
from rubrics.programs import PROGRAMS
from rubrics.programs.judge import ProgramJudge
from rubrics.programs.options import DEFAULT, ProgramOptions

ASKED = "Explain tides in two sentences."
GOOD = "The moon pulls the water. So it rises twice a day."
REFUSED = "I can't help with that. Ask somebody else."


def item(*texts: str, prompt: str = ASKED, kind: Any = "pairwise", **more: Any) -> Item:
    return Item(
        id=1,
        kind=kind,
        messages=[{"role": "user", "content": prompt}],
        candidates=tuple(map(Candidate, texts)),
        **more,
    )


def decide(given: Item, **options: Any) -> Decision:
    return ProgramJudge(ProgramOptions(**options)).judge([given])[0]


def test_judge_prefers_the_answer_that_meets_more_criteria() -> None:
    said = decide(item(REFUSED, GOOD))
    assert said.ranks == (2, 1)
    assert said.probability is not None
    assert said.probability < 0.5
    assert said.confidence == pytest.approx(1 - said.probability)
    assert "not “Refuses”: answer 1 0, answer 2 1" in said.rationale
    assert said.is_consistent is None
    opinion = said.opinions[0]
    assert opinion.shown_order == (0, 1)
    assert opinion.scores is not None
    assert opinion.scores["refusal"] == [1.0, 0.0]
    assert opinion.scores["asked-words"] == [None, None]


def test_equal_answers_tie() -> None:
    said = decide(item(GOOD, GOOD))
    assert (said.ranks, said.strength) == ((1, 1), 0)
    assert said.probability == said.confidence == 0.5
    assert "criteria are equal" in said.rationale


def test_polarity_and_weights_turn_a_verdict() -> None:
    texts = ("short", "a much longer answer than that")
    assert decide(item(*texts), criteria=["words"]).ranks == (2, 1)
    assert decide(item(*texts), criteria=["-words"]).ranks == (1, 2)
    bold = ("**yes**", "no!")
    assert decide(item(*bold), criteria=["bold", "exclamations"], weights=[2, 1]).ranks == (1, 2)
    assert decide(item(*bold), criteria=["bold", "exclamations"], weights=[1, 2]).ranks == (2, 1)


def test_lists_are_ranked_with_ties_within_the_band() -> None:
    said = decide(item(REFUSED, GOOD, GOOD, "", kind="ranking"))
    assert said.ranks is not None
    assert said.ranks[1] == said.ranks[2] == 1
    assert min(said.ranks[0], said.ranks[3]) > 1
    assert said.probability is None
    wide = decide(item(REFUSED, GOOD, kind="ranking"), tie_band=0.99)
    assert wide.ranks == (1, 1)


def test_wider_gaps_are_stronger() -> None:
    texts = (GOOD, REFUSED)
    assert decide(item(*texts), criteria=["-refusal"]).strength == 3
    assert decide(item(*texts)).strength == 1
    sure, less = decide(item(*texts), criteria=["-refusal"]), decide(item(*texts))
    assert sure.confidence is not None
    assert less.confidence is not None
    assert sure.confidence > less.confidence


def test_where_nothing_applies_the_judge_refuses_with_a_reason() -> None:
    said = decide(item(GOOD, REFUSED), criteria=["asked-json"])
    assert (said.ranks, said.error) == (None, "unsupported")
    assert "None of the criteria applies" in said.detail
    assert said.opinions[0].error == "unsupported"
    picture = Picture("00", "image/png", b"x")
    shown = Item(1, "pairwise", [], (Candidate("", picture), Candidate(GOOD)))
    assert decide(shown).error == "unsupported"


def test_checklist_lines_that_are_programs_are_answered_and_others_left_open() -> None:
    given = item(
        GOOD,
        REFUSED,
        kind="checklist",
        criteria=("Has as many sentences as asked", "Is polite", "-refusal", "asked-json"),
        failures=("Refuses",),
    )
    said = decide(given)
    assert said.ratings == {
        "Has as many sentences as asked": [1, 1],
        "Is polite": [None, None],
        "-refusal": [1, 0],
        "asked-json": [None, None],
        "Refuses": [0, 1],
    }
    assert said.ranks == (1, 2)
    assert "4 of 5 lines" in said.rationale


def test_checklist_without_any_program_is_unsupported() -> None:
    said = decide(item(GOOD, kind="checklist", criteria=("Is polite",)))
    assert said.error == "unsupported"
    assert "checklist" in said.detail


def test_rating_attributes_that_are_programs_are_put_on_the_scale() -> None:
    given = item(GOOD, REFUSED, kind="rating", attributes=("helpfulness", "-refusal"), high=4)
    said = decide(given)
    assert said.ratings == {"helpfulness": [None, None], "-refusal": [4, 0]}
    assert decide(item(GOOD, kind="rating", attributes=("helpfulness",))).error == "unsupported"


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=2, max_size=4), band=st.floats(0, 0.5))
def test_order_of_the_answers_does_not_matter(texts: list[str], band: float) -> None:
    one = decide(item(*texts, kind="ranking"), tie_band=band)
    other = decide(item(*texts[::-1], kind="ranking"), tie_band=band)
    assert one.ranks is not None
    assert other.ranks is not None
    assert one.ranks == other.ranks[::-1]
    assert one.confidence == pytest.approx(other.confidence)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"criteria": ["no-such"]}, "there is no program"),
        ({"criteria": ["refusal", "-refusal"]}, "there twice"),
        ({"criteria": []}, "at least 1"),
        ({"criteria": ["words"], "weights": [1, 2]}, "as many as criteria"),
        ({"criteria": ["words"], "weights": [float("nan")]}, "above 0"),
        ({"criteria": ["words"], "weights": [0]}, "above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ProgramOptions(**options)


def test_options_take_labels_and_keep_keys() -> None:
    assert ProgramOptions(criteria=["Refuses", "not: Swears"]).criteria == ["refusal", "-profanity"]
    assert {one.removeprefix("-") for one in DEFAULT} <= set(PROGRAMS)
    assert ProgramOptions().criteria == list(DEFAULT)


def test_table_of_judges_names_this_one() -> None:
    method = JUDGES["program"]
    assert method.load() is ProgramJudge
    assert method.load_options() is ProgramOptions
