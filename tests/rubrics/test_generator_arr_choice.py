"""ARR: people's reasons before the model, and the subset of criteria that is right together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rubrics.generators.arr_subset import best_subset
from rubrics.generators.types import Rationale
from rubrics.llm.types import CallFailed, Reply, Request
from rubrics.simulated.features import features_of, named_in
from tests.planted_world import CRITERIA
from tests.rubrics.arr import WEIGHTS, generate, labeled, names_planted, simulated_mind
from tests.rubrics.judging import sections_of, text_of

PAIRS = labeled(40)


class Kept:
    """A Call that keeps what was asked."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        found: Reply = await self.call(request)
        return found


def title(request: Request) -> str:
    return str((request.schema or {}).get("title"))


def of(kept: Kept, *titles: str) -> list[dict[str, str]]:
    return [dict(sections_of(one)) for one in kept.requests if title(one) in titles]


def test_people_s_reasons_are_shown_to_who_proposes_and_to_no_judge() -> None:
    said = (Rationale("It hedges,\nas it should.", rater=1), Rationale(" ", rater=2))
    pairs = [replace(pair, rationales=said) for pair in PAIRS[:12]]
    kept = Kept(simulated_mind())
    result = generate(pairs, kept, held_out=0)
    for sections in of(kept, "arr-propose", "arr-refine"):
        assert sections["reasons"] == "- It hedges, as it should."
    assert not any("reasons" in sections for sections in of(kept, "pairwise", "arr-structure"))
    asked = [text_of(one) for one in kept.requests if title(one) == "arr-propose"]
    assert all("Criteria that say what they say come first" in text for text in asked)
    assert result.figures["pairs_with_reasons"] == len(pairs)
    silent = Kept(simulated_mind())
    hushed = generate(pairs, silent, held_out=0, rationales=False)
    assert not any("reasons" in one for one in of(silent, "arr-propose", "arr-refine"))
    assert not any("what people wrote" in text_of(one) for one in silent.requests)
    proposed = hushed.figures["criteria"]["proposed"]
    assert proposed > 0


def test_reasons_make_proposals_right_more_often(
    record_testsuite_property: Callable[[str, str], None],
) -> None:
    """A model that guesses right for one pair in five names what people wrote when it is shown."""
    pairs = []
    for pair in PAIRS:
        good, bad = (features_of(one.text) for one in (pair.chosen, pair.rejected))
        names = [name for name in WEIGHTS if good[name] > bad[name]]
        why = tuple(Rationale(f"{CRITERIA[name]}, that is what I look for.") for name in names)
        pairs.append(replace(pair, rationales=why[:1]))
    shares = {}
    for shown in (False, True):
        kept = Kept(simulated_mind(proposal=0.2))
        result = generate(pairs, kept, held_out=0, max_rounds=0, rationales=shown)
        shares[shown] = result.figures["pairs"]["share"]
        assert {named for one in result.criteria for named in named_in(one.text)} & set(WEIGHTS)
    told = f"explained {shares[False]:.2f} without reasons, {shares[True]:.2f} with them"
    record_testsuite_property("ARR: people's reasons", told)
    assert shares[True] > shares[False] + 0.1


def test_subset_is_built_of_what_makes_most_right_together() -> None:
    """Two criteria right on halves beat three that are right on the same third."""
    sides = np.zeros((12, 5))
    sides[:6, 0], sides[6:, 1] = 1, 1
    sides[:4, 2:5] = 1
    found = best_subset(sides, limit=5, patience=2)
    assert set(found.picked) == {0, 1}
    assert found.right == (6, 12)
    assert best_subset(sides, limit=1, patience=1).right == (6,)
    assert best_subset(-sides, limit=5, patience=1).picked, "one is kept, wrong or not"
    with pytest.raises(ValueError, match="subset needs"):
        best_subset(np.zeros((3, 0)), limit=1, patience=1)


def test_best_subset_keeps_planted_criteria_and_says_how_often_it_is_right() -> None:
    kept = Kept(simulated_mind())
    whole = generate(PAIRS, simulated_mind(), max_criteria=30)
    some = generate(PAIRS, kept, selection="best-subset", max_criteria=30)
    assert 1 <= len(some.criteria) < len(whole.criteria)
    assert all(names_planted(one.text) for one in some.criteria[:2])
    subset = some.figures["subset"]
    assert subset["right"] == sorted(subset["right"])
    assert subset["picked"] == len(some.criteria)
    assert some.figures["calls"]["select"] == 2 * subset["pairs"] * (len(whole.criteria)), (
        "both orders of every criterion"
    )
    assert some.dropped["not-in-subset"] > 0
    gaps = some.figures["positional_gap"]
    assert gaps["before"]["n"] == gaps["after"]["n"] == some.figures["held_out"]["pairs"]


def test_spent_budget_while_selecting_keeps_all_that_was_accepted() -> None:
    mind = simulated_mind()
    asked = []

    async def call(request: Request) -> Reply:
        asked.append(title(request))
        if "arr-structure" in asked[:-1]:  # what comes after is the selection
            raise CallFailed("budget")
        return await mind(request)

    result = generate(PAIRS, call, selection="best-subset")
    assert result.stopped == "budget"
    assert len(result.criteria) > 1
