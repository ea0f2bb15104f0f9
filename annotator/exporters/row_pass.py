"""One pass over a project's pairs: every promise about the rows is kept here.

One row per pair; no pair in both directions, save ties where the recipe says so; chosen and
rejected differ; no prompt in two files; in = used + dropped. What a row breaks, it is dropped for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import psycopg

from annotator.exporters.ahead import ahead
from annotator.exporters.deciders import Decider
from annotator.exporters.files import Row
from annotator.exporters.filters import Filter
from annotator.exporters.health import Health
from annotator.exporters.per_prompt import cap, take
from annotator.exporters.recipe import SPLITS, ExportOptions
from annotator.exporters.row_index import RowIndex
from annotator.exporters.rules import Cuts, Rule
from annotator.exporters.sources import Sources
from annotator.exporters.types import NotRepresentable, Rendered, RowFormat
from annotator.exporters.verdicts import Decided, Ledger, Verdict, is_first
from annotator.models import Project
from annotator.queries import pairs
from annotator.queries.pair_texts import Batch, PromptText, ResponseText, with_texts
from annotator.queries.pairs import Pair

# Of two prompts that read alike, the one in the split that must stay clean is kept.
KEEP_FIRST: Final = {"test": 0, "validation": 1, "train": 2}


class Sink(Protocol):
    """Where rows go."""

    def write(self, split: str, rows: list[Row], shown: Sequence[Shown]) -> None: ...


@dataclass(frozen=True)
class Shown:
    """A row as a page shows it, whatever its format."""

    split: str
    prompt: PromptText
    chosen: ResponseText
    rejected: ResponseText
    verdict: Verdict
    row: Row


@dataclass
class Plan:
    """What a pass needs to know; ``rules`` are those that listen in this pass."""

    options: ExportOptions
    form: RowFormat
    sources: Sources
    decider: Decider
    filters: list[Filter]
    rules: list[Rule] = field(default_factory=list)
    cuts: Cuts = field(default_factory=Cuts)
    losers: frozenset[int] = frozenset()

    @property
    def columns(self) -> dict[str, str]:
        """All columns of a row with their kinds, in order."""
        return self.form.own | (self.sources.columns if self.form.carries_columns else {})


class Pass:
    """Reads pairs and hands rows to a sink, None for nowhere."""

    def __init__(self, plan: Plan, sink: Sink | None) -> None:
        self.plan, self.sink = plan, sink
        self.options, self.form = plan.options, plan.form
        self.ledger, self.health, self.index = Ledger(), Health(), RowIndex()
        self.places = 0
        self.is_empty_dropped = plan.options.empty == "drop"
        self.is_leak_dropped = plan.options.leaks == "drop"
        # One entry per prompt with rows: hash of its text, its id, its split.
        self.digests, self.prompts, self.splits = array("q"), array("q"), array("b")

    def run(
        self,
        project: Project,
        connection: psycopg.Connection,
        on_pairs: Callable[[int], object],
        *,
        prompts: Sequence[int] | None = None,
    ) -> None:
        """All pairs of the project, or those of some prompts."""
        selection, options = self.options.selection(), self.options
        read = pairs.chunks(project, selection, connection=connection, prompts=prompts)
        texts = with_texts(read, connection=connection, pool_repeats=options.repeats == "pool")
        with closing(ahead(self.plan.sources.read(texts, connection=connection))) as batches:
            for batch in batches:
                self.add(batch)
                on_pairs(self.ledger.pairs)
        if prompts is None:
            unvoted = pairs.count_unvoted(project, options.splits, connection=connection)
            self.ledger.drop("no_votes", sum(unvoted.values()))

    def add(self, batch: Batch) -> None:
        """Turn the pairs of whole prompts into rows."""
        out: dict[str, tuple[list[Row], list[Shown]]] = {split: ([], []) for split in SPLITS}
        counted: list[Decided] = []
        start, total = 0, len(batch.pairs)
        while start < total:
            prompt_id, end = batch.pairs[start].prompt_id, start + 1
            while end < total and batch.pairs[end].prompt_id == prompt_id:
                end += 1
            self._add_prompt(batch, start, end, out, counted)
            start = end
        self.places += total
        for split, (rows, shown) in out.items():
            if rows:
                self._write(split, rows, shown)
        # The votes of a repeat were added to the first such pair.
        self.health.hear(
            [pair for at, pair in enumerate(batch.pairs) if at not in batch.repeats]
            if batch.repeats
            else batch.pairs
        )
        self.health.add(counted)

    def _write(self, split: str, rows: list[Row], shown: list[Shown]) -> None:
        if self.sink is not None:
            self.sink.write(split, rows, shown)
        if self.form.carries_columns:
            self.plan.sources.count(rows)

    def _add_prompt(
        self,
        batch: Batch,
        start: int,
        end: int,
        out: dict[str, tuple[list[Row], list[Shown]]],
        counted: list[Decided],
    ) -> None:
        prompt = batch.prompts[start]
        try:
            text = self.form.prompt(prompt)
            flaw = self._flaw(prompt.id, text)
        except NotRepresentable:
            text, flaw = None, "not_representable"
        kept = [
            one
            for place in range(start, end)
            if (one := self._candidate(batch, place, flaw)) is not None
        ]
        if not kept:
            return
        kept = self._of_prompt(kept)
        for rule in self.plan.rules:
            for one in kept:
                rule.note(prompt, one.decided, one.cells)
        if not kept:
            return
        split = kept[0].decided.pair.split
        if not self._make_rows(prompt, text, kept, *out[split]):
            self.ledger.drop("even", len(kept))
            return
        self._note(prompt, split, text)
        counted += [one.decided for one in kept]

    def _candidate(self, batch: Batch, at: int, flaw: str) -> Rendered | None:
        """The pair as it would be written, or None and counted under why not."""
        pair, a, b = batch.pairs[at], batch.a[at], batch.b[at]
        place = self.places + at
        verdict = self.plan.decider.of(pair, place, batch.extra)
        fate = verdict.fate or flaw
        if at in batch.repeats:
            fate = "repeated"
        elif not fate:
            fate = self._flaw_of_texts(a, b)
        if fate:
            self.ledger.drop(fate)
            return None
        one = _decide(pair, place, verdict, a, b)
        try:
            chosen, rejected = self.form.answer(one.chosen), self.form.answer(one.rejected)
        except NotRepresentable:
            self.ledger.drop("not_representable")
            return None
        if chosen == rejected:
            self.ledger.drop("identical")
            return None
        cells = self.plan.sources.of(batch.extra, one)
        rendered = Rendered(one, chosen, rejected, cells)
        if fate := self.form.flaw(rendered):
            self.ledger.drop(fate)
            return None
        for filter_ in self.plan.filters:
            if fate := filter_.fate(one, cells):
                self.ledger.drop(fate)
                return None
        return rendered

    def _flaw_of_texts(self, a: ResponseText, b: ResponseText) -> str:
        if self.is_leak_dropped and (a.leak or b.leak):
            return "leak"
        return "empty_answer" if self.is_empty_dropped and (a.is_empty or b.is_empty) else ""

    def _of_prompt(self, kept: list[Rendered]) -> list[Rendered]:
        """What the ranking, the cap and the global rules leave of one prompt."""
        options = self.options
        if options.pairs != "all" and len(kept) > 1:
            kept = self._keep(kept, take([one.decided for one in kept], options), "ranking")
        if options.max_per_prompt and len(kept) > options.max_per_prompt:
            chosen = cap([one.decided for one in kept], options.max_per_prompt)
            kept = self._keep(kept, chosen, "capped")
        if self.plan.cuts.codes:
            left = []
            for one in kept:
                if reason := self.plan.cuts.reason(one.decided.place):
                    self.ledger.drop(reason)
                else:
                    left.append(one)
            kept = left
        return kept

    def _keep(self, kept: list[Rendered], flags: list[bool], reason: str) -> list[Rendered]:
        self.ledger.drop(reason, flags.count(False))
        return [one for one, flag in zip(kept, flags, strict=True) if flag]

    def _make_rows(
        self,
        prompt: PromptText,
        text: Any,
        kept: list[Rendered],
        rows: list[Row],
        shown: list[Shown],
    ) -> bool:
        """Whether there is any row."""
        split, form = kept[0].decided.pair.split, self.form
        if form.unit == "prompt":
            made = form.rows(text, prompt, kept)
            if not made:
                return False
            self.ledger.keep(split, len(kept), rows=len(made))
            for keyed in made:
                rows.append(keyed.row)
                self.index.add_keyed(prompt.id, split, keyed)
                shown.append(_show(split, prompt, kept[0], keyed.row))
            return True
        is_doubled = self.options.ties == "both"
        for one in kept:
            row = form.row(text, one)
            if form.carries_columns:
                row |= one.cells
            rows.append(row)
            shown.append(_show(split, prompt, one, row))
            pair, decided = one.decided.pair, one.decided
            side = 1 if decided.chosen.id == pair.a_id else -1
            self.index.add(prompt.id, split, pair.a_id, pair.b_id, side)
            twice = is_doubled and decided.verdict.kind == "tie"
            if twice:
                rows.append(self._turned(text, one))
                shown.append(_show(split, prompt, one, rows[-1]))
                self.index.add(prompt.id, split, pair.a_id, pair.b_id, -side)
            self.ledger.keep(split, rows=1 + twice)
        return True

    def _turned(self, text: Any, one: Rendered) -> Row:
        """The row of a tie in the other direction."""
        decided = one.decided._replace(chosen=one.decided.rejected, rejected=one.decided.chosen)
        cells = self.plan.sources.flipped(one.cells)
        row = self.form.row(text, Rendered(decided, one.rejected, one.chosen, cells))
        return row | cells if self.form.carries_columns else row

    def _flaw(self, prompt_id: int, text: Any) -> str:
        """Why no pair of this prompt can be a row, or ""."""
        if not text:
            return "empty_prompt"
        return "same_prompt" if prompt_id in self.plan.losers else ""

    def _note(self, prompt: PromptText, split: str, text: Any) -> None:
        # Python's hash is keyed per process: nobody can make two texts collide on purpose.
        self.digests.append(hash(self.form.identity(text, prompt)))
        self.prompts.append(prompt.id)
        self.splits.append(KEEP_FIRST[split])

    def alike(self) -> frozenset[int]:
        """Prompts whose text another prompt has too, less the one of each kind that is kept."""
        digests = np.frombuffer(self.digests, dtype=np.int64)
        ordered = np.sort(digests)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not twice.size:
            return frozenset()
        shared = np.flatnonzero(np.isin(digests, twice))
        keepers: dict[int, tuple[int, int]] = {}
        entries = [
            (self.digests[place], (self.splits[place], self.prompts[place])) for place in shared
        ]
        for digest, entry in entries:
            keepers[digest] = min(entry, keepers.get(digest, entry))
        return frozenset(entry[1] for digest, entry in entries if keepers[digest] != entry)


def _decide(pair: Pair, place: int, verdict: Verdict, a: ResponseText, b: ResponseText) -> Decided:
    if verdict.kind != "win":
        chosen, rejected = (a, b) if is_first(a.id, b.id) else (b, a)
        return Decided(place, pair, verdict, chosen, rejected, 0.0)
    if verdict.a_wins:
        strength = round(pair.strengths_a / pair.wins_a, 6) if pair.wins_a else 0.0
        return Decided(place, pair, verdict, a, b, strength)
    strength = round(pair.strengths_b / pair.wins_b, 6) if pair.wins_b else 0.0
    return Decided(place, pair, verdict, b, a, strength)


def _show(split: str, prompt: PromptText, one: Rendered, row: Row) -> Shown:
    decided = one.decided
    return Shown(split, prompt, decided.chosen, decided.rejected, decided.verdict, row)
