"""Labeled pairs for the generator ARR, and what models it can be run with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np

from rubrics.generators.arr import ArrGenerator
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.types import Generated, PreferencePair, Silent
from rubrics.judging.types import Candidate
from rubrics.llm.budget import Budget
from rubrics.llm.caller import Caller
from rubrics.llm.memory import MemoryLedger, MemoryLimiter
from rubrics.llm.types import Call, Picture, Reply, Request
from rubrics.simulated import features
from rubrics.simulated.dials import Dials
from tests.planted_world import CRITERIA, planted_world
from tests.rubrics.judging import InProcess

# What people like here, the judge's own taste does not: a rubric has something to tell it.
WEIGHTS: Final = {"hedge": 1.0, "exclamation": 0.9, "heading": 0.8}
PLANTED: Final = {"planted": ",".join(WEIGHTS), "distractors": 10, "proposal": 0.6}
ORACLE: Final = tuple(CRITERIA[name] for name in WEIGHTS)
CLEAR: Final = 0.3  # least difference in utility: people agree on these pairs
NOISE: Final = 0.2  # of people


def labeled(count: int, *, seed: int = 3) -> list[PreferencePair]:
    """Pairs of prompts of their own, less the unclear ones, as people with little noise judge."""
    world = planted_world(count, seed=seed, weights=WEIGHTS)
    rng = np.random.default_rng(seed)
    pairs = []
    for at, pair in enumerate(world.pairs):
        is_first = pair.difference + NOISE * rng.normal() > 0
        texts = (pair.first.text, pair.second.text)
        good, bad = map(Candidate, texts if is_first else texts[::-1])
        messages = [{"role": "user", "content": pair.prompt}]
        if abs(pair.difference) >= CLEAR:
            pairs.append(PreferencePair(at, 1000 + at, messages, good, bad, judgments=(5 * at,)))
    return pairs


def picture(name: str) -> Picture:
    return Picture(sha256(name.encode()).hexdigest(), "image/png", name.encode())


def names_planted(line: str) -> bool:
    return any(features.named_in(line).get(name) == 1 for name in WEIGHTS)


def simulated_mind(**dials: Any) -> InProcess:
    return InProcess(Dials(**{**PLANTED, "criteria_sensitivity": 1.0, **dials}))


class Asking:
    """rubrics.llm.caller.Asks over a Call."""

    base_url = "http://127.0.0.1:1/v1"

    def __init__(self, call: Call) -> None:
        self.call = call

    async def ask(self, request: Request, key: bytes) -> Reply:
        del key
        return await self.call(request)


def caller(call: Call, ledger: MemoryLedger | None = None, calls: int | None = None) -> Caller:
    return Caller(
        client=Asking(call),
        ledger=ledger or MemoryLedger(),
        limiter=MemoryLimiter(16),
        budget=Budget(calls=calls),
    )


def generate(
    given: Sequence[PreferencePair],
    call: Call,
    /,
    *,
    journal: Any = None,
    select: Any = None,
    **options: Any,
) -> Generated:
    how: Mapping[str, Any] = {"model": "sim", "criteria": 2, "max_rounds": 1, **options}
    generator = ArrGenerator(ArrOptions(**how), select=select)
    return asyncio.run(generator.generate(given, call=call, journal=journal or Silent()))
