"""Best-worst scaling: the best and the worst of four or more, nothing about the middle."""

from __future__ import annotations

from typing import Any

from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.verdict import Edge, Verdict, edges_of_ranks
from annotator.models import ProjectSettings


class BestWorst:
    """Fields: ``best`` and ``worst``, each a label. Ranks are 1 best, 2 middle, 3 worst."""

    template = "best_worst.html"
    fewest, most = 4, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        labels = LABELS[: len(shown_order)]
        best, worst = answers.get("best", ""), answers.get("worst", "")
        for name, label in (("best", best), ("worst", worst)):
            if len(label) != 1 or label not in labels:
                raise Unfit(f"Choose the {name} answer.")
        if best == worst:
            raise Unfit("The best and the worst cannot be the same answer.")
        by_slot = [1 if label == best else 3 if label == worst else 2 for label in labels]
        ranks = canonical(by_slot, shown_order=shown_order)
        return common(answers, Verdict(ranks=ranks, strength=2), options=options)

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        shown = show_common(verdict, options=options)
        ranks = as_shown(verdict.ranks, shown_order=shown_order)
        return shown | {"best": LABELS[ranks.index(1)], "worst": LABELS[ranks.index(3)]}

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        last = LABELS[slots - 1]
        return {
            "help": [
                (("a", "to", last.lower()), "that answer is the best"),
                (("Shift", "A", "to", last), "that answer is the worst"),
            ],
            "best": draft.get("best", ""),
            "worst": draft.get("worst", ""),
            "labels": list(LABELS[:slots]),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        """Best over all, all over worst. Two of the middle were not compared: no edge."""
        return [
            edge
            for edge in edges_of_ranks(verdict.ranks, strength=verdict.strength)
            if edge.outcome
        ]

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        ranks = as_shown(verdict.ranks, shown_order=shown_order)
        return f"{LABELS[ranks.index(1)]} best, {LABELS[ranks.index(3)]} worst"

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        return verdict.ranks == gold.ranks
