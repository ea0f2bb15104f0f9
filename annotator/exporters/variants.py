"""The source of the columns that variants of DPO read, and of what filters read beside them.

One look-up per list of pairs serves all of them: scores of every model that a column or a filter
asks about come in one statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from annotator.errors import Invalid
from annotator.exporters.cells import Cells
from annotator.exporters.ches import Ches, Three
from annotator.exporters.files import Row
from annotator.exporters.flip_rates import FlipRate
from annotator.exporters.model_scores import Draw, Scores, scores_of
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.reward_columns import ModelFacts, find_model
from annotator.exporters.variant_methods import COLUMN_METHODS
from annotator.exporters.variant_parts import (
    MadpoWeight,
    Ratings,
    Reward01,
    Strength,
    Variance,
    turned,
)
from annotator.exporters.verdicts import Decided
from annotator.models import Project
from annotator.queries.pair_texts import Batch

NOTES: Final = {
    "chosen_reward01": "the reward of chosen from 0 to 1; the manifest says how",
    "madpo_weight": "what the row weighs in MADPO, by the signed margin of the reward model",
    "flip_rate": "the estimated probability that the label is wrong; the manifest says by what",
    "chosen_variance": "how much the ensemble's members disagree on chosen; null for a single model",
    "strength": "mean over models of the standardized margin of chosen over rejected",
    "strength_sd": "how much the models differ in it",
    "chosen_ratings": "mean rating of chosen by people, by attribute",
    "ches_ln": "length-normalized CHES by the model in the manifest: high where training on the"
    " row lowers its own chosen answer",
}


@dataclass(slots=True)
class Looked:
    """What is known of one list of pairs."""

    scores: Scores
    weights: dict[tuple[int, int], tuple[float, float]]
    ratings: dict[int, dict[str, float]]
    ches: dict[tuple[int, int], Three]


class Variants:
    """Asks the parts that a recipe names; ``beside`` holds what the filters read.

    Beside stand "margins", one of each filtering model or None; "drawn", None where an answer has
    no score; "ches"; and for a row in the other direction "back".
    """

    def __init__(
        self,
        project: Project,
        options: ExportOptions,
        *,
        model: ModelFacts | None,
        voters: list[ModelFacts],
        prompts: Sequence[int] | None,
        connection: psycopg.Connection,
    ) -> None:
        wanted = frozenset(options.variants)
        self.voters, self._options = voters, options
        self.reward01 = self.madpo = self.variance = None
        if model is not None:
            self.reward01 = Reward01(options, model) if "reward01" in wanted else None
            self.madpo = MadpoWeight(project, options, model) if "madpo-weight" in wanted else None
            self.variance = Variance(model) if "variance" in wanted else None
        self.flips = FlipRate(project, options, prompts) if "flip-rate" in wanted else None
        self.strength = Strength(voters) if "strength" in wanted else None
        self.ratings = Ratings(project, connection) if "ratings" in wanted else None
        self.ches = Ches(options.causal_model) if options.reads_ches else None
        self._writes_ches = "ches" in wanted
        self._draw = (
            Draw(model, options.draw_answers, options.draw_beta, options.draw_seed)
            if model is not None and options.draw_answers
            else None
        )
        parts = (
            self.reward01, self.madpo, self.flips, self.variance, self.strength, self.ratings,
            self.ches if self._writes_ches else None,
        )  # fmt: skip
        self.parts: dict[str, Any] = {part.key: part for part in parts if part is not None}
        self.columns = {
            name: kind for part in self.parts.values() for name, kind in part.columns.items()
        }
        self.column_notes = {name: _note(name) for name in self.columns}
        asked = [model] if model is not None and (self.madpo or self.variance) else []
        self._models = [one.id for one in (*asked, *voters)]
        self.missing: Counter[str] = Counter()
        self.rows = 0

    def learn(self, connection: psycopg.Connection, *, before: Variants | None = None) -> None:
        """What needs all pairs: not in ``look_up``, which another thread calls while they come."""
        if self.flips is not None:
            self.flips.learn(connection, before=before and before.flips)
        if self.madpo is not None:
            self.madpo.learn(connection, before=before and before.madpo)

    def look_up(self, batch: Batch, connection: psycopg.Connection) -> Looked:
        scores = scores_of(self._models, batch, connection)
        if self._draw is not None:
            drawn, scored = self._draw.of(batch, connection)
            scores = replace(scores, drawn=drawn, scored=scored)
        return Looked(
            scores,
            {} if self.madpo is None else self.madpo.look_up(batch, scores),
            {} if self.ratings is None else self.ratings.look_up(batch, connection),
            {} if self.ches is None else self.ches.look_up(batch),
        )

    def of(self, looked: Looked, one: Decided, cells: Row) -> Row:
        assert isinstance(cells, Cells)
        row, beside, scores = Row(), cells.beside, looked.scores
        back: Row = {}
        if self.reward01 is not None:
            row |= self.reward01.of(cells)
        if self.madpo is not None:
            row["madpo_weight"], back["madpo_weight"] = self.madpo.both(looked.weights, one)
        if self.flips is not None:
            row |= self.flips.of(one)
        if self.variance is not None:
            row |= self.variance.of(scores, one)
        if self.voters:
            margins = [scores.margin(v, one.chosen.id, one.rejected.id) for v in self.voters]
            beside["margins"] = margins
            if self.strength is not None:
                row |= self.strength.of(margins)
        if self.ratings is not None:
            row |= self.ratings.of(looked.ratings, one)
        if self.ches is not None:
            beside["ches"], turned_ches = self.ches.both(looked.ches, one)
            if self._writes_ches:
                row["ches_ln"], back["ches_ln"] = beside["ches"], turned_ches
        if self._draw is not None:
            beside["drawn"] = _is_drawn(scores, one)
        beside["back"] = back
        return row

    def flipped(self, cells: Row) -> Row:
        assert isinstance(cells, Cells)
        row: Row = {}
        for part in self.parts.values():
            if part.key in ("madpo-weight", "ches"):
                row |= {name: cells.beside["back"][name] for name in part.columns}
            elif hasattr(part, "flipped"):
                row |= part.flipped(cells)
            else:
                row |= turned(cells, part.columns)
        return row

    def count(self, rows: list[Row]) -> None:
        self.rows += len(rows)
        for name in self.columns:
            self.missing[name] += sum(row[name] is None for row in rows)
        if self.flips is not None:
            self.flips.count(rows)

    def as_dict(self) -> dict[str, Any]:
        told = {
            key: COLUMN_METHODS[key].as_dict()
            | part.constants()
            | {"missing": {name: self.missing[name] for name in part.columns}}
            for key, part in self.parts.items()
        }
        return {"variants": told} if told else {}

    def notes(self) -> list[str]:
        found = [
            f"`{'`, `'.join(part.columns)}`: {COLUMN_METHODS[key].scale}. For"
            f" {COLUMN_METHODS[key].read_by}."
            for key, part in self.parts.items()
        ]
        if self.madpo is not None and not self.madpo.constants()["calibrated"]:
            found.append("The margins behind `madpo_weight` are **not calibrated**.")
        if self.parts:
            lacking = ", ".join(f"{n:,} `{name}`" for name, n in self.missing.items() if n)
            found.append(f"Of {self.rows:,} rows without a value: {lacking or 'none'}.")
            found.append(
                "No stock trainer reads these columns: `DPOTrainer` drops them without a word."
                " `train_weighted_dpo.py` keeps and uses them."
            )
        return found


def variants_of(
    project: Project,
    options: ExportOptions,
    *,
    connection: psycopg.Connection,
    prompts: Sequence[int] | None = None,
) -> Variants | None:
    """What the columns and the filters of a recipe ask for; None where that is nothing.

    ``prompts``: the stream holds only their pairs. Raises Invalid for a model that there is not,
    or that has scored nothing.
    """
    asks = (options.variants, options.asks_models, options.draw_answers, options.reads_ches)
    if not any(asks):
        return None
    voters = []
    if options.asks_models or "strength" in options.variants:
        voters = [find_model(project, one, connection) for one in options.filter_models]
    if options.reads_ches and project.modality == Project.Modality.IMAGE:
        raise Invalid("CHES reads texts, and the answers of this project are images.")
    model = find_model(project, options.reward_model, connection) if options.reward_model else None
    found = Variants(
        project, options, model=model, voters=voters, prompts=prompts, connection=connection
    )
    if found.ratings is not None and not found.ratings.attributes:
        raise Invalid(
            "Nobody has rated an answer of the training split by attributes.",
            advice="Import or collect ratings, or leave variants=ratings out.",
        )
    return found


def _is_drawn(scores: Scores, one: Decided) -> bool | None:
    """Whether both answers were; None where one could not be, for want of a score."""
    ids = {one.chosen.id, one.rejected.id}
    if not ids <= scores.scored:
        return None
    return ids <= scores.drawn[one.pair.prompt_id]


def _note(name: str) -> str:
    return "the same of rejected" if name.startswith("rejected_") else NOTES[name]
