"""What a recipe would leave, rule by rule, from counts alone: no texts are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from annotator.exporters.recipe import SPLITS, ExportOptions
from annotator.exporters.verdicts import fate_of_votes
from annotator.queries.datasets import Kinds

# Rule of the form -> the reasons for which it leaves pairs out, in the order of REASONS.
RULES: Final = {
    "all": (),
    "raters": ("no_votes", "unselected_votes", "control"),
    "min_votes": ("few_votes",),
    "both_bad": ("both_bad",),
    "contradiction": ("contradiction",),
    "ties": ("tie",),
    "min_agreement": ("low_agreement",),
}


@dataclass(frozen=True)
class Step:
    """One rule: pairs left after it and dropped by it; shares are of all pairs."""

    rule: str
    left: int
    dropped: int
    total: int

    @property
    def left_share(self) -> float:
        return self.left / self.total if self.total else 0.0

    @property
    def dropped_share(self) -> float:
        return self.dropped / self.total if self.total else 0.0


@dataclass(frozen=True)
class Preview:
    """``rows`` by split is the most there can be: texts may still drop some."""

    steps: list[Step]
    rows: dict[str, int]
    at: datetime

    @property
    def out(self) -> int:
        return sum(self.rows.values())

    @property
    def total(self) -> int:
        return self.steps[0].left

    @property
    def dropped(self) -> int:
        return self.total - self.out


def foretell(kinds: Kinds, options: ExportOptions) -> Preview:
    """The same rule as in a build, on kinds of votes instead of pairs."""
    rows: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for pair, count in kinds.counts:
        if pair.split not in options.splits:
            continue
        fate = fate_of_votes(pair, options)
        if fate:
            dropped[fate] += count
        else:
            rows[pair.split] += count
    dropped["no_votes"] += sum(kinds.unvoted.get(split, 0) for split in options.splits)
    total = left = rows.total() + dropped.total()
    steps = []
    for rule, reasons in RULES.items():
        gone = sum(dropped[reason] for reason in reasons)
        left -= gone
        steps.append(Step(rule, left, gone, total))
    return Preview(steps, {split: rows[split] for split in SPLITS if rows[split]}, kinds.at)
