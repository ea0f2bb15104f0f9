"""METHODS 1.1 over real HTTP: three planted criteria, ten distractors, a judge that leans to the
answer shown first. Figures stand beside their baseline, no rubric, and their ceiling, the planted
criteria; they are in the report of the tests as properties.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from models.intervals import wilson
from rubrics.generators.arr import ArrGenerator, split
from rubrics.generators.arr_figures import Judgment, averaged_accuracy, positional_gap, rise
from rubrics.generators.arr_judging import Judging
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.types import Generated, PreferencePair, Silent
from rubrics.judging.templates import load
from rubrics.judging.types import Candidate
from rubrics.llm.caller import Caller
from rubrics.llm.client import Client, Server
from rubrics.llm.memory import MemoryLedger, MemoryLimiter
from rubrics.llm.types import Call, Reply, Request
from rubrics.rewards import rpo_rewards
from tests.rubrics.arr import ORACLE, PLANTED, labeled, names_planted
from tests.rubrics.judging import PROMPT
from tests.simulated import SimulatedServer, simulated

BIAS = 1.5
NOISE = 0.7
OPTIONS: dict[str, Any] = {
    "model": "sim",
    "pairs": 120,
    "criteria": 3,
    "max_rounds": 1,
    "measured": 240,
    "concurrency": 16,
}
Report = Callable[[str, str], None]


def over_http(server: SimulatedServer, work: Callable[[Call], Any], **more: Any) -> Any:
    async def main() -> Any:
        async with Client(Server(server.url, has_images=True)) as client:
            limiter = MemoryLimiter(16)
            call = Caller(client=client, **{"ledger": MemoryLedger(), "limiter": limiter, **more})
            return await work(call)

    return asyncio.run(main())


class Heard:
    """A Call that keeps the criteria which were proposed through it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.proposed: list[str] = []

    async def __call__(self, request: Request) -> Reply:
        reply = await self.call(request)
        if (request.schema or {}).get("title") in ("arr-propose", "arr-refine"):
            self.proposed += json.loads(reply.text)["rubric"]
        return reply


async def measured(
    pairs: Sequence[PreferencePair], criteria: Sequence[str], call: Call
) -> list[Judgment]:
    judging = Judging(ArrOptions(model="sim"), load("pairwise"))
    return list(await asyncio.gather(*(judging.measure(one, criteria, call) for one in pairs)))


def test_verified_criteria_name_what_is_planted_and_the_judge_gets_better(
    record_property: Report,
) -> None:
    pairs = labeled(1_200)  # most of them to measure on: the rise is known to .05 or so

    async def work(call: Call) -> tuple[Heard, Generated, Generated, list[Judgment]]:
        heard = Heard(call)
        everything = ArrOptions(**OPTIONS | {"max_criteria": 60, "measured": 1})
        whole = await ArrGenerator(everything).generate(pairs, call=heard, journal=Silent())
        few = ArrOptions(**OPTIONS, max_criteria=4)
        rubric = await ArrGenerator(few).generate(pairs, call=call, journal=Silent())
        oracle = await measured(split(pairs, few).held_out, ORACLE, call)
        return heard, whole, rubric, oracle

    with simulated(position_bias=BIAS, noise=NOISE, criteria_sensitivity=1.0, **PLANTED) as server:
        heard, whole, rubric, oracle = over_http(server, work)

    # (a) Each accepted criterion counts once per pair that it came from, as each proposed one does.
    good = sum(int(one.figures["pairs"] or 0) for one in whole.criteria if names_planted(one.text))
    accepted = sum(int(one.figures["pairs"] or 0) for one in whole.criteria)
    right = sum(map(names_planted, heard.proposed))
    counts = f"{right} of {len(heard.proposed)} proposed, {good} of {accepted} accepted"
    record_property("criteria that name a planted one", counts)
    record_property("calls per pair", str(whole.figures["calls_per_pair"]))
    assert accepted == whole.figures["criteria"]["accepted"] >= 20
    assert wilson(right, len(heard.proposed))[1] + 0.2 < wilson(good, accepted)[0]
    assert sum(map(names_planted, (one.text for one in rubric.criteria))) >= 3

    # (b) On prompts that nothing was learned from.
    figures = rubric.figures["held_out"]
    before, after, ceiling = figures["before"], figures["after"], averaged_accuracy(oracle)
    assert ceiling is not None
    shown = [before["accuracy"], before["interval"], after["accuracy"], after["interval"]]
    record_property("before, after, oracle, pairs", str([*shown, ceiling, before["n"]]))
    record_property("rise", str(figures["rise"]))
    assert figures["rise"]["interval"][0] > 0.1, "measured .20 (.15 to .25) on 240 pairs"
    assert before["n"] == after["n"] == figures["rise"]["n"] > 200
    assert before["accuracy"] + 0.05 < after["accuracy"] < ceiling.value + 0.05
    assert before["positional_gap"]["interval"][0] > 0.3


