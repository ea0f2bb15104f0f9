"""How likely a label is wrong, by what is known of the votes or the score behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from annotator.exporters.deciders import Posterior, posterior
from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided
from annotator.models import Project

A, TIE = 0, 1
FALLBACK: Final = "dawid-skene"
LEAST_COMPARED: Final = 30  # pairs with two votes, below which raters' errors are not known


class FlipRate:
    """1 - P(chosen is better), a tie as half.

    Where an aggregator that weighs raters decides, by its posterior. Where a majority does, by the
    posterior of Dawid-Skene: of the same votes, weighed by each rater's estimated errors. Where a
    score decides, by the logistic of the difference. Null where too few pairs have two votes.
    """

    key = "flip-rate"

    def __init__(
        self, project: Project, options: ExportOptions, prompts: Sequence[int] | None
    ) -> None:
        self._project, self._options, self._prompts = project, options, prompts
        self._learns = options.decided_by == "votes" and options.aggregator == "majority"
        self._found: Posterior | None = None
        self._sum, self._rows = 0.0, 0
        if options.decided_by != "votes":
            self.method = f"logistic of the difference of the {options.decided_by}'s scores"
        else:
            name = FALLBACK if self._learns else options.aggregator
            self.method = f"posterior of {name}"

    columns: Final = {"flip_rate": "float"}

    def learn(self, connection: psycopg.Connection, *, before: FlipRate | None = None) -> None:
        """``before``: one of the same snapshot that has learned."""
        if before is not None:
            self._found, self.method = before._found, before.method
        elif self._learns:
            asked = self._options.model_copy(update={"aggregator": FALLBACK})
            found = posterior(self._project, asked, connection=connection, prompts=self._prompts)
            compared = int((found.votes > 1).sum())
            if compared >= LEAST_COMPARED:
                self._found = found
                return
            # Whoever never meets another rater looks free of error.
            self.method = (
                f"cannot be told: {compared:,} pairs have two votes, {LEAST_COMPARED} needed"
            )

    def of(self, one: Decided) -> Row:
        p = self._p(one) if self._learns else one.verdict.p
        return {"flip_rate": None if p is None else round(1 - p, 6)}

    def _p(self, one: Decided) -> float | None:
        found = self._found
        # Votes pooled with those of a repeat were two questions to the aggregator.
        if found is None or one.pair.votes != found.votes[one.place]:
            return None
        values = found.values[one.place]
        p_a = float(values[A] + values[TIE] / 2)
        return p_a if one.chosen.id == one.pair.a_id else 1 - p_a

    def flipped(self, cells: Row) -> Row:
        rate = cells["flip_rate"]
        return {"flip_rate": None if rate is None else round(1 - rate, 6)}

    def count(self, rows: list[Row]) -> None:
        known = [row["flip_rate"] for row in rows if row["flip_rate"] is not None]
        self._sum += sum(known)
        self._rows += len(known)

    def constants(self) -> dict[str, Any]:
        mean = round(self._sum / self._rows, 6) if self._rows else None
        return {"method": self.method, "mean": mean, "rows": self._rows}
