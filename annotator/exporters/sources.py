"""Where the columns beside the texts come from.

A source looks things up for a list of pairs at a time, in the snapshot that the pairs come from,
and gives the cells of each row. What it lacks is null in the row and counted in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import psycopg

from annotator.exporters import reward_columns
from annotator.exporters.cells import Cells
from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.variants import Variants, variants_of
from annotator.exporters.verdicts import Decided
from annotator.models import Project
from annotator.queries.pair_texts import Batch


class Source(Protocol):
    """``columns``: column -> kind, in the order of a row; ``column_notes`` for the card."""

    @property
    def columns(self) -> dict[str, str]: ...

    @property
    def column_notes(self) -> dict[str, str]: ...

    def look_up(self, batch: Batch, connection: psycopg.Connection) -> Any: ...

    def of(self, looked: Any, one: Decided, cells: Row) -> Row:
        """The cells of a row; ``cells`` are those of the sources before."""
        ...

    def flipped(self, cells: Row) -> Row:
        """The same cells of the row in the other direction."""
        ...

    def count(self, rows: list[Row]) -> None:
        """Hear of rows that were written."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """For the manifest, under keys of its own."""
        ...

    def notes(self) -> list[str]:
        """For the card."""
        ...


VOTE_NOTES: Final = {
    "margin": "how much chosen is preferred; the manifest says from what. RewardTrainer subtracts"
    " it from the reward difference; DPOTrainer does not read it",
    "votes": "votes counted on the pair, ties included",
    "agreement": "the share of those votes that chosen has",
    "p_chosen": "the probability that chosen is the better answer, by what decided the pair; .5"
    " for a tie",
    "prompt_id": "the prompt in Touchstone; pairs of one prompt are not independent",
    "chosen_id": "the chosen response in Touchstone",
    "rejected_id": "the rejected response in Touchstone",
    "pair_id": "the first preference counted: it leads to the judgments behind the row",
}
UNLED: Final = {
    "strength": "ties, and rows whose chosen answer got no vote, because something else decided",
    "votes": "ties, and rows against the votes, because something else decided",
    "reward": "the reward model does not prefer chosen, or has not scored both answers",
}
VOTE_KINDS: Final = {
    "margin": "float", "votes": "int", "agreement": "float", "p_chosen": "float",
    "prompt_id": "int", "chosen_id": "int", "rejected_id": "int", "pair_id": "int",
}  # fmt: skip
IDS: Final = ("chosen_id", "rejected_id", "pair_id")


class VoteColumns:
    """What the votes say: margin, votes, agreement, soft label, and the ids behind the row."""

    column_notes = VOTE_NOTES

    def __init__(self, options: ExportOptions) -> None:
        wanted, self.margin_from = options.wanted_columns, options.margin_from
        names = [name for name in VOTE_KINDS if name in wanted]
        self._with_ids = "response_ids" in wanted
        names += IDS if self._with_ids else ()
        self._names = frozenset(names)
        self.columns = {name: kind for name, kind in VOTE_KINDS.items() if name in self._names}
        self.unled = 0  # rows whose margin says nothing for chosen

    def look_up(self, batch: Batch, connection: psycopg.Connection) -> None:
        return None

    def of(self, looked: Any, one: Decided, cells: Row) -> Row:
        wanted, verdict = self._names, one.verdict
        row: Row = {}
        if "margin" in wanted:
            row["margin"] = self._margin(one)
        if "votes" in wanted:
            row["votes"] = verdict.votes
        if "agreement" in wanted:
            row["agreement"] = verdict.agreement
        if "p_chosen" in wanted:
            row["p_chosen"] = verdict.p
        if "prompt_id" in wanted:
            row["prompt_id"] = one.pair.prompt_id
        if self._with_ids:
            row["chosen_id"], row["rejected_id"] = one.chosen.id, one.rejected.id
            row["pair_id"] = one.pair.pair_id
        return row

    def _margin(self, one: Decided) -> float | None:
        if self.margin_from == "strength":
            return one.strength
        if self.margin_from == "reward":
            return None  # until the rewards are known
        if one.verdict.kind == "tie":
            return 0.0  # which side stands as chosen says nothing
        won, lost = one.pair.wins_a, one.pair.wins_b
        if one.chosen.id == one.pair.b_id:
            won, lost = lost, won
        return round((won - lost) / one.pair.votes, 6) if one.pair.votes else 0.0

    def flipped(self, cells: Row) -> Row:
        row = {name: cells[name] for name in self.columns}
        if self._with_ids:
            row["chosen_id"], row["rejected_id"] = row["rejected_id"], row["chosen_id"]
        if row.get("margin"):
            row["margin"] = -row["margin"]
        if "p_chosen" in row:
            row["p_chosen"] = round(1 - row["p_chosen"], 6)
        return row

    def count(self, rows: list[Row]) -> None:
        if "margin" in self._names:
            self.unled += sum([not (row["margin"] or 0) > 0 for row in rows])

    def as_dict(self) -> dict[str, Any]:
        if "margin" not in self._names:
            return {}
        return {"margin": {"from": self.margin_from, "not_above_0": self.unled}}

    def notes(self) -> list[str]:
        if not self.unled:
            return []
        return [
            f"{self.unled:,} rows have a `margin` that is not above 0: {UNLED[self.margin_from]}."
        ]


class Sources:
    """All sources of a build, asked as one, in the order of their columns."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.columns: dict[str, str] = {}
        self.column_notes: dict[str, str] = {}
        for source in sources:
            self.columns |= source.columns
            self.column_notes |= source.column_notes
        kinds = enumerate(sources)
        self._rewards = next((n for n, one in kinds if isinstance(one, reward_columns.Columns)), -1)
        self._has_beside = any(isinstance(one, Variants) for one in sources)
        self._is_margin_reward = any(
            isinstance(one, VoteColumns) and one.margin_from == "reward" and "margin" in one.columns
            for one in sources
        )

    def learn(self, *, connection: psycopg.Connection, before: Sources | None = None) -> None:
        """What has to be known of all pairs before the first is read.

        ``before``: the sources of an earlier pass over the same snapshot, which know it already.
        """
        known = self.sources if before is None else before.sources
        for source, other in zip(self.sources, known, strict=True):
            if isinstance(source, Variants):
                assert isinstance(other, Variants)
                source.learn(connection, before=None if before is None else other)

    def read(self, batches: Iterator[Batch], *, connection: psycopg.Connection) -> Iterator[Batch]:
        """The same lists, each with what every source looked up in ``extra``."""
        try:
            for batch in batches:
                batch.extra = [source.look_up(batch, connection) for source in self.sources]
                yield batch
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def of(self, looked: list[Any], one: Decided) -> Row:
        """The cells of a row, in the order of ``columns``."""
        if len(self.sources) == 1:  # most recipes: votes alone
            return self.sources[0].of(looked[0], one, {})
        cells: Row = Cells() if self._has_beside else {}
        for source, found in zip(self.sources, looked, strict=True):
            cells |= source.of(found, one, cells)
        if self._is_margin_reward:
            chosen, rejected = cells["chosen_reward"], cells["rejected_reward"]
            cells["margin"] = None if chosen is None or rejected is None else chosen - rejected
        return cells

    def flipped(self, cells: Row) -> Row:
        """The cells of the row in the other direction."""
        turned: Row = {}
        for source in self.sources:
            turned |= source.flipped(cells)
        return turned

    def score(self, looked: list[Any], response_id: int) -> float | None:
        """What decides, of one response, on its own scale."""
        rewards = self.sources[self._rewards]
        assert isinstance(rewards, reward_columns.Columns)
        return rewards.deciding(looked[self._rewards], response_id)

    def count(self, rows: list[Row]) -> None:
        for source in self.sources:
            source.count(rows)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for source in self.sources:
            found |= source.as_dict()
        return found

    def notes(self) -> list[str]:
        return [note for source in self.sources for note in source.notes()]


def sources_of(
    project: Project,
    options: ExportOptions,
    *,
    connection: psycopg.Connection,
    prompts: Sequence[int] | None = None,
) -> Sources:
    """Every source that the recipe asks for. Raises Invalid for one that is not there.

    ``prompts``: the stream holds only their pairs.
    """
    sources: list[Source] = [VoteColumns(options)]
    found = reward_columns.find(project, options, connection=connection)
    if found is not None:
        sources.append(reward_columns.Columns(found, decided_by=options.decided_by))
    variants = variants_of(project, options, connection=connection, prompts=prompts)
    if variants is not None:
        sources.append(variants)
    return Sources(sources)
