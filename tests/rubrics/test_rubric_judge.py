"""The judge that checks criteria one by one, and criteria as a model that compares is given them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rubrics.judging import conditioning
from rubrics.judging.conditioning import AGAINST, Condition
from rubrics.judging.rubric import RubricJudge
from rubrics.judging.rubric_options import RubricLine, RubricOptions
from rubrics.judging.types import Candidate, Decision, Item
from rubrics.llm.types import CallFailed, Picture, Request
from rubrics.simulated.dials import Dials
from rubrics.simulated.mind import Known
from tests.planted_world import CRITERIA, LENGTH, WEIGHTS, PlantedWorld, planted_world
from tests.rubrics.judging import InProcess, Scripted, item, judge, sections_of

PAIRS = 120
# What these people value is not what a simulated judge likes by itself.
ODD = {"heading": 1.0, "bold": 0.8, "hedge": 0.6, "code": 0.4, "citation": -0.7, "example": -0.3}
CITES, FLATTERS = CRITERIA["citation"], CRITERIA["flattery"]


def rubric(*criteria: Any, **options: Any) -> RubricJudge:
    return RubricJudge(RubricOptions(**{"models": ["m"], "criteria": criteria, **options}))


def verdicts(table: dict[tuple[str, str], Any]) -> Scripted:
    """Says yes, no or n/a by (criterion, answer); what is not in the table is a no."""

    def answer(request: Request) -> Any:
        found = sections_of(request)
        said = table.get((found["criterion"], found.get("answer", "")), "no")
        return {"verdict": said} if isinstance(said, str) else said

    return Scripted(answer)


def decided(of: Any, what: Item, call: Any) -> Decision:
    return asyncio.run(of.judge(what, call))


# Planted ----------------------------------------------------------------------------------------


@lru_cache
def world() -> PlantedWorld:
    return planted_world(PAIRS, seed=11)


@lru_cache
def odd_world() -> PlantedWorld:
    return planted_world(PAIRS, seed=12, weights=ODD)


def items(w: PlantedWorld, *, swapped: bool = False) -> list[Item]:
    made = []
    for at, pair in enumerate(w.pairs):
        sides = [Candidate(pair.first.text), Candidate(pair.second.text)]
        turns = ({"role": "user", "content": pair.prompt},)
        made.append(Item(at, "pairwise", turns, tuple(sides[::-1] if swapped else sides)))
    return made


def all_decided(of: Any, some: list[Item], call: Any) -> list[Decision]:
    async def main() -> list[Decision]:
        return [await of.judge(one, call) for one in some]

    return asyncio.run(main())


def accuracy(decisions: list[Decision], truth: np.ndarray[Any, Any]) -> float:
    """Strict: a tie is wrong."""
    assert not [one.error for one in decisions if one.error]
    ranks = np.array([one.ranks for one in decisions])
    return float(np.mean(np.sign(ranks[:, 1] - ranks[:, 0]) == np.sign(truth)))


def planted_lines() -> list[RubricLine]:
    return [RubricLine(text=CRITERIA[name], weight=weight) for name, weight in WEIGHTS.items()]


def test_weighted_criteria_recover_the_planted_order(record_property: Any) -> None:
    """Ceiling: verdicts without a slip; baselines: equal weights, share satisfied, the longer."""
    w = world()
    truth = w.differences
    careful = InProcess(Dials(slip=0.02))
    weighted = accuracy(all_decided(rubric(*planted_lines()), items(w), careful), truth)
    exact = InProcess(Dials(slip=0))
    ceiling = accuracy(all_decided(rubric(*planted_lines()), items(w), exact), truth)
    signs = [RubricLine(text=one.text, weight=one.sign) for one in planted_lines()]
    equal = accuracy(all_decided(rubric(*signs), items(w), careful), truth)
    share = accuracy(all_decided(rubric(*planted_lines(), total="share"), items(w), careful), truth)
    longer = float(np.mean(w.longer == np.sign(truth)))
    found = {"ceiling": ceiling, "weighted": weighted, "equal": equal, "share": share}
    record_property("accuracy", found | {"longer": longer})
    assert ceiling > 0.9, found
    assert ceiling >= weighted > 0.82, found
    assert weighted > equal > longer + 0.1, (found, longer)
    assert share > longer + 0.1, (found, longer)


def test_swapping_the_sides_changes_nothing_even_of_a_judge_that_leans_to_the_first() -> None:
    w = world()
    call = InProcess(Dials(position_bias=5.0))
    of = rubric(*planted_lines())
    straight = all_decided(of, items(w), call)
    turned = all_decided(of, items(w, swapped=True), call)
    for one, other in zip(straight, turned, strict=True):
        assert one.ranks is not None
        assert one.ranks == (other.ranks or ())[::-1]
        assert one.probability == pytest.approx(1 - (other.probability or 0))
        assert one.strength == other.strength
        assert one.is_consistent is None, "there is no order to be consistent in"


def test_criteria_that_name_the_planted_features_make_a_comparing_judge_better(
    record_property: Any,
) -> None:
    """Without: the judge's own taste. With wrong signs: worse than without."""
    w = odd_world()
    call = InProcess(Dials(noise=0.3))
    conditions = [Condition(CRITERIA[name], weight) for name, weight in ODD.items()]
    equal = [Condition(one.text, math.copysign(1, one.weight)) for one in conditions]
    against = [Condition(one.text, -one.weight) for one in conditions]
    found = {
        name: accuracy(all_decided(judge(criteria=lines), items(w), call), w.differences)
        for name, lines in {
            "without": [],
            "weighted": conditioning.lines(conditions),
            "equal": conditioning.lines(equal),
            "against": conditioning.lines(against),
        }.items()
    }
    record_property("accuracy", found)
    assert found["weighted"] > found["equal"] > found["without"] + 0.1, found
    assert found["against"] < found["without"], found


