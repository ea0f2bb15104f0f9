"""AutoRubric-T2I: METHODS 1.3. Selection on planted scores; the whole over HTTP, text and pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from rubrics.generators.autorubric import AutoRubricGenerator, rubric_reward, spread_out
from rubrics.generators.autorubric_options import AutoRubricOptions
from rubrics.generators.types import Generated, PreferencePair, Silent
from rubrics.judging.sections import read_sections
from rubrics.llm.budget import Budget
from rubrics.llm.memory import MemoryLedger
from rubrics.llm.types import Request
from rubrics.refinement import Settings, refine
from rubrics.simulated.features import named_in
from rubrics.simulated.mind import Known
from tests.planted_world import planted_world
from tests.rubrics.asked_over_http import Ended, over_http
from tests.rubrics.generators import Killed, Watching, pair, picture, texts
from tests.rubrics.judging import Scripted, reply, text_of
from tests.simulated import simulated

WEIGHTS = {"citation": 1.0, "example": 0.9, "steps": 0.8, "hedge": -0.8, "flattery": -0.7}
PLANTED = np.array([2.0, 1.7, 1.4, 1.1, 0.8])
Report = Callable[[str, str], None]


@lru_cache
def pairs_of(n: int, *, seed: int = 2, weights: Any = None) -> tuple[PreferencePair, ...]:
    """Pairs of a planted world, preferred by utility with logistic noise of a third."""
    world = planted_world(n, seed=seed, weights=dict(weights) if weights else WEIGHTS)
    rng = np.random.default_rng(seed)
    made = []
    for at, one in enumerate(world.pairs):
        first = one.difference + rng.logistic(scale=0.2) > 0
        sides = (one.first.text, one.second.text)
        made.append(pair(at, *(sides if first else sides[::-1])))
    return tuple(made)


def induce(
    server: Any,
    pairs: Any,
    *,
    journal: Any = None,
    ledger: MemoryLedger | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> Ended[Generated]:
    how = {"model": "sim", "bootstraps": 20, "rounds": 0, **options}
    of = AutoRubricGenerator(AutoRubricOptions(**how))
    return over_http(
        server,
        lambda call: of.generate(pairs, call=call, journal=journal or Silent()),
        ledger=ledger,
        budget=budget,
    )


def planted_scores(n: int, seed: int) -> tuple[Any, Any]:
    """METHODS 1.3: 40 uniform candidates, 5 planted, one an 80 % copy; Bradley–Terry labels."""
    rng = np.random.default_rng(seed)
    scores = rng.random((n, 2, 40))
    scores[:, :, 5] = np.where(rng.random((n, 2)) < 0.8, scores[:, :, 0], scores[:, :, 5])
    differences = scores[:, 0] - scores[:, 1]
    return differences, rng.logistic(size=n) < 3 * differences[:, :5] @ PLANTED


@pytest.mark.parametrize(("n", "recall"), [(64, 0.5), (256, 0.9)])
def test_selection_finds_planted_criteria(
    n: int, recall: float, record_testsuite_property: Report
) -> None:
    found, clean, equal = [], [], []
    fresh, _ = planted_scores(2000, 99)
    truth = np.sign(fresh[:, :5] @ PLANTED)
    for seed in range(5):
        differences, wins = planted_scores(n, seed)
        refined = refine(
            differences,
            groups=np.arange(n),
            first_wins=wins,
            settings=Settings(cs=(0.2,), bootstraps=0),
        )
        found.append(len(set(refined.chosen[:5]) & set(range(5))) / 5)
        clean.append(float((np.sign(refined.margins(fresh)) == truth).mean()))
        equal.append(float((np.sign(fresh.sum(axis=1)) == truth).mean()))
    figures = {
        "top-5 recall": float(np.mean(found)),
        "accuracy": float(np.mean(clean)),
        "equal weights": float(np.mean(equal)),
        "oracle": 1.0,
    }
    record_testsuite_property(f"AutoRubric: selection at n = {n}", json.dumps(figures))
    assert figures["top-5 recall"] >= recall
    assert figures["accuracy"] > figures["equal weights"] + 0.1


def test_swapped_sides_leave_weights_unchanged() -> None:
    differences, wins = planted_scores(128, 1)
    turned = np.random.default_rng(0).random(128) < 0.5
    settings = Settings(cs=(0.2,), bootstraps=0)
    one = refine(differences, groups=np.arange(128), first_wins=wins, settings=settings)
    swapped = np.where(turned[:, None], -differences, differences)
    two = refine(swapped, groups=np.arange(128), first_wins=wins != turned, settings=settings)
    assert one.weights.tolist() == two.weights.tolist()
    assert one.weights.any()


@pytest.fixture(scope="module")
def induced() -> Iterator[Ended[Generated]]:
    with simulated(slip=0.02) as server:
        yield induce(server, pairs_of(60), most_candidates=10)


def test_whole_finds_planted_criteria_with_their_signs(
    induced: Ended[Generated], record_testsuite_property: Report
) -> None:
    generated = induced.value
    strongest = [(named_in(one.text), one.weight) for one in generated.criteria[:5]]
    hits = 0
    for named, weight in strongest:
        ((name, sign),) = named.items()
        hits += name in WEIGHTS and np.sign(weight * sign) == np.sign(WEIGHTS[name])
    held = generated.figures["held_out"]
    longer = held["baselines"]["longer wins"]
    record_testsuite_property(
        "AutoRubric over HTTP",
        f"{hits} of 5 strongest are planted; held out {held['accuracy']:.2f} {held['interval']} "
        f"(longer wins {longer['accuracy']:.2f}) on {held['n']}",
    )
    assert hits >= 4
    assert held["n"] == 12
    assert held["accuracy"] > longer["accuracy"]
    for criterion in generated.criteria:
        assert criterion.polarity == np.sign(criterion.weight)
        figures = criterion.figures
        assert 0 <= figures["coverage"] == figures["decisive"] / figures["verified"] <= 1
        assert {one.role for one in criterion.evidence} <= {"source", "check"}


def test_calls_are_counted(induced: Ended[Generated]) -> None:
    figures = induced.value.figures
    learn, choose, test = 36, 12, 12
    scored = figures["rounds"][0]["scored"]
    chosen = figures["rounds"][0]["chosen"]
    assert figures["pairs"] == learn
    asked = 2 * learn + 1 + 2 * (learn + choose) * scored + 2 * test * chosen
    assert figures["calls"] == asked == induced.counters.calls + induced.counters.cached
    assert figures["calls_per_pair"] == pytest.approx(asked / learn)
    assert figures["rounds"][0]["choosing"]["n"] == choose


def test_hard_rounds_find_what_the_first_one_lacked(record_testsuite_property: Report) -> None:
    """One criterion a pair: traces name what stands first in a mind, hard pairs what is left."""
    weights = (("steps", 1.0), ("polite", 0.9), ("citation", 0.3))
    pairs = pairs_of(50, seed=4, weights=weights)
    how = {"rules_per_pair": 1, "most_candidates": 8, "bootstraps": 0}
    with simulated(slip=0.0) as server:
        ended = induce(server, pairs, rounds=2, hard_pairs=12, **how)
    rounds = ended.value.figures["rounds"]
    accuracy = [one["choosing"]["accuracy"] for one in rounds]
    record_testsuite_property("AutoRubric: rounds, choosing accuracy", json.dumps(accuracy))
    assert len(rounds) > 1
    assert ended.value.figures["best_round"] == int(np.argmax(accuracy))
    assert max(accuracy) > accuracy[0]
    named = [name for text in texts(ended.value) for name in named_in(text)]
    assert {"steps", "polite"} & set(named), "which no trace of one criterion a pair came to"


def test_round_is_kept_by_what_it_was_not_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A criterion that fits the learning pairs by chance, and is wrong elsewhere, is not kept."""
    pairs = [pair(at, f"good text {at}", f"bad text {at}") for at in range(40)]
    of = AutoRubricGenerator(AutoRubricOptions(model="m", rounds=1, bootstraps=0, hard_margin=100))
    learn = {one.chosen.text for one in of.split(pairs).learn}
    fair = {f"good text {at}" for at in range(40) if at % 4}

    def answer(request: Request) -> Any:
        title = (request.schema or {}).get("title")
        sections = read_sections(text_of(request))
        if title is None:
            return "because"
        if title == "extract-rules":
            return {"rules": [{"rule": "Fair", "quote": "because"}]}
        if title == "propose-rules":
            return {"rules": [{"rule": "Overfitted", "quote": ""}]}
        met = sections["answer"] in (fair if sections["criterion"] == "Fair." else learn)
        if sections["criterion"] == "Overfitted." and sections["answer"].startswith("bad"):
            number = sections["answer"].removeprefix("bad text ")
            met = f"good text {number}" not in learn
        return {"verdict": "yes" if met else "no"}

    generated = asyncio.run(of.generate(pairs, call=Scripted(answer), journal=Silent()))
    first, second = (one["choosing"]["accuracy"] for one in generated.figures["rounds"])
    assert first > second
    assert generated.figures["best_round"] == 0
    assert texts(generated) == ["Fair."]


