"""From pairs to files: one pass over a snapshot, every promise about the rows kept on the way.

Promises: one row per pair; no pair in both directions; chosen and rejected differ; no prompt in
two files; in = out + dropped. What a row breaks, it is dropped for, and counted.
"""

from __future__ import annotations

import gc
import shutil
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from annotator.exporters.ahead import ahead
from annotator.exporters.files import FileFacts, Row, RowFile, open_file
from annotator.exporters.health import Counted, Health
from annotator.exporters.judgments import Facts, Judgments
from annotator.exporters.recipe import SPLITS, ExportOptions, Ledger, Verdicts
from annotator.exporters.reward_columns import Columns
from annotator.exporters.types import RowFormat, SeveralMessages, Shape
from annotator.models import Project
from annotator.queries import pairs
from annotator.queries.pair_texts import Batch, PromptText, with_texts

# Of two prompts that read alike, the one in the split that must stay clean is kept.
KEEP_FIRST: Final = {"test": 0, "validation": 1, "train": 2}


@dataclass(frozen=True)
class Built:
    """What one build wrote. ``columns`` as in RowFormat."""

    files: dict[str, FileFacts]  # by split
    format: RowFormat | Judgments
    ledger: Ledger
    health: Health | Facts


def build(
    project: Project,
    make_format: Callable[[ExportOptions, Shape], RowFormat],
    options: ExportOptions,
    folder: Path,
    *,
    shape: Shape,
    connection: psycopg.Connection,
    on_pairs: Callable[[int], object],
) -> Built:
    """Write the rows of a project into ``folder``, which is emptied first.

    ``on_pairs`` is called with the number of pairs read after every list of them; whatever it
    raises ends the build. What only shows on the way (an answer of several messages, two prompts
    that read alike) starts the pass again with that known, so one rule holds for all rows.
    """
    losers: frozenset[int] = frozenset()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        one_pass = _Pass(make_format(options, shape), options, folder, losers)
        try:
            with no_collection():
                one_pass.run(project, connection, on_pairs)
        except SeveralMessages:
            if shape.has_turns:
                raise
            shape = Shape(has_turns=True, has_transcripts=shape.has_transcripts)
            continue
        if again := one_pass.alike():
            losers |= again
            continue
        return one_pass.built


def build_judgments(
    project: Project,
    form: Judgments,
    folder: Path,
    *,
    connection: psycopg.Connection,
    on_rows: Callable[[int], object],
) -> Built:
    """Write a project's judgments into ``folder``, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    with no_collection():
        files = form.write(project, folder, connection=connection, on_rows=on_rows)
    written = {split: files[split].close() for split in SPLITS if split in files}
    return Built(written, form, form.ledger, form.health)


class _Pass:
    def __init__(
        self, form: RowFormat, options: ExportOptions, folder: Path, losers: frozenset[int]
    ) -> None:
        self.form, self.options, self.folder, self.losers = form, options, folder, losers
        self.ledger, self.health = Ledger(), Health()
        self.verdicts = Verdicts(options)
        self.extra: Columns | None = getattr(form, "extra", None)
        self.is_empty_dropped = options.empty == "drop"
        self.is_leak_dropped = options.leaks == "drop"
        self.files: dict[str, RowFile] = {}
        # One entry per prompt with rows: hash of its text, its id, its split.
        self.digests, self.prompts, self.splits = array("q"), array("q"), array("b")

    def run(
        self,
        project: Project,
        connection: psycopg.Connection,
        on_pairs: Callable[[int], object],
    ) -> None:
        read = pairs.chunks(project, self.options.selection(), connection=connection)
        texts = with_texts(read, connection=connection, pool_repeats=self.options.repeats == "pool")
        if self.extra is not None:
            texts = self.extra.read(texts, connection=connection)
        with closing(ahead(texts)) as batches:
            for batch in batches:
                self.add(batch)
                on_pairs(self.ledger.pairs)
        unvoted = pairs.count_unvoted(project, self.options.splits, connection=connection)
        self.ledger.drop("no_votes", sum(unvoted.values()))
        written = {split: self.files[split].close() for split in SPLITS if split in self.files}
        self.built = Built(written, self.form, self.ledger, self.health)

    def add(self, batch: Batch) -> None:
        """Turn pairs into rows. Every line of the loop runs once a pair: it is kept short."""
        rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        counted: list[Counted] = []
        prompt_id, text, flaw, is_noted = -1, None, "", False
        columns = zip(batch.pairs, batch.prompts, batch.a, batch.b, strict=True)
        for place, (pair, prompt, a, b) in enumerate(columns):
            if prompt.id != prompt_id:
                prompt_id, is_noted = prompt.id, False
                text = self.form.prompt(prompt)
                flaw = self._flaw(prompt_id, text)
            verdict = self.verdicts.of(pair)
            fate = verdict.fate or flaw
            if place in batch.repeats:
                fate = "repeated"
            elif not fate and self.is_leak_dropped and (a.leak or b.leak):
                fate = "leak"
            elif not fate and self.is_empty_dropped and (a.is_empty or b.is_empty):
                fate = "empty_answer"
            if fate:
                self.ledger.drop(fate)
                continue
            if verdict.a_wins:
                strength, chosen, rejected = round(pair.strengths_a / pair.wins_a, 6), a, b
            else:
                strength, chosen, rejected = round(pair.strengths_b / pair.wins_b, 6), b, a
            row = self.form.row(pair, text, chosen, rejected, verdict, strength)
            if row["chosen"] == row["rejected"]:
                self.ledger.drop("identical")
                continue
            if self.extra is not None:
                row |= self.extra.of(batch.extra, chosen.id, rejected.id)
            rows[pair.split].append(row)
            counted.append((prompt_id, verdict, strength, chosen, rejected))
            if not is_noted:
                is_noted = True
                self._note(prompt, pair.split, text)
        self._write(rows)
        self.health.add(counted)

    def _flaw(self, prompt_id: int, text: Any) -> str:
        """Why no pair of this prompt can be a row, or ""."""
        if not text:
            return "empty_prompt"
        return "same_prompt" if prompt_id in self.losers else ""

    def _write(self, rows: dict[str, list[Row]]) -> None:
        for split, some in rows.items():
            if not some:
                continue
            if split not in self.files:
                self.files[split] = open_file(
                    self.folder, split, self.form.columns, container=self.options.container
                )
            self.files[split].write(some)
            self.ledger.keep(split, len(some))
            if self.extra is not None:
                self.extra.count(some)

    def _note(self, prompt: PromptText, split: str, text: Any) -> None:
        # Python's hash is keyed per process: nobody can make two texts collide on purpose.
        self.digests.append(hash(text if isinstance(text, str) else prompt.source))
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


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the cycle collector away from a loop that makes no cycles: it costs a quarter of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
