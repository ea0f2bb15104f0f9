"""AutoRubric-T2I: candidate criteria, scored on every answer, weighed by l1 regression in rounds.

Source: arXiv 2605.17602 (METHODS 1.3). Traces of why one answer won -> candidates -> P(yes) of
each on both sides -> antisymmetric differences -> signed sparse weights (rubrics.refinement) ->
proposals aimed at pairs that come out wrong or level -> again. Prompts are split in three: pairs
to learn from, pairs that choose the best round, pairs that only measure it. For pictures and text.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rubrics.asking import Counted, Section, ask, each, question
from rubrics.generators.autorubric_options import AutoRubricOptions
from rubrics.generators.diverse import different
from rubrics.generators.rules import (
    EXTRACT_REPLY,
    Asking,
    Rule,
    evidence_of,
    gather,
    key_of,
    merge_rules,
    read_rules,
    rules_schema,
    shown,
    take_rules,
    ticker,
)
from rubrics.generators.types import CandidateCriterion, Generated, Journal, PreferencePair
from rubrics.generators.verified import PairScores, accuracies, score_pairs, with_verdicts
from rubrics.intervals import estimate_accuracy
from rubrics.l1 import NotConverged, c_grid, oriented
from rubrics.llm.types import Call, CallFailed
from rubrics.margins import is_right
from rubrics.refinement import Refinement, Settings, hold_out, refine
from rubrics.verifying import VerifyOptions

Array = NDArray[np.float64]

LEAST_PROMPTS: Final = 4  # two to learn from, one that chooses, one that measures
LESS_OF_THE_PATH: Final = (8, 5, 3, 1)  # points of it, the strongest penalties first
BAND: Final = 0.5  # a smaller difference of two P(yes) is no verdict
PROPOSE_REPLY: Final = EXTRACT_REPLY.replace("the reasoning that say so", "the answer that show it")


def rubric_reward(scores: ArrayLike, weights: ArrayLike) -> Array:
    """``sum_j w_j s_j``, (n,), of scores (n, criteria); a criterion without a verdict counts half.

    Weights keep their sign. Raises ValueError for shapes that do not fit.
    """
    given, w = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if given.ndim != 2 or w.shape != given.shape[1:]:
        raise ValueError(f"scores {given.shape} and weights {w.shape} do not fit")
    found: Array = np.nan_to_num(given, nan=0.5) @ w
    return found


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to learn from, to choose a round by, and to measure the choice on; no prompt in two."""

    learn: list[PreferencePair]
    choose: list[PreferencePair]
    test: list[PreferencePair]


@dataclass(frozen=True, slots=True)
class Round:
    """One fit. ``hits`` (choosing pairs,) are 1 where it ranks rightly; a tie is wrong."""

    number: int
    rules: tuple[Rule, ...]
    refinement: Refinement
    hits: Array

    @property
    def chosen(self) -> tuple[Rule, ...]:
        return tuple(self.rules[at] for at in self.refinement.chosen)


@dataclass(slots=True)
class Work:
    """What has been found so far. ``columns``: rule -> scores (2, learning then choosing pairs)."""

    split: Split
    call: Call
    journal: Journal
    columns: dict[str, Array] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    rounds: list[Round] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""


