"""AutoRule: rules out of a model's reasoning on preferences; a reward that is the share satisfied.

Source: Wang and Xiong 2025, arXiv 2506.15651 (METHODS 1.2): explain a pair, knowing who won; take
objective rules out of the chain of thought, not out of the conclusion; merge them; verify rule by
rule. ``rule_reward`` is what policies are trained with, beside a reward model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rubrics.asking import Counted
from rubrics.generators.autorule_options import AutoRuleOptions
from rubrics.generators.rules import (
    Asking,
    Rule,
    evidence_of,
    merge_rules,
    take_rules,
    ticker,
)
from rubrics.generators.types import CandidateCriterion, Generated, Journal, PreferencePair
from rubrics.generators.verified import (
    MET,
    PairScores,
    accuracies,
    score_pairs,
    with_verdicts,
)
from rubrics.llm.types import Call
from rubrics.refinement import hold_out
from rubrics.verifying import VerifyOptions

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(reward - center) / scale``: what makes shares comparable with another reward."""

    center: float
    scale: float


# The released code's (r - .75) * 10. It fits rules of which three in four are satisfied: since a
# rule that does not apply is satisfied, the mean moves with the rules. Recompute it.
RELEASED: Final = Scaling(center=0.75, scale=0.1)


def rule_reward(scores: ArrayLike, scaling: Scaling | None = None) -> Array:
    """The share of rules satisfied, (n,), of scores (n, rules) in [0, 1]; scaled where asked.

    A score from one half counts as satisfied. A rule without a verdict (NaN) counts for neither;
    NaN where there is none at all.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 2:
        raise ValueError(f"scores {given.shape} must be (responses, rules)")
    known = ~np.isnan(given)
    n = known.sum(axis=1)
    met = (known & (given >= MET)).sum(axis=1)
    share = np.divide(met, n, out=np.full(len(given), np.nan), where=n > 0)
    found: Array = share if scaling is None else (share - scaling.center) / scaling.scale
    return found


def scaling_of(scores: ArrayLike) -> Scaling:
    """The scaling that gives these responses mean 0 and standard deviation 1.

    Raises ValueError for fewer than two responses with a verdict, or all with the same share.
    """
    share = rule_reward(scores)
    share = share[~np.isnan(share)]
    if len(share) < 2 or share.std() < 1e-9:
        raise ValueError("a scale needs responses that satisfy different shares of the rules")
    return Scaling(float(share.mean()), float(share.std()))


class AutoRuleGenerator:
    """rubrics.generators.types.Generator. Two calls a pair, one to merge, then the verifier's."""

    def __init__(self, options: AutoRuleOptions) -> None:
        self.options = options

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None, journal: Journal
    ) -> Generated:
        """Criteria of equal weight, the best supported first. Raises ValueError."""
        options = self.options
        if call is None or not options.model:
            raise ValueError("autorule asks a model: it needs an endpoint and the model's name")
        seeds, held = self._split(pairs)
        counted = Counted(call)
        rules, dropped, stopped = await self._rules(seeds, counted, journal)
        taken = counted.replies
        journal.stage("verify", "Verify rules on held-out pairs")
        total = 2 * len(held) * len(rules)
        scores = await score_pairs(
            [rule.text for rule in rules],
            held,
            counted,
            options=self._verifier(),
            tick=ticker(journal, total, "verdicts"),
        )
        return Generated(
            self._criteria(rules, scores, held),
            figures={
                "pairs": len(seeds),
                "calls": counted.replies,
                "calls_per_pair": taken / len(seeds),
                "calls_to_verify": counted.replies - taken,
                "verify_failures": scores.failures,
                "held_out": self._held_out(scores, held),
                "scaling": _scaling(scores),
            },
            dropped=dict(sorted(dropped.items())),
            stopped=stopped or scores.stopped,
        )

    def _split(
        self, pairs: Sequence[PreferencePair]
    ) -> tuple[list[PreferencePair], list[PreferencePair]]:
        """Pairs to explain and pairs to verify on, no prompt in both."""
        groups = [pair.group for pair in pairs]
        if len(set(groups)) < 2:
            raise ValueError("autorule needs pairs of at least two prompts: one is held out")
        out = hold_out(groups, self.options.held_out, seed=self.options.seed)
        seeds = [pair for pair, is_out in zip(pairs, out, strict=True) if not is_out]
        held = [pair for pair, is_out in zip(pairs, out, strict=True) if is_out]
        return seeds[: self.options.pairs], held[: self.options.verify_pairs]

    async def _rules(
        self, seeds: Sequence[PreferencePair], call: Call, journal: Journal
    ) -> tuple[tuple[Rule, ...], Counter[str], str]:
        options = self.options
        how = Asking(
            model=options.model,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            seed=options.seed,
            repairs=options.repairs,
            concurrency=options.concurrency,
        )
        journal.stage("explain", "Explain pairs and take rules from the reasoning")
        tick = ticker(journal, len(seeds), "pairs")
        taken = await take_rules(seeds, call, how, most=options.rules_per_pair, tick=tick)
        journal.stage("merge", "Merge rules that ask for the same")
        merged = await merge_rules(
            taken.rules, call, how, chunk=options.merge_at_once, tick=ticker(journal, 0, "calls")
        )
        dropped = taken.dropped + merged.dropped
        dropped["beyond the rules kept"] += max(0, len(merged.rules) - options.most_rules)
        return merged.rules[: options.most_rules], +dropped, taken.stopped or merged.stopped

    def _verifier(self) -> VerifyOptions:
        return VerifyOptions(
            model=self.options.verifier or self.options.model,
            concise=self.options.concise,
            not_applicable="satisfied",
            repairs=self.options.repairs,
            concurrency=self.options.concurrency,
        )

    def _criteria(
        self, rules: Sequence[Rule], scores: PairScores, held: Sequence[PreferencePair]
    ) -> tuple[CandidateCriterion, ...]:
        votes = scores.votes
        return tuple(
            with_verdicts(
                CandidateCriterion(
                    rule.text,
                    weight=1 / len(rules),
                    evidence=evidence_of(rule),
                    figures={"support": rule.support},
                ),
                votes[:, at],
                held,
            )
            for at, rule in enumerate(rules)
        )

    def _held_out(
        self, scores: PairScores, held: Sequence[PreferencePair]
    ) -> dict[str, Any] | None:
        """Accuracy of the reward, of rules chosen without these pairs; None where none was asked."""
        if not held or not scores.chosen.shape[1]:
            return None
        margins = rule_reward(scores.chosen) - rule_reward(scores.rejected)
        return accuracies(margins, held, seed=self.options.seed)


def _scaling(scores: PairScores) -> dict[str, float] | None:
    """What centers and scales the reward for these rules; None where nothing tells them apart."""
    try:
        found = scaling_of(np.concatenate([scores.chosen, scores.rejected]))
    except ValueError:
        return None
    return {"center": found.center, "scale": found.scale}