# One decision -----------------------------------------------------------------------------------


def test_plan_counts_the_calls_that_are_made_and_programs_make_none() -> None:
    of = rubric(CITES, f"-1 {FLATTERS}", "+1 Is short [answered]", models=["m", "n"])
    what = item("a", "b", "c", kind="ranking")
    call = verdicts({})
    assert of.plan(what) == 2 * 2 * 3
    decided(of, what, call)
    assert len(call.requests) == 12
    assert all("answer" in sections_of(one) for one in call.requests), "one answer at a time"
    free = RubricJudge(RubricOptions(criteria=["+1 Has no refusal [answered]"]))
    assert free.plan(what) == 0
    assert decided(free, what, call).ranks is not None
    assert len(call.requests) == 12


def test_rationale_names_what_told_the_answers_apart() -> None:
    of = rubric(f"+3 {CITES}", f"-1 {FLATTERS}", "+2 Is polite")
    call = verdicts({(CITES, "x"): "yes", (FLATTERS, "x"): "yes"})
    said = decided(of, item("x", "y"), call)
    assert said.ranks == (1, 2)
    assert json.dumps(asdict(replace(said, opinions=()))), "plain numbers only"
    assert said.probability == pytest.approx(1 / (1 + math.exp(-6 * 2 / 6)))
    first, second = said.rationale.splitlines()[1:3]
    assert first == f"“{CITES}”: yes, no → first answer +0.50"
    assert second == f"against an answer: “{FLATTERS}”: yes, no → second answer +0.17"
    assert "On 1 they are alike." in said.rationale
    scores = {(one.shown_order, one.repeat): one.scores for one in said.opinions}
    assert scores[(0,), 0] == {CITES: [1.0, None]}
    assert all(one.call_key for one in said.opinions[:-1])


def test_what_does_not_apply_speaks_for_neither_side() -> None:
    call = verdicts({(CITES, "x"): "n/a", (CITES, "y"): "yes", (FLATTERS, "y"): "yes"})
    of = rubric(CITES, f"-1 {FLATTERS}", not_applicable="missing")
    assert decided(of, item("x", "y"), call).ranks == (1, 2), "only flattery is known of both"
    half = rubric(CITES, not_applicable="half")
    assert decided(half, item("x", "y"), call).ranks == (2, 1)
    alone = decided(rubric(CITES, not_applicable="missing"), item("x", "x"), call)
    assert (alone.ranks, alone.error) == (None, "unsupported")


def test_ranking_rating_best_worst_and_checklist_by_their_totals_and_verdicts() -> None:
    table = {(CITES, "x"): "yes", (FLATTERS, "z"): "yes"}
    of = rubric(CITES, f"-1 {FLATTERS}")
    call = verdicts(table)
    assert decided(of, item("z", "y", "x", kind="ranking"), call).ranks == (3, 2, 1)
    assert decided(of, item("z", "y", "x", "y", kind="best-worst"), call).ranks == (3, 2, 1, 2)
    rated = decided(of, item("x", "z", kind="rating", attributes=("overall", "tone")), call)
    assert rated.ratings == {"overall": [4, 0], "tone": [None, None]}
    assert rated.ranks == (1, 2)
    named = decided(of, item("x", "z", kind="rating", attributes=("tone", CITES.upper())), call)
    assert named.ratings == {"tone": [None, None], CITES.upper(): [4, 0]}
    checked = decided(
        of, item("x", "z", kind="checklist", criteria=(CITES, "Rhymes"), failures=(FLATTERS,)), call
    )
    assert checked.ratings == {CITES: [1, 0], "Rhymes": [0, 0], FLATTERS: [0, 1]}
    assert checked.ranks == (1, 2)
    own = decided(of, item("x", "z", kind="checklist"), call)
    assert own.ratings == {CITES: [1, 0], FLATTERS: [0, 1]}