def test_rerun_is_free_and_the_same() -> None:
    ledger = MemoryLedger()
    with simulated() as server:
        one, two = (
            induce(server, pairs_of(12), ledger=ledger, rounds=1, most_candidates=6)
            for _ in range(2)
        )
    assert one.value.figures == two.value.figures
    assert one.value == two.value
    assert two.counters.calls == 0


@pytest.mark.parametrize("checks", [5, 60])
def test_killed_and_run_again_is_the_same(checks: int) -> None:
    ledger, undisturbed = MemoryLedger(), MemoryLedger()
    how: dict[str, Any] = {"rounds": 1, "most_candidates": 5}
    with simulated() as server:
        whole = induce(server, pairs_of(12), ledger=undisturbed, **how)
        with pytest.raises(Killed):
            induce(server, pairs_of(12), ledger=ledger, journal=Watching(checks=checks), **how)
        again = induce(server, pairs_of(12), ledger=ledger, **how)
    assert again.value == whole.value
    assert again.counters.cached > 0
    assert len(ledger.replies) == len(undisturbed.replies)


def test_budget_before_scores_keeps_candidates() -> None:
    with simulated() as server:
        ended = induce(server, pairs_of(20), budget=Budget(calls=30))
    generated = ended.value
    assert (generated.stopped, ended.counters.calls) == ("budget", 30)
    assert generated.criteria
    assert all(one.weight is None for one in generated.criteria)
    assert generated.figures["held_out"] is None
    assert generated.figures["verify_failures"]["budget"] > 0


