"""What a recipe would leave, rule by rule.

Votes are counted exactly for all pairs where a majority decides; what texts, models and rules over
all rows leave out is known from a build without files, for a large project of a sample.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from annotator.exporters.dry import Dry
from annotator.exporters.recipe import REASONS, SPLITS, ExportOptions
from annotator.exporters.verdicts import fate_of_votes
from annotator.queries.datasets import Kinds

# Rule of the form -> the reasons for which it leaves pairs out, in the order of REASONS.
RULES: Final[dict[str, tuple[str, ...]]] = {
    "all": (),
    "raters": ("no_votes", "unselected_votes", "control"),
    "min_votes": ("few_votes",),
    "both_bad": ("both_bad",),
    "ties": ("contradiction", "tie"),
    "agreement": ("low_agreement", "low_posterior"),
    "texts": ("repeated", "identical", "empty_answer", "empty_prompt", "same_prompt",
              "not_representable"),
    "leaks": ("leak",),
    "pairs": ("ranking", "capped"),
    "filters": ("no_score", *(reason for reason in REASONS if reason.startswith("filter_"))),
    "near_duplicates": ("near_duplicate",),
    "lengths": ("length_matched",),
}  # fmt: skip
OF_VOTES: Final = ("all", "raters", "min_votes", "both_bad", "ties", "agreement")


@dataclass(frozen=True)
class Step:
    """One rule: pairs left after it and dropped by it; shares are of all pairs.

    ``is_known``: whether anything was looked at that this rule needs. ``is_about``: scaled up
    from a sample.
    """

    rule: str
    left: int
    dropped: int
    total: int
    is_about: bool = False
    is_known: bool = True

    @property
    def left_share(self) -> float:
        return self.left / self.total if self.total else 0.0

    @property
    def dropped_share(self) -> float:
        return self.dropped / self.total if self.total else 0.0


@dataclass(frozen=True)
class Preview:
    """``rows`` by split is what the files would hold; of a sample, about.

    ``sampled``: pairs that were looked at, 0 where it was all of them or only votes were counted.
    """

    steps: list[Step]
    rows: dict[str, int]
    used: int
    at: datetime
    sampled: int = 0
    are_texts_read: bool = True
    is_part: bool = False  # counts are those of the sample: how many pairs there are took too long

    @property
    def out(self) -> int:
        return sum(self.rows.values())

    @property
    def total(self) -> int:
        return self.steps[0].left

    @property
    def dropped(self) -> int:
        return self.total - self.used

    @property
    def is_about(self) -> bool:
        return self.sampled > 0


def foretell(kinds: Kinds, options: ExportOptions) -> Preview:
    """The same rule as in a build, on kinds of votes instead of pairs: no texts are read."""
    rows, dropped = _fates(kinds, options)
    steps = _steps(dropped, rows.total())
    known = [
        step if step.rule in OF_VOTES else Step(step.rule, step.left, 0, step.total, is_known=False)
        for step in steps
    ]
    found = {split: rows[split] for split in SPLITS if rows[split]}
    return Preview(known, found, rows.total(), kinds.at, are_texts_read=False)


def counted(dry: Dry, *, at: datetime) -> Preview:
    """What a build without files found, where it read every pair."""
    ledger = dry.ledger
    rows = {split: ledger.rows[split] for split in SPLITS if ledger.rows[split]}
    return Preview(_steps(ledger.dropped, ledger.used), rows, ledger.used, at)


def scaled(dry: Dry, kinds: Kinds | None, options: ExportOptions, *, at: datetime) -> Preview:
    """What a sample says of all pairs: votes exact where ``kinds`` counts them, the rest about."""
    ledger = dry.ledger
    sampled = ledger.pairs
    if not sampled:
        return Preview(_steps(Counter(), 0), {}, 0, at)
    by_votes = {reason for rule in OF_VOTES for reason in RULES[rule]}
    if kinds is None:
        part = counted(dry, at=at)
        return replace(part, sampled=sampled, is_part=True)
    if options.aggregator != "majority" or options.decided_by != "votes":
        factor = sum(count for _, count in kinds.counts) / sampled
        dropped = Counter({key: round(n * factor) for key, n in ledger.dropped.items()})
        used, exact = round(ledger.used * factor), False
    else:
        passed, of_votes = _fates(kinds, options)
        left = sampled - sum(n for key, n in ledger.dropped.items() if key in by_votes)
        factor = passed.total() / left if left else 0.0
        of_texts = {k: round(n * factor) for k, n in ledger.dropped.items() if k not in by_votes}
        dropped = of_votes + Counter(of_texts)
        used, exact = passed.total() - sum(of_texts.values()), True
    share = used / ledger.used if ledger.used else 0.0
    steps = [
        Step(one.rule, one.left, one.dropped, one.total, not (exact and one.rule in OF_VOTES))
        for one in _steps(dropped, used)
    ]
    rows = {split: round(ledger.rows[split] * share) for split in SPLITS if ledger.rows[split]}
    return Preview(steps, rows, used, at, sampled=sampled)


def _fates(kinds: Kinds, options: ExportOptions) -> tuple[Counter[str], Counter[str]]:
    """Pairs that their votes let pass, by split, and the others by reason."""
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
    return rows, dropped


def _steps(dropped: Counter[str], used: int) -> list[Step]:
    total = left = used + dropped.total()
    steps = []
    for rule, reasons in RULES.items():
        gone = sum(dropped[reason] for reason in reasons)
        left -= gone
        steps.append(Step(rule, left, gone, total))
    return steps