@pytest.mark.parametrize(("bias", "reference"), [(0.0, 0.0), (0.5, 0.32), (1.5, 0.78)])
def test_measured_gap_is_the_planted_one_where_the_rubric_leaves_it(
    bias: float, reference: float, record_property: Report
) -> None:
    """Gaussian utilities that differ by one, as METHODS 1.1 simulates them."""
    rng = np.random.default_rng(5)
    utility = np.sort(rng.normal(scale=np.sqrt(0.5), size=(150, 2)))[:, ::-1]
    pairs = [
        PreferencePair(
            at, at, PROMPT, Candidate(f"good answer {at}"), Candidate(f"bad answer {at}")
        )
        for at in range(len(utility))
    ]
    known = {
        one.text: float(value)
        for pair, values in zip(pairs, utility, strict=True)
        for one, value in zip((pair.chosen, pair.rejected), values, strict=True)
    }
    apart = utility[:, 0] - utility[:, 1]
    planted = float(np.mean(norm.cdf((apart + bias) / NOISE) - norm.cdf((apart - bias) / NOISE)))

    async def work(call: Call) -> list[list[Judgment]]:
        return [await measured(pairs, criteria, call) for criteria in ((), ORACLE)]

    dials = {"noise": NOISE, "tie_margin": 0, "position_bias": bias, "criteria_sensitivity": 0}
    with simulated(known=known, **dials) as server:
        both = over_http(server, work)
    for name, judgments in zip(("without", "with a rubric"), both, strict=True):
        gap = positional_gap(judgments)
        assert gap is not None
        record_property(f"gap {name}: planted, measured", str((planted, gap.gap, gap.interval)))
        assert gap.interval[0] <= planted <= gap.interval[1]
        assert abs(gap.gap - reference) < 0.12
        assert gap.gap == pytest.approx(gap.forward.value - gap.reverse.value)


def test_faulty_server_costs_pairs_and_never_the_count(record_property: Report) -> None:
    """A fifth of the replies malformed, a tenth of the attempts failed and not tried again."""
    pairs = labeled(30)
    with simulated(malformed=0.2, server_error=0.02, criteria_sensitivity=1.0, **PLANTED) as server:

        async def work(call: Call) -> Generated:
            options = ArrOptions(model="sim", criteria=1, max_rounds=1, others=1)
            return await ArrGenerator(options).generate(pairs, call=call, journal=Silent())

        async def at_once(seconds: float) -> None:
            del seconds

        patient = over_http(server, work, sleep=at_once)
        server.turn(server_error=0.1)
        hasty = over_http(server, work, patience=Once(), sleep=at_once)
    record_property("dropped with retries and without", str((patient.dropped, hasty.dropped)))
    for result in (patient, hasty):
        pairs_, held_out = result.figures["pairs"], result.figures["held_out"]
        assert pairs_["learned"] + pairs_["held_out"] == len(pairs)
        assert held_out["after"]["n"] + held_out["after"]["failed"] == held_out["pairs"]
        assert not result.stopped
        assert accounted(result) == result.figures["criteria"]["proposed"]
    assert patient.criteria
    assert "call-server" not in patient.dropped
    assert hasty.dropped["call-server"] > 0


class Once:
    """Patience of one attempt."""

    def may_retry(self, failed: Any, **counts: int) -> bool:
        del failed, counts
        return False