def test_line_of_a_checklist_that_does_not_apply_has_no_answer() -> None:
    call = verdicts({(CITES, "x"): "n/a", (CITES, "y"): "yes"})
    what = item("x", "y", kind="checklist", criteria=(CITES,))
    assert decided(rubric(CITES), what, call).ratings == {CITES: [None, 1]}
    free = RubricJudge(RubricOptions(criteria=["+1 Speaks [answered]"]))
    said = decided(free, item("x", "y", kind="checklist", criteria=(CITES, "speaks")), call)
    assert said.ratings == {CITES: [None, None], "speaks": [1, 1]}
    assert free.plan(what) == 0
    assert decided(free, what, call).error == "unsupported"


def test_pictures_are_asked_about_and_programs_say_nothing_of_them() -> None:
    pictures = [Picture(f"{n:064x}", "image/png", bytes([n])) for n in range(2)]
    what = Item(1, "pairwise", (), tuple(Candidate("", one) for one in pictures))

    def answer(request: Request) -> Any:
        shown = [part for m in request.messages for part in m.parts if isinstance(part, Picture)]
        return {"verdict": "yes" if shown == [pictures[1]] else "no"}

    call = Scripted(answer)
    of = rubric("Shows a cat", "+1 Is short [answered]")
    assert of.plan(what) == 2
    assert decided(of, what, call).ranks == (2, 1)
    free = RubricJudge(RubricOptions(criteria=["+1 Is short [answered]"]))
    assert "pictures alone" in decided(free, what, call).detail


def test_calls_that_fail() -> None:
    of = rubric(CITES, FLATTERS, "Is polite", repairs=0)
    what = item("x", "y")
    broken = verdicts({(CITES, "x"): CallFailed("timeout", "no answer in 1 s")})
    said = decided(of, what, broken)
    assert (said.ranks, said.error) == (None, "timeout")
    assert "1 of 6 calls failed: no answer in 1 s" in said.detail
    assert sum(one.error == "" for one in said.opinions) == 5, "what was answered is kept"
    silent = verdicts({(CITES, "x"): "perhaps", (FLATTERS, "x"): "yes"})
    said = decided(of, what, silent)
    assert said.ranks == (1, 2), "by the criteria that could be read of both"
    assert said.detail == "1 of 3 criteria could not be read and are left out."
    lost = [one for one in said.opinions if one.error]
    assert [(one.error, one.scores) for one in lost] == [("unreadable", None)]
    assert lost[0].call_key, "a later try knows which reply not to take again"
    mute = decided(of, what, Scripted(lambda request: "perhaps"))
    assert (mute.ranks, mute.error) == (None, "unreadable")


def test_budget_goes_through_with_its_own_words() -> None:
    with pytest.raises(CallFailed, match="3 calls are spent") as raised:
        decided(
            rubric(CITES, FLATTERS),
            item("x", "y"),
            Scripted(lambda request: CallFailed("budget", "3 calls are spent")),
        )
    assert raised.value.kind == "budget"


def test_jury_averages_and_a_member_that_cannot_be_read_is_left_out() -> None:
    def answer(request: Request) -> Any:
        is_x = sections_of(request)["answer"] == "x"
        if request.model == "c":
            return "?"
        return {"verdict": "yes" if is_x or request.model == "b" else "no"}

    of = rubric(CITES, models=["a", "b", "c"], repairs=0)
    said = decided(of, item("x", "y"), Scripted(answer))
    assert said.ranks == (1, 2)
    assert said.opinions[-1].scores == {"score": [1.0, 0.5]}


# Options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Cites a source", (1.0, "Cites a source", "")),
        ("- Cites a source", (1.0, "Cites a source", "")),
        ("-0.5 Flatters  the user", (-0.5, "Flatters the user", "")),
        ("+2e-1 3 examples", (0.2, "3 examples", "")),
        ("3 examples at least", (1.0, "3 examples at least", "")),
        ("+1 Is short [answered]", (1.0, "Is short", "answered")),
        ("[answered]", (1.0, "answered", "answered")),
        ("Says [sic]", (1.0, "Says [sic]", "")),
    ],
    ids=range(8),
)
def test_line_is_read_and_written(text: str, read: tuple[float, str, str]) -> None:
    line = RubricLine.model_validate(text)
    assert (line.weight, line.text, line.program) == read
    assert RubricLine.model_validate(str(line)) == line


