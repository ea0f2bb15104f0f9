"""One pass over a project's pairs: every promise about the rows is kept here.

One row per pair; no pair in both directions, save ties where the recipe says so; chosen and
rejected differ; no prompt in two files; in = used + dropped. What a row breaks, it is dropped for.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, Final, Protocol, overload

import numpy as np
import psycopg

from annotator.exporters.ahead import ahead
from annotator.exporters.by_answer import text_key
from annotator.exporters.deciders import Decider
from annotator.exporters.files import Row
from annotator.exporters.filters import Filter
from annotator.exporters.health import Health
from annotator.exporters.per_prompt import cap, take
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.row_index import RowIndex
from annotator.exporters.rules import Cuts, Rule
from annotator.exporters.sources import Sources
from annotator.exporters.types import NotRepresentable, Rendered, RowFormat
from annotator.exporters.verdicts import Decided, Ledger, Verdict, is_first
from annotator.models import Project
from annotator.queries import pairs, pairs_apart
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
    """What a pass needs to know; ``rules`` are those that listen in this pass.

    ``is_large``: so many pairs that a process of its own should read them.
    """

    options: ExportOptions
    form: RowFormat
    sources: Sources
    decider: Decider
    filters: list[Filter]
    rules: list[Rule] = field(default_factory=list)
    cuts: Cuts = field(default_factory=Cuts)
    losers: frozenset[int] = frozenset()
    is_large: bool = False

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
        self.has_text_rules = self.is_empty_dropped or self.is_leak_dropped
        self.has_prompt_rules = bool(
            plan.options.pairs != "all" or plan.options.max_per_prompt or plan.cuts.codes
        )
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
        options = self.options
        texts = self._texts(project, connection, prompts)
        with closing(ahead(self.plan.sources.read(texts, connection=connection))) as batches:
            for batch in batches:
                self.add(batch)
                on_pairs(self.ledger.pairs)
        if prompts is None:
            unvoted = pairs.count_unvoted(project, options.splits, connection=connection)
            self.ledger.drop("no_votes", sum(unvoted.values()))

    def _texts(
        self, project: Project, connection: psycopg.Connection, prompts: Sequence[int] | None
    ) -> Iterator[Batch]:
        selection, is_pooled = self.options.selection(), self.options.repeats == "pool"
        if self.plan.is_large and prompts is None:
            return pairs_apart.batches(
                project, selection, connection=connection, pool_repeats=is_pooled
            )
        read = pairs.chunks(project, selection, connection=connection, prompts=prompts)
        return with_texts(read, connection=connection, pool_repeats=is_pooled)

    def add(self, batch: Batch) -> None:
        """Turn the pairs of whole prompts into rows."""
        prompts = {prompt.id: prompt for prompt in batch.prompts}
        texts, flaws = self._prompts(prompts)
        kept = self._candidates(batch, flaws)
        if batch.has_alike:
            kept = self._one_way(kept, batch.extra)
        if self.has_prompt_rules:
            kept = [one for _, ones in _by_prompt(kept) for one in self._of_prompt(ones)]
        for rule in self.plan.rules:
            for one in kept:
                rule.note(prompts[one.decided.pair.prompt_id], one.decided, one.cells)
        self.places += len(batch)
        by_split: defaultdict[str, list[Rendered]] = defaultdict(list)
        for one in kept:
            by_split[one.decided.pair.split].append(one)
        used: list[Decided] = []
        for split, ones in by_split.items():
            used += self._add_rows(split, ones, prompts, texts)
        # The votes of a repeat were added to the first such pair.
        self.health.hear(
            [pair for at, pair in enumerate(batch.pairs) if at not in batch.repeats]
            if batch.repeats
            else batch.pairs
        )
        self.health.add(used)

    def _prompts(self, prompts: dict[int, PromptText]) -> tuple[dict[int, Any], dict[int, str]]:
        """Each prompt as it stands in a row, and why none of its pairs can be one, by id."""
        texts: dict[int, Any] = {}
        flaws: dict[int, str] = {}
        for pk, prompt in prompts.items():
            try:
                texts[pk] = text = self.form.prompt(prompt)
            except NotRepresentable:
                flaws[pk] = "not_representable"
                continue
            if not text:
                flaws[pk] = "empty_prompt"
            elif pk in self.plan.losers:
                flaws[pk] = "same_prompt"
        return texts, flaws

    def _candidates(self, batch: Batch, flaws: dict[int, str]) -> list[Rendered]:
        """The pairs as they would be written; the others are counted under why not."""
        of, looked, first = self.plan.decider.of, batch.extra, self.places
        found = []
        for at, (pair, a, b) in enumerate(zip(batch.pairs, batch.a, batch.b, strict=True)):
            verdict = of(pair, first + at, looked)
            fate = verdict.fate or flaws.get(pair.prompt_id, "")
            if at in batch.repeats:
                fate = "repeated"
            elif not fate and self.has_text_rules:
                fate = self._flaw_of_texts(a, b)
            if not fate:
                one = self._rendered(_decide(pair, first + at, verdict, a, b), looked)
                if not isinstance(one, str):
                    found.append(one)
                    continue
                fate = one
            self.ledger.drop(fate)
        return found

    def _one_way(self, kept: list[Rendered], looked: Any) -> list[Rendered]:
        """The same two texts of other generators never stand both ways round.

        Where majorities disagree, votes were pooled before; an aggregator or a score may still
        turn between two such pairs: then neither is a row. A tie takes the way of the others.
        """
        ways: defaultdict[tuple[int, frozenset[bytes]], list[bytes]] = defaultdict(list)
        texts = [(_prompt_of(one), text_key(one.chosen), text_key(one.rejected)) for one in kept]
        for kind in ("win", "tie"):
            for one, (pk, chosen, rejected) in zip(kept, texts, strict=True):
                way = ways[pk, frozenset((chosen, rejected))]
                if one.decided.verdict.kind == kind and (not way or kind == "win"):
                    way.append(chosen)
        found = []
        for one, (pk, chosen, rejected) in zip(kept, texts, strict=True):
            way, kind = ways[pk, frozenset((chosen, rejected))], one.decided.verdict.kind
            if kind == "win" and len({*way}) > 1:
                self.ledger.drop("contradiction")
            elif kind == "tie" and way[0] != chosen:
                found += self._turned(one, looked)
            else:
                found.append(one)
        return found

    def _turned(self, one: Rendered, looked: Any) -> list[Rendered]:
        """A tie in the other direction, with cells of its own; nothing where it is dropped."""
        decided = one.decided
        turned = decided._replace(chosen=decided.rejected, rejected=decided.chosen)
        found = self._rendered(turned, looked)
        if isinstance(found, str):
            self.ledger.drop(found)
            return []
        return [found]

    def _flaw_of_texts(self, a: ResponseText, b: ResponseText) -> str:
        if self.is_leak_dropped and (a.leak or b.leak):
            return "leak"
        return "empty_answer" if self.is_empty_dropped and (a.is_empty or b.is_empty) else ""

    def _rendered(self, decided: Decided, looked: Any) -> Rendered | str:
        """A pair as its format writes it, or why it cannot be a row."""
        form = self.form
        try:
            chosen, rejected = form.answer(decided.chosen), form.answer(decided.rejected)
        except NotRepresentable:
            return "not_representable"
        if chosen == rejected:
            return "identical"
        cells = self.plan.sources.of(looked, decided)
        one = Rendered(decided, chosen, rejected, cells)
        if fate := form.flaw(one):
            return fate
        for filter_ in self.plan.filters:
            if fate := filter_.fate(decided, cells):
                return fate
        return one

    def _of_prompt(self, kept: list[Rendered]) -> list[Rendered]:
        """What the ranking, the cap and the global rules leave of one prompt."""
        options = self.options
        if options.pairs != "all" and len(kept) > 1:
            kept = self._keep(kept, take([one.decided for one in kept], options), "ranking")
        if options.max_per_prompt:
            size = 2 if options.ties == "both" and self.form.unit == "pair" else 1
            decided = [one.decided for one in kept]
            chosen = cap(decided, options.max_per_prompt, rows_of_tie=size)
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

    def _add_rows(
        self,
        split: str,
        ones: list[Rendered],
        prompts: dict[int, PromptText],
        texts: dict[int, Any],
    ) -> list[Decided]:
        """Write the rows of some pairs of one split; the pairs that were used."""
        if self.form.unit == "prompt":
            rows, behind, used = self._rows_of_prompts(split, ones, prompts, texts)
        else:
            rows, behind = self._rows_of_pairs(split, ones, texts)
            used = ones
        # Python's hash is keyed per process: nobody can make two texts collide on purpose.
        keys = list(dict.fromkeys([one.decided.pair.prompt_id for one in used]))
        identity = self.form.identity
        self.digests.extend([hash(identity(texts[pk], prompts[pk])) for pk in keys])
        self.prompts.extend(keys)
        self.splits.extend([KEEP_FIRST[split]] * len(keys))
        if rows and self.sink is not None:
            self.sink.write(split, rows, _ShownRows(split, prompts, behind, rows))
        if self.form.carries_columns:
            self.plan.sources.count(rows)
        return [one.decided for one in used]

    def _rows_of_pairs(
        self, split: str, ones: list[Rendered], texts: dict[int, Any]
    ) -> tuple[list[Row], list[Rendered]]:
        """Rows, and the pair behind each."""
        form, behind = self.form, ones
        if self.options.ties == "both":
            behind = [turn for one in ones for turn in self._turns(one)]
        rows = [form.row(texts[one.decided.pair.prompt_id], one) for one in behind]
        if form.carries_columns:
            for row, one in zip(rows, behind, strict=True):
                row.update(one.cells)
        self.index.add_pairs(split, [one.decided for one in behind])
        self.ledger.keep(split, len(ones), rows=len(rows))
        return rows, behind

    def _turns(self, one: Rendered) -> list[Rendered]:
        """A pair; a tie also in the other direction."""
        decided = one.decided
        if decided.verdict.kind != "tie":
            return [one]
        turned = decided._replace(chosen=decided.rejected, rejected=decided.chosen)
        cells = self.plan.sources.flipped(one.cells)
        return [one, Rendered(turned, one.rejected, one.chosen, cells)]

    def _rows_of_prompts(
        self,
        split: str,
        ones: list[Rendered],
        prompts: dict[int, PromptText],
        texts: dict[int, Any],
    ) -> tuple[list[Row], list[Rendered], list[Rendered]]:
        """Rows, a pair behind each, and the pairs that were used."""
        rows: list[Row] = []
        behind: list[Rendered] = []
        used: list[Rendered] = []
        for pk, group in _by_prompt(ones):
            made = self.form.rows(texts[pk], prompts[pk], group)
            if not made:
                self.ledger.drop("even", len(group))
                continue
            self.ledger.keep(split, len(group), rows=len(made))
            for keyed in made:
                self.index.add_keyed(pk, split, keyed)
            rows += [keyed.row for keyed in made]
            behind += [group[0]] * len(made)
            used += group
        return rows, behind, used

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
        return Decided(place, pair, verdict, a, b, _mean(pair.strengths_a, pair.wins_a))
    return Decided(place, pair, verdict, b, a, _mean(pair.strengths_b, pair.wins_b))


@lru_cache(maxsize=4096)
def _mean(strengths: int, wins: int) -> float:
    """Asked for every pair, of a few dozen kinds."""
    return round(strengths / wins, 6) if wins else 0.0


def _by_prompt(ones: list[Rendered]) -> Iterator[tuple[int, list[Rendered]]]:
    """Pairs by prompt, as they follow each other."""
    for pk, group in groupby(ones, key=_prompt_of):
        yield pk, list(group)


def _prompt_of(one: Rendered) -> int:
    return one.decided.pair.prompt_id


class _ShownRows(Sequence[Shown]):
    """Rows as pages show them, made when they are asked for: of a million only a few are."""

    def __init__(
        self,
        split: str,
        prompts: dict[int, PromptText],
        behind: list[Rendered],
        rows: list[Row],
    ) -> None:
        self._split, self._prompts, self._behind, self._rows = split, prompts, behind, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Shown: ...

    @overload
    def __getitem__(self, place: slice) -> list[Shown]: ...

    def __getitem__(self, place: int | slice) -> Shown | list[Shown]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        decided = self._behind[place].decided
        return Shown(
            self._split,
            self._prompts[decided.pair.prompt_id],
            decided.chosen,
            decided.rejected,
            decided.verdict,
            self._rows[place],
        )
