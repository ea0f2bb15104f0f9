"""What a generator is about to ask, before anything is asked: calls and tokens by stage.

Counts follow from the options. Where they hang on what is found out on the way, the most that the
options allow is taken (criteria), or a share measured on the simulated judge (how often a criterion
of ``arr`` passes: docs/methods.md). Tokens are a rule of thumb: four characters each, beside what a
question of its sort takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

CHARS_PER_TOKEN: Final = 4
# Of a criterion that ARR proposes: how often it explains its own pair, how often it is accepted.
EXPLAINS_OWN: Final = 0.35
IS_ACCEPTED: Final = 0.19


@dataclass(frozen=True, slots=True)
class Texts:
    """How long what is sent is, in characters, on average."""

    prompt: float = 0.0
    response: float = 0.0
    reasons: float = 0.0


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of question: its own words and its reply in tokens, and how many answers it shows."""

    own: int
    reply: int
    answers: int = 1


EXPLAIN: Final = Sort(own=400, reply=500, answers=2)
LIST: Final = Sort(own=900, reply=300, answers=0)
VERIFY: Final = Sort(own=250, reply=60)
COMPARE: Final = Sort(own=450, reply=150, answers=2)
READ: Final = Sort(own=450, reply=250, answers=0)


@dataclass(frozen=True, slots=True)
class Stage:
    """So many calls of one sort. ``is_most``: no more than that, as a rule fewer."""

    key: str
    label: str
    calls: int
    sort: Sort
    is_most: bool = False

    def tokens(self, texts: Texts) -> tuple[int, int]:
        """(in, out) of all its calls."""
        shown = texts.prompt + self.sort.answers * texts.response if self.sort.answers else 0.0
        if self.sort is READ:
            shown = texts.prompt + 2 * texts.response + texts.reasons
        each = self.sort.own + shown / CHARS_PER_TOKEN
        return round(self.calls * each), self.calls * self.sort.reply


@dataclass(frozen=True, slots=True)
class Given:
    """What a method would work on. ``reasons``: texts in which people said why, a pair.

    The draft is scored on ``held`` pairs and on ``fitted`` of those learned from; on ``judged`` of
    the held ones a judge is asked in both orders, without the rubric and with it. ``criteria``: as
    if so many were found and no more; None is as many as the options allow.
    """

    pairs: int
    held: int = 0
    fitted: int = 0
    judged: int = 0
    reasons: float = 0.0
    criteria: int | None = None

    def least(self, most: int) -> int:
        """``most``, or the criteria found where those are fewer."""
        return most if self.criteria is None else min(most, self.criteria)


def stages(method: str, options: BaseModel, given: Given) -> list[Stage]:
    """The stages that ask a model, in order; [] for a method that asks none."""
    if method not in STAGES or not given.pairs:
        return []
    found: list[Stage] = STAGES[method](options, given)
    criteria = given.least(MOST_CRITERIA[method](options))
    found += [
        Stage("held", "Measure on held-out pairs", 2 * given.held * criteria, VERIFY, True),
        Stage("compare", "Compare with the judge", 4 * given.judged, COMPARE),
        Stage("learned", "Score learned pairs", 2 * given.fitted * criteria, VERIFY, True),
    ]
    return [stage for stage in found if stage.calls]


def per_pair(method: str, options: BaseModel) -> float:
    """Calls a pair of the generator alone, of a hundred pairs; 0.0 where it asks no model."""
    given = Given(pairs=100, reasons=2.0)
    return sum(stage.calls for stage in stages(method, options, given)) / given.pairs


def _arr(options: Any, given: Given) -> list[Stage]:
    if options.mode == "zero-shot":
        pairs = min(options.pairs, given.pairs)
        return [Stage("propose", "Propose from each prompt", pairs, LIST)]
    pairs = min(options.pairs, round(given.pairs * (1 - options.held_out)))
    rubrics = 1 if options.verify == "together" else options.criteria
    fails = (1 - IS_ACCEPTED) ** rubrics
    rounds = sum(fails**number for number in range(options.max_rounds + 1))
    checks = 2 * (1 + EXPLAINS_OWN * options.others)
    found = [
        Stage("propose", "Propose and refine criteria", round(pairs * rounds), EXPLAIN),
        Stage("verify", "Verify in both orders", round(pairs * rounds * rubrics * checks), COMPARE),
    ]
    if options.selection == "best-subset":
        accepted = given.least(round(pairs * rounds * options.criteria * IS_ACCEPTED))
        drawn = min(options.subset_pairs, pairs)
        found.append(Stage("select", "Choose among them", 2 * drawn * accepted, COMPARE, True))
    found.append(Stage("structure", "Sort into themes", int(options.structure), LIST))
    if options.held_out:
        held = min(options.measured, given.pairs - pairs)
        found.append(Stage("judge", "Judge held-out pairs", 4 * held, COMPARE))
    return found


def _merging(rules: int, at_once: int) -> int:
    return math.ceil(rules / at_once)


def _autorule(options: Any, given: Given) -> list[Stage]:
    held = min(options.verify_pairs, round(given.pairs * options.held_out))
    pairs = min(options.pairs, round(given.pairs * (1 - options.held_out)))
    found = pairs * options.rules_per_pair
    rules = given.least(min(options.most_rules, found))
    return [
        Stage("explain", "Explain pairs, take rules", 2 * pairs, EXPLAIN),
        Stage("merge", "Merge rules", _merging(found, options.merge_at_once), LIST, is_most=True),
        Stage("verify", "Verify rules", 2 * held * rules, VERIFY, is_most=True),
    ]


def _rlbff(options: Any, given: Given) -> list[Stage]:
    pairs = min(options.pairs, given.pairs)
    return [Stage("read", "Read people’s reasons", round(pairs * given.reasons), READ)]


def _autorubric(options: Any, given: Given) -> list[Stage]:
    test = min(options.test_pairs, round(given.pairs * options.test_share))
    choose = min(options.choose_pairs, round(given.pairs * options.choose_share))
    share = 1 - options.test_share - options.choose_share
    learn = min(options.pairs, round(given.pairs * share))
    found = learn * options.rules_per_pair
    rules = given.least(min(options.most_candidates, found))
    room = given.least(max(0, options.most_candidates - options.top))
    top = given.least(options.top)
    known, hard = learn + choose, options.rounds * min(options.hard_pairs, learn)
    return [
        Stage("trace", "Explain pairs, take criteria", 2 * learn, EXPLAIN),
        Stage("merge", "Merge criteria", _merging(found, options.merge_at_once), LIST, True),
        Stage("score", "Score every answer", 2 * known * rules, VERIFY, True),
        Stage("propose", "Propose for hard pairs", hard, EXPLAIN, True),
        Stage("rescore", "Score what is new", 2 * known * room * options.rounds, VERIFY, True),
        Stage("test", "Measure the chosen round", 2 * test * top, VERIFY, True),
    ]


STAGES: Final[dict[str, Callable[[Any, Given], list[Stage]]]] = {
    "arr": _arr,
    "autorule": _autorule,
    "rlbff": _rlbff,
    "autorubric-t2i": _autorubric,
}
MOST_CRITERIA: Final[dict[str, Callable[[Any], int]]] = {
    "arr": lambda options: options.max_criteria,
    "autorule": lambda options: options.most_rules,
    "rlbff": lambda options: options.most_criteria,
    "autorubric-t2i": lambda options: options.top,
}
