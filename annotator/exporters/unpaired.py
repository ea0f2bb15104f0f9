"""Rows for KTO and BCO: one answer each, desirable or not.

A pair says of two answers which is better; KTO wants to know of one whether it is good. An answer
that won more of its pairs than it lost is desirable, one that lost more is not, and of one that did
as often either nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field

from annotator.exporters.by_answer import Answer, answers_of
from annotator.exporters.files import Row
from annotator.exporters.pair_format import StyledOptions
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.trl import TrlFormat
from annotator.exporters.types import Keyed, Rendered, Shape
from annotator.queries.pair_texts import PromptText

# Where the weighted sizes of both kinds should stand to each other (the KTO paper, 4.2).
LEAST, MOST = 1.0, 4 / 3
AIM: Final = 7 / 6


@dataclass(frozen=True)
class Balance:
    """Weights of the two losses, one of them 1, and the ratio they bring."""

    desirable_weight: float
    undesirable_weight: float
    ratio: float


def balance(desirable: int, undesirable: int) -> Balance | None:
    """Weights with which weighted desirable over weighted undesirable rows is in [1, 4/3].

    1 and 1 where that holds already; else the smaller kind counts more. None where there is but
    one kind.
    """
    if not desirable or not undesirable:
        return None
    ratio, weights = desirable / undesirable, (1.0, 1.0)
    if ratio < LEAST:
        weights = (round(AIM / ratio, 4), 1.0)
    elif ratio > MOST:
        weights = (1.0, round(ratio / AIM, 4))
    return Balance(*weights, ratio=round(ratio * weights[0] / weights[1], 4))


class Options(StyledOptions):
    """What a ``trl-unpaired`` export can be told."""

    mixed: Literal["net", "drop"] = Field(
        "net",
        title="Answers that won and lost",
        description="net: what they did more often decides; drop: they are left out.",
    )


class TrlUnpaired(TrlFormat):
    """prompt, completion, label."""

    unit = "prompt"
    carries_columns = False
    takes_both_bad = True
    reads_ties = True  # a tie says nothing of either answer, and none becomes a row
    trainer = "KTO"
    reading = (
        "KTOTrainer reads `prompt`, `completion` and `label`. Train with more than one row per"
        " device: its estimate of the KL term is made from mismatched rows of a batch."
    )

    def __init__(self, options: ExportOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self.counts: Counter[str] = Counter()
        self._wanted = options.wanted_columns
        self._drops_mixed = getattr(options, "mixed", "net") == "drop"

    @property
    def own(self) -> dict[str, str]:
        kind = "messages" if self.is_chat else "text"
        columns = {"prompt": kind, "completion": kind, "label": "bool"}
        if "votes" in self._wanted:
            columns |= {"wins": "int", "losses": "int"}
        if "prompt_id" in self._wanted:
            columns["prompt_id"] = "int"
        if "response_ids" in self._wanted:
            columns["response_id"] = "int"
        return columns

    @property
    def column_notes(self) -> dict[str, str]:
        return {
            "prompt": "what was asked",
            "completion": "an answer",
            "label": "true: it won more of its pairs than it lost; false: it lost more",
            "wins": "pairs it won",
            "losses": "pairs it lost, those included where both answers were called bad",
            "prompt_id": "the prompt in Touchstone; rows of one prompt are not independent",
            "response_id": "the response in Touchstone",
        }

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        made = []
        for answer in answers_of(pairs):
            if not answer.net:
                self.counts["even"] += 1
            elif self._drops_mixed and answer.is_mixed:
                self.counts["mixed"] += 1
            else:
                label = answer.net > 0
                self.counts["desirable" if label else "undesirable"] += 1
                row = self._row(prompt, answer, source.id)
                made.append(Keyed(row, answer.id, 0, 1 if label else -1))
        return made

    def _row(self, prompt: Any, answer: Answer, prompt_id: int) -> Row:
        row: Row = {"prompt": prompt, "completion": answer.text, "label": answer.net > 0}
        if "votes" in self._wanted:
            row["wins"], row["losses"] = answer.wins, answer.losses
        if "prompt_id" in self._wanted:
            row["prompt_id"] = prompt_id
        if "response_ids" in self._wanted:
            row["response_id"] = answer.id
        return row

    @property
    def balance(self) -> Balance | None:
        return balance(self.counts["desirable"], self.counts["undesirable"])

    @property
    def settings(self) -> str:
        found = self.balance
        if found is None or found.desirable_weight == found.undesirable_weight:
            return ""
        if found.undesirable_weight == 1:
            return f"desirable_weight={found.desirable_weight}"
        return f"undesirable_weight={found.undesirable_weight}"

    def facts(self) -> dict[str, Any]:
        """For the manifest: answers by what became of them, and the balance of both kinds."""
        kinds = ("desirable", "undesirable", "even", "mixed")
        found = self.balance
        return {
            "completions": {kind: self.counts[kind] for kind in kinds},
            "balance": found
            and {
                "desirable_weight": found.desirable_weight,
                "undesirable_weight": found.undesirable_weight,
                "ratio": found.ratio,
                "wanted": [LEAST, round(MOST, 4)],
            },
        }

    def notes(self) -> list[str]:
        return [*super().notes(), self._report()]

    def _report(self) -> str:
        counts = self.counts
        said = (
            f"{counts['desirable']:,} desirable and {counts['undesirable']:,} undesirable rows;"
            f" {counts['even']:,} answers that won as often as they lost are left out"
        )
        if self._drops_mixed:
            said += f", and {counts['mixed']:,} that did either"
        found = self.balance
        if found is None:
            return f"{said}. KTO needs both kinds."
        return (
            f"{said}. With `desirable_weight` {found.desirable_weight:g} and `undesirable_weight`"
            f" {found.undesirable_weight:g} the weighted kinds stand {found.ratio:g} to 1;"
            " 1 to 1.33 is where they should."
        )
