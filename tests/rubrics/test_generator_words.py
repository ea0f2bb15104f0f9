"""Criteria as people read them: whole sentences, each said once, and few that differ."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubrics.asking import as_sentence
from rubrics.generators.diverse import LIKE, different, places
from rubrics.generators.program_options import ProgramGeneratorOptions
from rubrics.generators.rules import fit_rule
from rubrics.simulated.features import named_in
from rubrics.simulated.mind import Known
from rubrics.simulated.rules import AVOIDED, WANTED


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("cites a source", "Cites a source."),
        ("Is it so?", "Is it so?"),
        ("Says “no.”", "Says “no.”"),
        ("ends in a colon:", "Ends in a colon."),
        ("  ", ""),
    ],
)
def test_criteria_are_sentences(said: str, text: str) -> None:
    assert as_sentence(said) == text


@pytest.mark.parametrize("mark", ["- ", "– ", "— ", "* ", "• ", "1. ", "(2) ", "-"])
def test_bullets_are_no_part_of_a_rule(mark: str) -> None:
    assert fit_rule(f"{mark}cites a source", Counter()) == "Cites a source."


@given(st.text(max_size=40))
def test_a_sentence_stays_one(text: str) -> None:
    once = as_sentence(text)
    assert as_sentence(once) == once


@pytest.mark.parametrize("name", sorted(WANTED))
def test_every_wording_of_the_simulated_author_asks_for_its_feature_alone(name: str) -> None:
    for table, sign in ((WANTED, 1), (AVOIDED, -1)):
        for line in table[name]:
            assert named_in(f"{line}.") == {name: sign}, line


def test_what_finds_fault_is_known_as_a_criterion_too() -> None:
    known = Known(
        0.0, checks={"Wrong number": True, "Text": None}, mended={"Wrong number": "Right."}
    )
    assert known.criteria == {"Right.": False, "Text": None}
    assert known.lines == {"wrong number": True, "right": False, "text": None}
    assert known.faults == {"wrong number"}


def test_few_that_differ_cover_the_themes() -> None:
    themes = ("Cites a source", "Is polite to the user", "Shows code", "Uses a numbered list")
    ways = ("{}.", "{} throughout.", "{} where it helps.", "{} as asked.")
    texts = [way.format(theme) for way in ways for theme in themes]
    dropped: Counter[str] = Counter()
    kept = different(texts, 4, text=str, dropped=dropped)
    assert {theme for theme in themes for one in kept if one.startswith(theme)} == set(themes)
    assert dropped[LIKE] == len(texts) - 4
    assert places(texts, 0) == list(range(len(texts)))
    assert ProgramGeneratorOptions(different=3).different == 3
