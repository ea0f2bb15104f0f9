"""AutoRule: rules out of a model's reasoning on preferences; a reward that is the share satisfied.

Source: Wang and Xiong 2025, arXiv 2506.15651 (METHODS 1.2): explain a pair, knowing who won; take
objective rules out of the chain of thought, not out of the conclusion; merge them; verify rule by
rule. ``rubrics.rewards.share_satisfied`` is what policies are trained with, beside a reward model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubrics.asking import Counted
from rubrics.generators.autorule_options import AutoRuleOptions
from rubrics.generators.diverse import different
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
    PairScores,
    accuracies,
    score_pairs,
    with_verdicts,
)
from rubrics.llm.types import Call
from rubrics.refinement import hold_out
from rubrics.rewards import scaling_of, share_satisfied
from rubrics.verifying import VerifyOptions

Array = NDArray[np.float64]


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
                "reward": _scaling(scores),
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
        kept = different(
            merged.rules, options.different, text=lambda rule: rule.text, dropped=dropped
        )
        dropped["beyond the rules kept"] += max(0, len(kept) - options.most_rules)
        return tuple(kept[: options.most_rules]), +dropped, taken.stopped or merged.stopped

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
        margins = share_satisfied(scores.chosen) - share_satisfied(scores.rejected)
        return accuracies(margins, held, seed=self.options.seed)


def _scaling(scores: PairScores) -> dict[str, float] | None:
    """What centers and scales the reward for these rules: mean and standard deviation of the share
    over the ``n`` responses that were verified; None where nothing tells them apart."""
    shares = share_satisfied(np.concatenate([scores.chosen, scores.rejected]))
    try:
        found = scaling_of(shares)
    except ValueError:
        return None
    return {"center": found.center, "scale": found.scale, "n": int((~np.isnan(shares)).sum())}