class AutoRubricGenerator:
    """rubrics.generators.types.Generator. Two calls a candidate and pair are most of its cost."""

    def __init__(self, options: AutoRubricOptions) -> None:
        self.options = options

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None, journal: Journal
    ) -> Generated:
        """Weighed criteria, the strongest first. Raises ValueError.

        Where the budget ends before anything was fitted, the candidates come without weights.
        """
        if call is None or not self.options.model:
            raise ValueError("autorubric-t2i asks a model: it needs an endpoint and its name")
        counted = Counted(call)
        work = Work(self.split(pairs), counted, journal)
        candidates = await self._candidates(work)
        await self._round(work, candidates)
        for _ in range(self.options.rounds):
            if work.stopped or not work.rounds:
                break
            proposed = await self._proposals(work)
            if not proposed:
                break
            await self._round(work, (*work.rounds[-1].chosen, *proposed))
        if not work.rounds:
            criteria = tuple(_unweighed(rule) for rule in candidates)
            return self._generated(work, criteria, counted, held_out=None, best=None)
        # max() takes the first of equals: no round is added that brings nothing.
        best = max(work.rounds, key=lambda one: float(one.hits.mean()))
        held_out = await self._measure(work, best)
        work.dropped["no weight"] += len(best.rules) - len(best.chosen)
        criteria = _criteria(best, work)
        return self._generated(work, criteria, counted, held_out=held_out, best=best)

    def _generated(
        self,
        work: Work,
        criteria: tuple[CandidateCriterion, ...],
        counted: Counted,
        *,
        held_out: dict[str, Any] | None,
        best: Round | None,
    ) -> Generated:
        return Generated(
            criteria,
            figures={
                "pairs": len(work.split.learn),
                "calls": counted.replies,
                "calls_per_pair": counted.replies / len(work.split.learn),
                "verify_failures": dict(sorted(work.failures.items())),
                "rounds": [_told(one, work.split.choose, self.options.seed) for one in work.rounds],
                "best_round": best.number if best else None,
                "held_out": held_out,
                "refinement": best.refinement.as_dict() if best else None,
            },
            dropped=dict(sorted((+work.dropped).items())),
            stopped=work.stopped,
            notes=tuple(work.notes),
        )

    def split(self, pairs: Sequence[PreferencePair]) -> Split:
        """Whole prompts to each side, drawn by the seed. Raises ValueError for too few."""
        options = self.options
        groups = np.array([pair.group for pair in pairs])
        if len(np.unique(groups)) < LEAST_PROMPTS:
            raise ValueError(
                f"autorubric-t2i needs pairs of at least {LEAST_PROMPTS} prompts: some are held out"
            )
        test = hold_out(groups, options.test_share, seed=options.seed)
        rest = np.flatnonzero(~test)
        share = options.choose_share / (1 - options.test_share)
        choose = hold_out(groups[rest], share, seed=options.seed + 1)
        return Split(
            learn=spread_out([pairs[int(at)] for at in rest[~choose]])[: options.pairs],
            choose=[pairs[int(at)] for at in rest[choose]][: options.choose_pairs],
            test=[pairs[int(at)] for at in np.flatnonzero(test)][: options.test_pairs],
        )

    def _asking(self) -> Asking:
        options = self.options
        return Asking(
            model=options.model,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            seed=options.seed,
            repairs=options.repairs,
            concurrency=options.concurrency,
        )

    async def _candidates(self, work: Work) -> tuple[Rule, ...]:
        options, how = self.options, self._asking()
        work.journal.stage("trace", "Write down why, and take criteria from it")
        tick = ticker(work.journal, len(work.split.learn), "pairs")
        taken = await take_rules(
            work.split.learn, work.call, how, most=options.rules_per_pair, tick=tick
        )
        work.journal.stage("merge", "Merge criteria that ask for the same")
        tick = ticker(work.journal, 0, "calls")
        merged = await merge_rules(
            taken.rules, work.call, how, chunk=options.merge_at_once, tick=tick
        )
        work.dropped += taken.dropped + merged.dropped
        kept = different(
            merged.rules, options.different, text=lambda rule: rule.text, dropped=work.dropped
        )
        work.dropped["beyond the candidates scored"] += max(0, len(kept) - options.most_candidates)
        work.stopped = taken.stopped or merged.stopped
        return tuple(kept[: options.most_candidates])

    async def _round(self, work: Work, rules: tuple[Rule, ...]) -> None:
        """Score what is not scored yet, fit, and keep the round where the budget let it end."""
        number = len(work.rounds)
        new = [rule.text for rule in rules if rule.text not in work.columns]
        known = [*work.split.learn, *work.split.choose]
        work.journal.stage(f"score {number}", "Score every answer under every criterion")
        tick = ticker(work.journal, 2 * len(known) * len(new), "verdicts")
        scores = await self._scored(work, new, known, tick)
        if scores.stopped or not rules:
            return
        for at, text in enumerate(new):
            work.columns[text] = np.stack([scores.chosen[:, at], scores.rejected[:, at]])
        differences = np.stack([_difference(work.columns[rule.text]) for rule in rules], axis=1)
        n = len(work.split.learn)
        if not np.nan_to_num(differences[:n]).any():
            return  # nothing tells any two answers apart: there is nothing to weigh
        work.journal.stage(f"fit {number}", "Weigh the criteria")
        refinement = await asyncio.to_thread(self._refined, differences[:n], work, rules)
        if refinement is None:
            work.notes.append(f"round {number}: the weights did not settle, so it is left out")
            return
        hits = is_right(refinement.margins(differences[n:]))
        work.rounds.append(Round(number, rules, refinement, hits))

    def _refined(self, differences: Array, work: Work, rules: Sequence[Rule]) -> Refinement | None:
        """Weights; with less and less of the regularization path where few pairs leave it open."""
        options = self.options
        settings = Settings(
            top=options.top,
            negative=options.negative,
            bootstraps=options.bootstraps,
            band=BAND,
            seed=options.seed,
        )
        path = c_grid(oriented(differences), settings.n_cs, is_scaled=settings.is_scaled)
        for points in (settings.n_cs, *LESS_OF_THE_PATH):
            try:
                return refine(
                    differences,
                    groups=[pair.group for pair in work.split.learn],
                    names=[rule.text for rule in rules],
                    settings=replace(settings, cs=path[:points]),
                    check=work.journal.check,
                )
            except NotConverged:
                continue
        return None

    async def _scored(
        self,
        work: Work,
        criteria: Sequence[str],
        pairs: Sequence[PreferencePair],
        tick: Callable[[int], Any],
    ) -> PairScores:
        how = VerifyOptions(
            model=self.options.verifier or self.options.model,
            repairs=self.options.repairs,
            concurrency=self.options.concurrency,
        )
        scores = await score_pairs(criteria, pairs, work.call, options=how, tick=tick)
        work.failures.update(scores.failures)
        work.stopped = work.stopped or scores.stopped
        return scores

    async def _proposals(self, work: Work) -> tuple[Rule, ...]:
        """New criteria out of the hard pairs of the last round, merged."""
        last = work.rounds[-1]
        hard = self._hard(work, last)
        how = self._asking()
        work.journal.stage(f"propose {last.number + 1}", "Propose criteria for hard pairs")
        told = await each(
            hard,
            partial(_propose, have=last.chosen, call=work.call, how=how, options=self.options),
            concurrency=how.concurrency,
            tick=ticker(work.journal, len(hard), "pairs"),
        )
        proposed: list[Rule] = []
        for one in told:
            if isinstance(one, CallFailed):
                work.dropped[f"hard pair: {one.kind}"] += 1
                work.stopped = work.stopped or ("budget" if one.kind == "budget" else "")
            else:
                proposed += one[0]
                work.dropped += one[1]
        merged = await merge_rules(
            gather(proposed),
            work.call,
            how,
            chunk=self.options.merge_at_once,
            tick=ticker(work.journal, 0, "calls"),
        )
        work.dropped += merged.dropped
        work.stopped = work.stopped or merged.stopped
        met = {key_of(text) for text in work.columns}
        new = [rule for rule in merged.rules if key_of(rule.text) not in met]
        work.dropped["proposed before"] += len(merged.rules) - len(new)
        room = max(0, self.options.most_candidates - len(last.chosen))
        work.dropped["beyond the candidates scored"] += max(0, len(new) - room)
        return tuple(new[:room])

    def _hard(self, work: Work, last: Round) -> list[PreferencePair]:
        """Learning pairs that come out wrong or by a small margin, the worst first."""
        learn = work.split.learn
        rows = np.stack([_difference(work.columns[rule.text]) for rule in last.rules], axis=1)
        margins = last.refinement.margins(rows[: len(learn)])
        order = np.argsort(margins, kind="stable")[: self.options.hard_pairs]
        return [learn[at] for at in order if margins[at] <= self.options.hard_margin]

    async def _measure(self, work: Work, best: Round) -> dict[str, Any] | None:
        """Accuracy on pairs that neither fitted nor chose; None where the budget cuts it off.

        None too where no criterion was kept.
        """
        test = work.split.test
        names = [rule.text for rule in best.chosen]
        if not names:
            return None
        work.journal.stage("measure", "Measure what was chosen on pairs nothing has seen")
        tick = ticker(work.journal, 2 * len(test) * len(names), "verdicts")
        scores = await self._scored(work, names, test, tick)
        if scores.stopped:
            return None
        weights = best.refinement.weights[list(best.refinement.chosen)]
        margins = np.nan_to_num(scores.differences) @ weights
        return accuracies(margins, test, seed=self.options.seed)