def accounted(result: Generated) -> int:
    """What became of every usable proposal."""
    fates = ("own-pair", "other-pairs", "unverified", "merged", "few-pairs", "over-limit")
    return len(result.criteria) + sum(result.dropped.get(fate, 0) for fate in fates)


# Rewards and figures -----------------------------------------------------------------------------


def test_two_samples_get_exactly_the_win_and_the_loss() -> None:
    assert rpo_rewards([1, 2]) == [1.0, -0.1]
    assert rpo_rewards([2, 1]) == [-0.1, 1.0]
    assert rpo_rewards([1, 2], win=0.7, lose=-0.7) == [0.7, -0.7]
    assert rpo_rewards([1, 2, 3]) == pytest.approx([1.0, 0.45, -0.1])
    assert rpo_rewards([1, 1, 1]) == [0.0, 0.0, 0.0]


@given(
    ranks=st.lists(st.integers(1, 50), min_size=1, max_size=9).map(lambda some: [1, *some]),
    lose=st.floats(-10, 0.5),
)
def test_rewards_fall_with_rank_between_exact_ends(ranks: list[int], lose: float) -> None:
    worst = max(ranks)
    rewards = rpo_rewards(ranks, win=1.0, lose=lose)
    for rank, reward in zip(ranks, rewards, strict=True):
        if worst == 1:
            assert reward == 0
        elif rank in (1, worst):
            assert reward == (1.0 if rank == 1 else lose)
        else:
            share = Fraction(rank - 1, worst - 1)
            assert reward == pytest.approx(float(1 - share * (1 - Fraction(lose))), abs=1e-9)


@pytest.mark.parametrize("ranks", [[], [2, 3], [0, 1], [1.5, 1]])
def test_ranks_that_are_none_are_refused(ranks: list[Any]) -> None:
    with pytest.raises(ValueError, match="ranks"):
        rpo_rewards(ranks)


def test_loss_that_is_no_loss_is_refused() -> None:
    for lose in (1.0, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="worth more"):
            rpo_rewards([1, 2], lose=lose)


def test_failed_judgments_are_left_out_and_ties_are_wrong() -> None:
    judgments = [
        Judgment(1, 1, True, True),
        Judgment(2, 2, True, False),
        Judgment(3, 3, False, False),
        Judgment(4, 4, True, True, error="timeout"),
    ]
    gap, share = positional_gap(judgments), averaged_accuracy(judgments)
    assert gap is not None
    assert share is not None
    assert (gap.n, gap.groups, gap.gap) == (3, 3, pytest.approx(1 / 3))
    assert share.value == pytest.approx(0.5)
    assert positional_gap([]) is None
    assert averaged_accuracy(judgments[3:]) is None
    alone = rise(judgments, judgments[:1])
    assert alone is not None
    assert (alone["value"], alone["n"]) == (0.0, 1)
    assert alone["interval"][0] < -0.9, "one pair says next to nothing"
    assert rise(judgments, judgments[3:]) is None


def test_intervals_cover_what_is_true_also_where_groups_are_large() -> None:
    """Half of each group's luck is shared: of 300 draws, 95 % of the intervals hold the truth."""
    rng = np.random.default_rng(0)
    covered = {"gap": 0, "share": 0}
    trials, groups, size = 300, 30, 4
    for _ in range(trials):
        luck = np.repeat(rng.random((groups, 2)), size, axis=0)
        own = rng.random((groups * size, 2))
        is_shared = np.repeat(rng.random((groups, 1)) < 0.5, size, axis=0)
        right = np.where(is_shared, luck, own) < np.array([0.9, 0.5])
        judgments = [
            Judgment(at, at // size, bool(forward), bool(reverse))
            for at, (forward, reverse) in enumerate(right)
        ]
        gap, share = positional_gap(judgments), averaged_accuracy(judgments)
        assert gap is not None
        assert share is not None
        covered["gap"] += gap.interval[0] <= 0.4 <= gap.interval[1]
        covered["share"] += share.interval[0] <= 0.7 <= share.interval[1]
    assert min(covered.values()) >= 0.91 * trials
    assert max(covered.values()) <= 0.995 * trials
