"""Judges of planted biases and principles: METHODS 2.1 through the judge, 1.5 over HTTP.

Every figure stands beside its honest baseline, one order of the same judge, and its ceiling, the
same judge without the bias. They are in the report of the tests as properties.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from models.position import consistency, first_slot_share, slot_bias, slot_bias_gaussian
from rubrics.judging.types import Candidate, Decision, Item
from rubrics.llm.caller import Caller
from rubrics.llm.client import Client, Server
from rubrics.llm.memory import MemoryLedger, MemoryLimiter
from rubrics.simulated.dials import Dials
from tests.rubrics.judging import PROMPT, InProcess, judge
from tests.simulated import SimulatedServer, simulated

SEEDS = 20
PAIRS = 60
Report = Callable[[str, str], None]
# As in tests/models/test_position.py: single-order accuracy, first-slot wins, consistency,
# accuracy of what is consistent.
TABLE = {0.0: (0.805, 0.49, 0.73, 0.917), 0.5: (0.770, 0.66, 0.62, 0.934), 1.5: (0.604, 0.89, 0.22, 0.989)}  # fmt: skip


@lru_cache
def world(seed: int) -> tuple[tuple[Item, ...], np.ndarray[Any, Any], dict[str, float]]:
    """Pairs whose Gaussian utilities differ by one, the truth, and what the judge knows."""
    rng = np.random.default_rng(seed)
    utility = rng.normal(scale=np.sqrt(0.5), size=(PAIRS, 2))
    texts = [[f"answer {seed}-{at}-{side}" for side in "xy"] for at in range(PAIRS)]
    items = tuple(
        Item(at, "pairwise", PROMPT, (Candidate(x), Candidate(y)), allow_tie=False)
        for at, (x, y) in enumerate(texts)
    )
    known = dict(zip(np.ravel(texts).tolist(), np.ravel(utility).tolist(), strict=True))
    return items, np.sign(utility[:, 0] - utility[:, 1]), known


def judged(seed: int, *, bias: float, **options: Any) -> list[Decision]:
    items, _, known = world(seed)
    call = InProcess(Dials(position_bias=bias, tie_margin=0), known, seed=seed)
    of = judge(**options)

    async def main() -> list[Decision]:
        return [await of.judge(item, call) for item in items]

    return asyncio.run(main())


def sides(decisions: list[Decision]) -> np.ndarray[Any, Any]:
    """+1 where the first is better, -1, 0 for a tie."""
    ranks = np.array([decision.ranks for decision in decisions])
    return np.sign(ranks[:, 1] - ranks[:, 0])


def as_rows(decisions: list[Decision], at: int = 0) -> tuple[Any, Any, Any]:
    """Opinions as rows of models.position; items from 2 * at."""
    rows = []
    for number, decision in enumerate(decisions, start=at):
        for one in decision.opinions:
            assert one.ranks is not None
            first, second = one.shown_order
            rows.append(
                (2 * number + first, 2 * number + second, one.ranks[second] - one.ranks[first])
            )
    a, b, outcome = np.array(rows).T
    return a, b, outcome


@lru_cache
def agreed(bias: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], tuple[Any, Any, Any]]:
    """Agree-only verdicts and truth of all seeds, and every single answer as a row."""
    said, truth, rows = [], [], []
    for seed in range(SEEDS):
        decisions = judged(seed, bias=bias, combine="agree-only")
        said.append(sides(decisions))
        truth.append(world(seed)[1])
        rows.append(as_rows(decisions, at=seed * PAIRS))
    joined = tuple(np.concatenate(column) for column in zip(*rows, strict=True))
    return np.array(said), np.array(truth), (joined[0], joined[1], joined[2])


@pytest.mark.parametrize("bias", TABLE)
def test_judge_with_a_planted_bias_shows_the_figures_of_the_table(
    bias: float, record_property: Report
) -> None:
    said, truth, (first, second, outcome) = agreed(bias)
    true_side = np.where(first < second, 1, -1) * truth.ravel()[first // 2]
    single = float(np.mean(outcome == true_side))
    share, same = first_slot_share(outcome, first // 2), consistency(first, second, outcome)
    assert share is not None
    assert same is not None
    kept = said != 0
    correct = float((said == truth)[kept].mean())
    seen = (single, share.accuracy, same.accuracy, correct)
    record_property("one order, first slot, coverage of agree-only, agree-only", str(seen))
    assert np.abs(np.array(seen) - TABLE[bias]).max() < 0.04, "1,200 pairs: three standard errors"
    assert kept.mean() == pytest.approx(same.accuracy), "coverage is the consistency"
    assert single + 0.05 < correct < 1


@pytest.mark.parametrize("bias", TABLE)
def test_planted_bias_is_recovered_from_the_answers(bias: float, record_property: Report) -> None:
    """1,200 pairs: the estimate may be off by its own error where that is over .1."""
    rows = agreed(bias)[2]
    found = slot_bias_gaussian(*rows)
    assert found is not None
    record_property("bias planted, found, error", str((bias, found.b, found.standard_error)))
    assert abs(found.b - bias) < max(0.1, 2.6 * found.standard_error)
    odds = slot_bias(*rows)
    assert odds is not None
    assert (odds.interval[0] > 0) == (bias > 0)


@pytest.mark.parametrize("bias", [0.5, 1.5])
def test_both_orders_averaged_beat_one_on_every_pair(bias: float, record_property: Report) -> None:
    figures: dict[str, list[float]] = {"one order": [], "both": [], "no bias": []}
    for seed in range(6):
        truth = world(seed)[1]
        runs = {
            "one order": {"bias": bias, "orders": "one"},
            "both": {"bias": bias},
            "no bias": {"bias": 0.0},
        }
        for name, how in runs.items():
            decisions = judged(seed, reasoning=False, tie_band=0.0, **how)
            figures[name].append(float(np.mean(sides(decisions) == truth)))
    one, both, ceiling = (float(np.mean(figures[name])) for name in figures)
    record_property("one order, both averaged, the same without bias", str((one, both, ceiling)))
    assert one + 0.02 < both <= ceiling + 0.02


# A principle goes first (1.5), over a real connection -------------------------------------------

LENGTHS = (5, 12, 30, 75, 180, 400)
PRINCIPLES = {"Be brief: the shorter answer is better.": -1, "Be exhaustive and thorough.": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedServer]:
    with simulated(noise=0.2, position_bias=0.3, tie_margin=0) as running:
        yield running


def over_http(of: Any, items: list[Item], server: SimulatedServer, **has: bool) -> list[Decision]:
    async def main() -> list[Decision]:
        async with Client(Server(server.url, **has)) as client:
            call = Caller(client=client, ledger=MemoryLedger(), limiter=MemoryLimiter(16))
            return list(await asyncio.gather(*(of.judge(item, call) for item in items)))

    return asyncio.run(main())


def of_lengths(order: np.ndarray[Any, Any], *, number: int = 1) -> Item:
    texts = [" ".join(["leaf"] * LENGTHS[at]) + f" {at}." for at in order]
    return Item(number, "ranking", PROMPT, tuple(map(Candidate, texts)))


@pytest.mark.parametrize("mode", ["pairwise", "listwise", "pointwise"])
def test_opposite_principles_turn_the_order_around(
    mode: str, server: SimulatedServer, record_property: Report
) -> None:
    item = of_lengths(np.array([3, 0, 5, 1, 4, 2]))
    planted = np.array([3, 0, 5, 1, 4, 2])
    taus = {}
    for principle, sign in PRINCIPLES.items():
        of = judge(models=["sim"], mode=mode, principle=principle)
        (decision,) = over_http(of, [item], server)
        assert decision.ranks is not None
        taus[principle] = kendalltau(-np.array(decision.ranks), sign * planted).statistic
    record_property(f"tau with the planted order, {mode}", str(taus))
    assert min(taus.values()) > 0.85


def test_without_a_principle_length_does_not_decide(server: SimulatedServer) -> None:
    """The baseline: what the tests above see comes from the principle."""
    item = of_lengths(np.array([3, 0, 5, 1, 4, 2]))
    (decision,) = over_http(judge(models=["sim"]), [item], server)
    brief = judge(models=["sim"], principle="Be brief.")
    (other,) = over_http(brief, [item], server)
    assert decision.ranks != other.ranks


def test_shuffled_answers_get_the_same_places(server: SimulatedServer) -> None:
    """Labels and canonical places mean nothing: 20 shuffles, one order."""
    principle = "Be exhaustive and thorough."
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(LENGTHS)) for _ in range(20)]
    items = [of_lengths(order, number=at) for at, order in enumerate(orders)]
    of = judge(models=["sim"], mode="listwise", principle=principle)
    taus = []
    for order, decision in zip(orders, over_http(of, items, server), strict=True):
        assert decision.ranks is not None
        taus.append(kendalltau(-np.array(decision.ranks), order).statistic)
        assert np.argmin(decision.ranks) == np.argmax(order)
    assert np.mean(taus) > 0.9


@pytest.mark.parametrize("has_schema", [True, False])
@pytest.mark.parametrize("is_reasoning", [True, False])
def test_every_kind_is_judged_over_http(has_schema: bool, is_reasoning: bool) -> None:
    """With the schema, and by the words of the prompt alone where the endpoint has none."""
    sizes = {"tea": 40, "pot": 55, "cup": 75, "leaf": 105}
    texts = tuple(Candidate(f"{word} " * size) for word, size in sizes.items())
    items = [
        Item(1, "pairwise", PROMPT, texts[:2]),
        Item(2, "ranking", PROMPT, texts),
        Item(3, "best-worst", PROMPT, texts),
        Item(4, "rating", PROMPT, texts, attributes=("Is thorough", "tone"), low=0, high=4),
        Item(5, "checklist", PROMPT, texts, criteria=("Is brief",), failures=("Has a list",)),
    ]
    has = {"has_schema": has_schema, "has_logprobs": True}
    with simulated(noise=0.2, tie_margin=0) as fresh:
        for mode in ("pairwise", "listwise", "pointwise"):
            of = judge(
                models=["sim"], mode=mode, reasoning=is_reasoning, principle="Be exhaustive."
            )
            decisions = over_http(of, items, fresh, **has)
            assert [decision.error for decision in decisions] == [""] * 5
            pair, ranking, best_worst, rating, checklist = decisions
            assert pair.ranks == (2, 1)
            assert ranking.ranks == (4, 3, 2, 1)
            assert best_worst.ranks == (3, 2, 2, 1)
            assert rating.ratings is not None
            assert list(rating.ratings) == ["Is thorough", "tone"]
            assert checklist.ratings is not None
            assert list(checklist.ratings) == ["Is brief", "Has a list"]
            assert all(bool(decision.rationale) == is_reasoning for decision in decisions)


def test_malformed_and_cut_replies_are_mended_or_named() -> None:
    items = [
        Item(at, "pairwise", PROMPT, (Candidate(f"x{at}"), Candidate(f"y{at} y")))
        for at in range(40)
    ]
    with simulated(malformed=0.15, cut=0.1) as faulty:
        decisions = over_http(judge(models=["sim"], repairs=2), items, faulty)
    failed = [decision for decision in decisions if decision.ranks is None]
    assert all(decision.error in ("unreadable", "cut") and decision.detail for decision in failed)
    assert len(failed) < 4
    assert len(decisions) == 40