def spread_out(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Strong preferences of many prompts first: each prompt's strongest, then its second..."""
    seen: Counter[int] = Counter()
    ranked = []
    for pair in sorted(pairs, key=lambda one: -one.strength):
        ranked.append((seen[pair.group], pair))
        seen[pair.group] += 1
    return [pair for _, pair in sorted(ranked, key=lambda row: row[0])]


async def _propose(
    pair: PreferencePair,
    *,
    have: Sequence[Rule],
    call: Call,
    how: Asking,
    options: AutoRubricOptions,
) -> tuple[tuple[Rule, ...], Counter[str]]:
    most = options.rules_per_pair
    lines = "\n".join(f"- {rule.text}" for rule in have)
    messages = question(
        "propose-rules",
        [*shown(pair), Section("criteria so far", lines)],
        most=str(most),
        reply=PROPOSE_REPLY,
    )
    request = how.request(
        messages, schema=rules_schema("propose-rules", {"quote": {"type": "string"}})
    )
    within = f"{pair.chosen.text}\n{pair.rejected.text}"
    read = partial(read_rules, pair=pair.id, within=within, most=most)
    told, _ = await ask(call, request, read, repairs=how.repairs)
    return told


def _difference(column: Array) -> Array:
    found: Array = column[0] - column[1]
    return found


def _unweighed(rule: Rule) -> CandidateCriterion:
    return CandidateCriterion(
        rule.text, evidence=evidence_of(rule), figures={"support": rule.support}
    )


def _criteria(best: Round, work: Work) -> tuple[CandidateCriterion, ...]:
    """Those with a weight, with figures of folds that did not fit them."""
    learn = work.split.learn
    made = []
    for at in best.refinement.chosen:
        rule, fitted = best.rules[at], best.refinement.figures[at]
        column = work.columns[rule.text][:, : len(learn)]
        votes = PairScores(column[0][:, None], column[1][:, None], {}).votes[:, 0]
        weighed = replace(
            _unweighed(rule), weight=fitted.weight, polarity=1 if fitted.weight > 0 else -1
        )
        criterion = with_verdicts(weighed, votes, learn)
        precision, interval = fitted.precision, fitted.weight_interval
        figures: dict[str, float | int | None] = {
            "support": rule.support,
            "round": best.number,
            "verified": fitted.n,
            "decisive": fitted.decisive,
            "coverage": fitted.coverage,
            "precision": precision.accuracy if precision else None,
            "precision_low": precision.interval[0] if precision else None,
            "precision_high": precision.interval[1] if precision else None,
            "weight_low": interval[0] if interval else None,
            "weight_high": interval[1] if interval else None,
            "frequency": fitted.frequency,
            "contribution": fitted.contribution.value if fitted.contribution else None,
        }
        made.append(replace(criterion, figures=figures))
    return tuple(made)


def _told(one: Round, choose: Sequence[PreferencePair], seed: int) -> dict[str, Any]:
    """What a round is chosen by: never accuracy on pairs that were fitted."""
    told = estimate_accuracy(one.hits, [pair.group for pair in choose], seed=seed)
    return {
        "round": one.number,
        "scored": len(one.rules),
        "chosen": len(one.chosen),
        "choosing": told.as_dict() if told else None,
    }
