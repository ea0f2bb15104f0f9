"""From pairs to files: passes over one snapshot until every rule holds for all rows at once."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

from annotator.exporters.deciders import decider_of
from annotator.exporters.files import FileFacts, Row, RowFile, open_file
from annotator.exporters.filters import Filter, filters_of
from annotator.exporters.fitting import check_container
from annotator.exporters.health import Health
from annotator.exporters.raw_format import Facts, RawFormat
from annotator.exporters.recipe import SPLITS, ExportOptions
from annotator.exporters.row_index import RowIndex
from annotator.exporters.row_pass import Pass, Plan, Shown, Sink
from annotator.exporters.rules import Cuts, Rule, rules_of
from annotator.exporters.sources import Sources, sources_of
from annotator.exporters.types import RowFormat, SeveralMessages, Shape
from annotator.exporters.verdicts import Ledger
from annotator.models import Project

MakeFormat = Callable[[ExportOptions, Shape], RowFormat]
S = TypeVar("S", bound=Sink)
SHOWN: Final = 5  # rows kept of every file for the page
LARGE: Final = 20_000  # pairs from which on reading them apart saves more than its start costs


@dataclass(frozen=True)
class Built:
    """What one build wrote. ``columns``: column -> kind of a row, in order."""

    files: dict[str, list[FileFacts]]  # by split
    format: RowFormat | RawFormat
    columns: dict[str, str]
    ledger: Ledger
    health: Health | Facts
    sources: Sources | None = None
    filters: list[Filter] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    index: RowIndex = field(default_factory=RowIndex)
    shown: list[Shown] = field(default_factory=list)

    @property
    def names(self) -> dict[str, list[str]]:
        """Split -> names of its files."""
        return {split: [facts.name for facts in files] for split, files in self.files.items()}


class _Files:
    """Rows into a file per split."""

    def __init__(self, folder: Path, columns: dict[str, str], options: ExportOptions) -> None:
        check_container(columns, options.container)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._columns, self._options = folder, columns, options
        self._files: dict[str, RowFile] = {}
        self.shown: dict[str, list[Shown]] = {split: [] for split in SPLITS}

    def write(self, split: str, rows: list[Row], shown: Sequence[Shown]) -> None:
        if split not in self._files:
            self._files[split] = open_file(
                self._folder,
                split,
                self._columns,
                container=self._options.container,
                shard_mb=self._options.shard_mb,
            )
        self._files[split].write(rows)
        missing = SHOWN - len(self.shown[split])
        if missing > 0:
            self.shown[split] += shown[:missing]

    def close(self) -> dict[str, list[FileFacts]]:
        return {split: self._files[split].close() for split in SPLITS if split in self._files}


def build(
    project: Project,
    make_format: MakeFormat,
    options: ExportOptions,
    folder: Path,
    *,
    shape: Shape,
    connection: psycopg.Connection,
    on_pairs: Callable[[int], object],
    pairs: int = 0,
) -> Built:
    """Write the rows of a project into ``folder``, which is emptied first.

    ``on_pairs`` is called with the number of pairs read after every list of them; whatever it
    raises ends the build. ``pairs``: about how many there are.
    """

    def make_sink(plan: Plan) -> _Files:
        return _Files(folder, plan.columns, options)

    one_pass, sink, rules = passes(
        project,
        make_format,
        options,
        make_sink,
        shape=shape,
        connection=connection,
        on_pairs=on_pairs,
        is_large=pairs >= LARGE,
    )
    return _built(one_pass, sink, rules)


def passes(
    project: Project,
    make_format: MakeFormat,
    options: ExportOptions,
    make_sink: Callable[[Plan], S],
    *,
    shape: Shape,
    connection: psycopg.Connection,
    on_pairs: Callable[[int], object],
    prompts: Sequence[int] | None = None,
    is_large: bool = False,
) -> tuple[Pass, S, list[Rule]]:
    """Passes over the pairs, of some ``prompts`` or all; the last one, where its rows went, rules.

    What only shows on the way (an answer of several messages, two prompts that read alike, a rule
    that needs all rows) starts the pass again with that known, so one rule holds for all rows.
    """
    losers: frozenset[int] = frozenset()
    rules: list[Rule] = []
    cuts: Cuts | None = None  # until the rules have heard of every row
    plan: Plan | None = None
    while True:
        plan = plan_of(
            project, make_format, options, shape, plan, connection=connection, prompts=prompts
        )
        plan.losers, plan.is_large = losers, is_large
        if cuts is None:
            rules = rules_of(project, options, connection=connection)
            plan.rules = rules
            cuts = None if rules else Cuts()
        if cuts is not None:
            plan.cuts = cuts
        sink = None if cuts is None else make_sink(plan)
        one_pass = Pass(plan, sink)
        try:
            with no_collection():
                one_pass.run(project, connection, on_pairs, prompts=prompts)
        except SeveralMessages:
            if shape.has_turns:
                raise
            shape = Shape(True, shape.has_transcripts, shape.has_images)
            continue
        if again := one_pass.alike():
            losers |= again
        elif cuts is None:
            cuts = Cuts()
            cuts.settle(rules, one_pass.places)
        else:
            assert sink is not None
            return one_pass, sink, rules


def plan_of(
    project: Project,
    make_format: MakeFormat,
    options: ExportOptions,
    shape: Shape,
    before: Plan | None = None,
    *,
    connection: psycopg.Connection,
    prompts: Sequence[int] | None = None,
) -> Plan:
    """A fresh format, sources, decider and filters. Raises Invalid for what is not there.

    ``prompts``: the pass will read only their pairs. ``before``: the plan of an earlier pass; the
    snapshot holds still, so what was learned for it is not learned again.
    """
    sources = sources_of(project, options, connection=connection, prompts=prompts)
    sources.learn(connection=connection, before=before and before.sources)
    return Plan(
        options=options,
        form=make_format(options, shape),
        sources=sources,
        decider=before.decider
        if before
        else decider_of(project, options, scores=sources, connection=connection, prompts=prompts),
        filters=filters_of(project, options, connection=connection),
    )


def _built(one_pass: Pass, sink: _Files, rules: list[Rule]) -> Built:
    plan = one_pass.plan
    return Built(
        files=sink.close(),
        format=plan.form,
        columns=plan.columns,
        ledger=one_pass.ledger,
        health=one_pass.health,
        sources=plan.sources if plan.form.carries_columns else None,
        filters=plan.filters,
        rules=rules,
        index=one_pass.index,
        shown=[one for some in sink.shown.values() for one in some],
    )


def build_raw(
    project: Project,
    form: RawFormat,
    folder: Path,
    *,
    connection: psycopg.Connection,
    on_rows: Callable[[int], object],
) -> Built:
    """Write what was said in a project, as it was, into ``folder``, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    with no_collection():
        files = form.write(project, folder, connection=connection, on_rows=on_rows)
    written = {split: files[split].close() for split in SPLITS if split in files}
    return Built(written, form, form.columns, form.ledger, form.health)


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


def manifest_parts(built: Built) -> dict[str, Any]:
    """What sources, filters and rules say for the manifest."""
    parts: dict[str, Any] = {} if built.sources is None else built.sources.as_dict()
    for one in [*built.filters, *built.rules]:
        parts |= one.as_dict()
    return parts