@given(st.text(max_size=80))
def test_any_line_is_read_or_refused(text: str) -> None:
    try:
        line = RubricLine.model_validate(text)
    except ValidationError:
        return
    assert line.text
    assert math.isfinite(line.weight)


@pytest.mark.parametrize(
    "options",
    [
        {"criteria": [{"text": "x", "verifier": "program", "program": "no-such"}]},
        {"criteria": [{"text": "x", "verifier": "program"}]},
        {"criteria": [{"text": "x", "weight": math.nan}]},
        {"criteria": [{"text": "x" * 501}]},
        {"criteria": ["x", "X "]},
        {"criteria": ["+0 x"]},
        {"criteria": [str(n) for n in range(201)]},
        {"criteria": [{"text": "x", "verifier": "person"}]},
    ],
    ids=["program", "no-program", "nan", "long", "twice", "weightless", "many", "person"],
)
def test_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RubricOptions(**options)


def test_judge_without_criteria_or_without_the_model_they_need_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one criterion"):
        RubricJudge(RubricOptions(models=["m"]))
    with pytest.raises(ValueError, match="at least one model"):
        RubricJudge(RubricOptions(criteria=[CITES]))


# Criteria as lines of a prompt ------------------------------------------------------------------


def test_lines_say_what_weighs_most_and_what_speaks_against() -> None:
    assert conditioning.lines([Condition("A"), Condition("B", -1)]) == ["A", f"{AGAINST}B"]
    assert conditioning.lines(
        [Condition("A", 1), Condition("B", -2), Condition("C", 0), Condition("D", 1, "T")]
    ) == [f"{AGAINST}B (weight 50.0 %)", "A (weight 25.0 %)", "T: D (weight 25.0 %)"]
    assert conditioning.lines(
        [Condition("A", theme="T"), Condition("B"), Condition("C", theme="T")]
    ) == ["T: A", "T: C", "B"]
    assert conditioning.lines([]) == []


@given(
    st.lists(
        st.builds(
            Condition,
            st.from_regex(r"[A-Z][a-z]{1,9}( [a-z]{1,9}){0,3}", fullmatch=True),
            st.floats(-9, 9).filter(lambda weight: abs(weight) > 0.01),
        ),
        max_size=12,
    )
)
def test_lines_are_read_back(criteria: list[Condition]) -> None:
    read = [conditioning.read(line) for line in conditioning.lines(criteria)]
    assert sorted((text, sign) for text, sign, _ in read) == sorted(
        (one.text, int(math.copysign(1, one.weight))) for one in criteria
    )
    weights = [weight for _, _, weight in read]
    assert weights == sorted(weights, reverse=True) or set(weights) == {1.0}


def test_planted_world_has_no_feature_without_a_criterion() -> None:
    assert set(WEIGHTS) <= set(CRITERIA)
    assert LENGTH in WEIGHTS


# How the simulated mind honors criteria ---------------------------------------------------------


def test_criteria_that_name_nothing_that_shows_leave_the_mind_its_own_knowledge() -> None:
    """A distractor among plain lines costs it little; the distractor alone a lot."""
    w = planted_world(PAIRS, seed=13, weights=ODD)
    call = InProcess(Dials(noise=0.1), w.known)
    plain = ["Says what is right", "Meets the need", "Serves its reader"]
    found = {
        name: accuracy(all_decided(judge(criteria=lines), items(w), call), w.differences)
        for name, lines in {
            "none": [],
            "plain": plain,
            "mixed": [*plain, CRITERIA["exclamation"]],
            "alone": [CRITERIA["exclamation"]],
        }.items()
    }
    assert found["none"] > 0.9, found
    assert found["plain"] > 0.9, found
    assert found["mixed"] > found["alone"] + 0.1, found


@pytest.mark.parametrize("line", ["Wrong number", f"{AGAINST}Wrong number", "Right number"])
def test_fault_of_a_picture_speaks_against_it_however_it_is_said(line: str) -> None:
    pictures = [Picture(f"{n:064x}", "image/png", bytes([n])) for n in range(2)]
    known = {
        hashlib.sha256(one.data).hexdigest(): Known(
            0.0, checks={"Wrong number": bool(n)}, mended={"Wrong number": "Right number"}
        )
        for n, one in enumerate(pictures)
    }
    call = InProcess(Dials(noise=0, slip=0))
    call.known = known
    what = Item(1, "pairwise", (), tuple(Candidate("", one) for one in pictures))
    assert decided(judge(criteria=[line]), what, call).ranks == (1, 2)