def test_budget_in_a_round_keeps_the_round_before() -> None:
    how: dict[str, Any] = {"rules_per_pair": 2, "hard_margin": 100, "bootstraps": 0}
    ledger = MemoryLedger()
    with simulated() as server:
        first = induce(server, pairs_of(16), ledger=ledger, rounds=0, **how)
        ended = induce(
            server, pairs_of(16), ledger=ledger, rounds=1, budget=Budget(calls=20), **how
        )
    generated = ended.value
    assert generated.stopped == "budget"
    assert generated.figures["best_round"] == 0
    assert len(generated.figures["rounds"]) == 1
    assert texts(generated) == texts(first.value)
    assert [one.weight for one in generated.criteria] == [
        one.weight for one in first.value.criteria
    ]
    assert generated.figures["held_out"] == first.value.figures["held_out"], "paid for already"


def test_pictures_are_scored() -> None:
    rng = np.random.default_rng(3)
    lines = [
        "Five fingers on each hand.",
        "The text is legible.",
        "The sky is blue.",
        "A dog is there.",
    ]
    known, pairs = {}, []
    for at in range(30):
        met = rng.random((2, 4)) < 0.5
        utility = met[:, :2].astype(float) @ np.array([2.0, 1.0])
        if utility[0] < utility[1] or (utility[0] == utility[1] and rng.random() < 0.5):
            met = met[::-1]
        both = (picture(2 * at), picture(2 * at + 1))
        for one, row in zip(both, met, strict=True):
            known[one.digest] = Known(0, checks=dict(zip(lines, map(bool, row), strict=True)))
        pairs.append(pair(at, *both))
    with simulated(known=known, slip=0) as server:
        ended = induce(server, pairs)
    assert set(texts(ended.value)[:2]) == set(lines[:2])
    weights = [one.weight for one in ended.value.criteria[:2]]
    assert all(weight is not None and weight > 0 for weight in weights)
    assert ended.value.figures["held_out"]["accuracy"] > 0.5


def test_malformed_replies_are_counted_and_the_rest_goes_on() -> None:
    with simulated(malformed=0.15, refusal=0.05) as server:
        ended = induce(server, pairs_of(24), most_candidates=6, repairs=0)
    generated = ended.value
    assert generated.dropped["unreadable"] > 0
    assert generated.figures["verify_failures"]["unreadable"] > 0
    assert any(one.weight for one in generated.criteria)


def test_answers_that_nothing_tells_apart_give_candidates_without_weights() -> None:
    def answer(request: Request) -> Any:
        title = (request.schema or {}).get("title")
        if title is None:
            return "because"
        if title == "extract-rules":
            return {"rules": [{"rule": "Says something", "quote": ""}]}
        return reply(request, {"verdict": "yes"})

    of = AutoRubricGenerator(AutoRubricOptions(model="m"))
    generated = asyncio.run(of.generate(pairs_of(12), call=Scripted(answer), journal=Silent()))
    assert texts(generated) == ["Says something."]
    assert generated.criteria[0].weight is None
    assert generated.stopped == ""


def test_no_prompt_is_on_two_sides() -> None:
    pairs = [replace(one, group=one.id // 3) for one in pairs_of(60)]
    split = AutoRubricGenerator(AutoRubricOptions(model="m")).split(pairs)
    groups = [{one.group for one in part} for part in (split.learn, split.choose, split.test)]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 20
    assert all(groups)


def test_needs_a_model_and_four_prompts() -> None:
    few = [replace(one, group=one.id % 3) for one in pairs_of(12)]
    with simulated() as server, pytest.raises(ValueError, match="at least 4 prompts"):
        induce(server, few)
    of = AutoRubricGenerator(AutoRubricOptions())
    with pytest.raises(ValueError, match="endpoint"):
        asyncio.run(of.generate(pairs_of(12), call=Scripted(lambda r: ""), journal=Silent()))


def test_strong_pairs_of_many_prompts_come_first() -> None:
    pairs = [
        pair(at, "a", "b", group=group, strength=strength)
        for at, (group, strength) in enumerate([(1, 1), (1, 3), (1, 2), (2, 1), (3, 3)])
    ]
    assert [one.id for one in spread_out(pairs)] == [1, 4, 3, 2, 0]


def test_reward_keeps_signs() -> None:
    assert rubric_reward([[1, 1], [0, np.nan]], [2.0, -1.0]).tolist() == [1.0, -0.5]
    with pytest.raises(ValueError, match="do not fit"):
        rubric_reward([[1, 1]], [1.0])
