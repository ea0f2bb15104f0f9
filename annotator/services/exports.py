"""Building datasets: checked and queued by ``start``, built and verified by ``perform``.

A version appears whole or not at all. Files are written into a folder of the attempt, read again
from the disk, and renamed in the transaction that makes the version's row: nothing is on offer
before it is complete, whenever the worker is killed.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from pydantic import ValidationError

from annotator.errors import Invalid, MethodFailed
from annotator.exporters import EXPORTERS
from annotator.exporters import manifest as manifests
from annotator.exporters.build import Built, build, build_raw
from annotator.exporters.ches import measured
from annotator.exporters.files import (
    FIRST,
    BadFile,
    FileFacts,
    Row,
    sync_folder,
    verify,
    write_text,
)
from annotator.exporters.filters import filters_of
from annotator.exporters.fitting import check_fit
from annotator.exporters.project_health import beside_rows
from annotator.exporters.raw_format import Facts, RawFormat
from annotator.exporters.recipe import REASONS, ExportOptions
from annotator.exporters.rules import rules_of
from annotator.exporters.shown import short_row, shown
from annotator.exporters.sources import sources_of
from annotator.exporters.types import Shape
from annotator.exporters.verdicts import Ledger
from annotator.models import AuditEvent, DatasetVersion, Project, RecipeVersion, Run, User
from annotator.queries import datasets as queries
from annotator.queries.dataset_health import kept_versions
from annotator.queries.pairs import rater_ids
from annotator.queries.snapshot import current, snapshot
from annotator.services import deliveries, export_checks, export_ches, runs
from rubrics.registry import UnknownMethod, find

CHECK_SECONDS: Final = 0.5  # how often a build looks whether it should stop
FOLDER: Final = "dataset"  # of a finished version, in its run's folder


def read_options(key: str, values: dict[str, Any]) -> ExportOptions:
    """Checked options of a format. Raises Invalid for an unknown format or a bad option."""
    try:
        model = find(EXPORTERS, key).load_options()
    except UnknownMethod as error:
        raise Invalid(str(error)) from None
    try:
        options: ExportOptions = model.model_validate(values)
    except ValidationError as error:
        raise Invalid(explain(error)) from None
    if _holds_null(options.model_dump(mode="json")):
        raise Invalid("An option holds a null character, which no text here may have.")
    return options


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_null, value.values()))
    if isinstance(value, list):
        return any(map(_holds_null, value))
    return isinstance(value, str) and "\0" in value


def check(project: Project, format: str, options: ExportOptions) -> None:
    """Raises Invalid where the options ask for what the project or the format does not have."""
    rater_ids(project, options.selection())
    if not isinstance(options, ExportOptions):
        return
    raw = current()
    sources = sources_of(project, options, connection=raw)
    filters_of(project, options, connection=raw)
    rules_of(project, options, connection=raw)
    if options.reads_ches:
        export_ches.allowed_model(options.causal_model)
    check_fit(project, EXPORTERS[format].load(), options, sources, connection=raw)


def explain(error: ValidationError) -> str:
    """A pydantic error as one line for the user."""
    parts = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        what = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {what}." if where else f"{what[:1].upper()}{what[1:]}.")
    return " ".join(parts)


def start(
    *,
    project: Project,
    format: str,
    options: dict[str, Any],
    by: User | None,
    recipe: RecipeVersion | None = None,
) -> Run:
    """A queued build. The caller enqueues its job on commit. Raises Invalid.

    ``recipe``: where format and options come from; not recorded where they say something else.
    """
    checked = read_options(format, options)
    check(project, format, checked)
    stored = checked.model_dump(mode="json")
    config: dict[str, Any] = {"format": format, "options": stored}
    if _reads_ches(checked):
        config["queue"] = "gpu"
    if recipe is not None and _is_of(recipe, format, stored):
        config["recipe"] = {"id": recipe.pk, "name": recipe.recipe.name, "number": recipe.number}
    return runs.start(
        project=project,
        kind=Run.Kind.EXPORT,
        title=f"Export, {EXPORTERS[format].label}",
        config=config,
        by=by,
    )


def _reads_ches(options: Any) -> bool:
    """Whether a language model has to read the pairs first; raw formats have none."""
    return isinstance(options, ExportOptions) and options.reads_ches


def _is_of(recipe: RecipeVersion, format: str, stored: dict[str, Any]) -> bool:
    """Whether a build that was asked for is what the recipe says, as it is read now."""
    if recipe.format != format:
        return False
    return read_options(format, recipe.options).model_dump(mode="json") == stored


@dataclass
class _Pulse:
    """Says how far a build is, and looks now and then whether it should go on."""

    work: runs.Work
    total: int
    last: float = 0.0

    def pairs(self, done: int) -> None:
        self.work.progress(min(done, self.total), self.total, unit="pairs")
        self.check()

    def check(self) -> None:
        if time.monotonic() - self.last >= CHECK_SECONDS:
            self.work.check()
            self.last = time.monotonic()


@dataclass(frozen=True)
class _Found:
    """What the manifest tells besides the rows, from the same snapshot."""

    raters: list[queries.RaterVotes]
    sides: queries.Sides | None
    postgres: str
    started: datetime
    health: dict[str, Any]


def perform(work: runs.Work) -> dict[str, Any]:
    """Build, verify and publish the version a run asks for; the result for the run's row.

    A run that was killed begins again from nothing; one that had published gives its version.
    """
    run = work.run
    done = DatasetVersion.objects.filter(run=run).first()
    if done is not None:
        return result_of(done)
    options = read_options(run.config["format"], run.config["options"])
    _clear(run)
    folder = run.folder / f"build-{run.token}.tmp"
    try:
        with _disk_errors():
            return _build_in(folder, work, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(run: Run) -> None:
    """Remove what earlier attempts left: none of it was published."""
    for left in [*run.folder.glob("build-*.tmp"), run.folder / FOLDER]:
        shutil.rmtree(left, ignore_errors=True)


def _build_in(folder: Path, work: runs.Work, options: ExportOptions) -> dict[str, Any]:
    run, started = work.run, timezone.now()
    products = export_ches.measure(work, options) if _reads_ches(options) else None
    make_format = EXPORTERS[run.config["format"]].load()
    work.stage("read", "Read and write")
    with snapshot() as connection, measured(products):
        pulse = _Pulse(work, queries.count_pairs(run.project, connection=connection))
        built = _write(folder, run.project, make_format, options, pulse, connection)
        work.stage("health", "Health")
        found = _find(run.project, options, built, started, connection=connection)
    _log_counts(work, built.ledger)
    if not built.files:
        raw = issubclass(make_format, RawFormat)
        what = f"There are no {make_format.noun} yet." if raw else "No pair gives a row."
        raise MethodFailed(what, advice=_why_none(built.ledger))
    work.stage("verify", "Verify")
    _verify(folder, built, pulse)
    checked = export_checks.check(
        folder,
        folder.with_name(f"build-{run.token}-check.tmp"),
        title=run.project.name,
        key=run.config["format"],
        built=built,
        options=options,
        on_wait=pulse.check,
        log=work.log,
    )
    work.stage("publish", "Publish")
    version = _publish(folder, work, options, built, found, checked)
    return result_of(version)


def _write(
    folder: Path,
    project: Project,
    make_format: type[Any],
    options: ExportOptions,
    pulse: _Pulse,
    connection: psycopg.Connection,
) -> Built:
    if issubclass(make_format, RawFormat):
        form = make_format(options)
        return build_raw(project, form, folder, connection=connection, on_rows=pulse.pairs)
    return build(
        project,
        make_format,
        options,
        folder,
        shape=Shape(*queries.shape_of(project, connection=connection)),
        connection=connection,
        on_pairs=pulse.pairs,
        pairs=pulse.total,
    )


def _find(
    project: Project,
    options: ExportOptions,
    built: Built,
    started: datetime,
    *,
    connection: psycopg.Connection,
) -> _Found:
    selection = options.selection()
    raters = (
        built.health.raters()
        if isinstance(built.health, Facts)
        else queries.rater_votes(project, selection, connection=connection)
    )
    versions = ((one.number, deliveries.folder_of(one)) for one in kept_versions(project))
    return _Found(
        raters,
        queries.sides(project, selection, connection=connection),
        connection.info.parameter_status("server_version") or "",
        started,
        beside_rows(
            project, options, built, raters=raters, earlier=versions, connection=connection
        ),
    )


def _log_counts(work: runs.Work, ledger: Ledger) -> None:
    work.log(f"{ledger.pairs:,} pairs in, {ledger.out:,} rows out")
    for reason in REASONS:
        if ledger.dropped[reason]:
            work.log(f"{ledger.dropped[reason]:,} dropped: {REASONS[reason]}")


def _why_none(ledger: Ledger) -> str:
    if not ledger.pairs:
        return "The project has no pairs yet: import some, or have tasks judged."
    reasons = (f"{count:,} {REASONS[key]}" for key, count in ledger.dropped.most_common(3))
    return f"Of {ledger.pairs:,} pairs: {'; '.join(reasons)}."


def _verify(folder: Path, built: Built, pulse: _Pulse) -> None:
    """Read every file again from the disk; keep the first rows for the page."""
    preview: list[dict[str, Any]] = []
    for split, files in built.files.items():
        written = sum(facts.rows for facts in files)
        if written != built.ledger.rows[split]:
            raise MethodFailed(f"{split}: {written:,} rows written, others were counted.")
        first = [row for facts in files for row in _read_again(folder, facts, built, pulse)]
        if not built.shown:
            preview += [{"split": split} | short_row(row) for row in first[:FIRST]]
    preview += [shown(one) for one in built.shown]
    write_text(folder / deliveries.PREVIEW, orjson.dumps(preview).decode())


def _read_again(folder: Path, facts: FileFacts, built: Built, pulse: _Pulse) -> list[Row]:
    try:
        return verify(folder, facts, built.columns, check=pulse.check)
    except BadFile as error:
        raise MethodFailed(
            f"The files do not read back: {error}.",
            advice="Nothing was published. Check the disk, then resume the run.",
        ) from error


def _publish(
    folder: Path,
    work: runs.Work,
    options: ExportOptions,
    built: Built,
    found: _Found,
    checked: list[dict[str, Any]],
) -> DatasetVersion:
    """Make the folder the version's: described, renamed and recorded in one transaction."""
    run = work.run
    final = run.folder / FOLDER
    with transaction.atomic():
        # Holds the run's row to the end: from here on no other worker can take it over.
        work.heartbeat()
        project = Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
        last = project.dataset_versions.aggregate(last=Max("number"))["last"] or 0
        about = manifests.About(
            project, last + 1, run.config["format"], options, found.started, timezone.now()
        )
        facts = manifests.manifest(
            about,
            built,
            raters=found.raters,
            sides=found.sides,
            postgres=found.postgres,
            beside=found.health,
            checked=checked,
        )
        _describe(folder, facts, built)
        os.rename(folder, final)
        sync_folder(run.folder)
        version = DatasetVersion.objects.create(
            project=project,
            run=run,
            number=about.number,
            format=about.key,
            recipe=facts["options"],
            recipe_version_id=run.config.get("recipe", {}).get("id"),
            manifest=facts,
            files=facts["files"],
            folder=str(final.relative_to(settings.WORK_ROOT)),
            rows=facts["counts"]["out"],
            checksum=facts["checksum"],
        )
        _record_build(version, by=run.created_by)
    return version


def _describe(folder: Path, facts: dict[str, Any], built: Built) -> None:
    """Put manifest, card and checksums beside the data; everything is on disk afterwards."""
    pretty = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_text(folder / manifests.MANIFEST, pretty.decode())
    write_text(folder / manifests.CARD, manifests.card(facts, built))
    write_text(folder / manifests.CHECKSUMS, manifests.checksums(built))
    built.index.save(folder)
    for name, text in built.format.extra_files(manifests.names_of(facts["files"])).items():
        write_text(folder / name, text)
    sync_folder(folder)


def _record_build(version: DatasetVersion, *, by: User | None) -> None:
    AuditEvent.objects.create(
        project_id=version.project_id,
        actor=by,
        verb="dataset.build",
        subject=str(version),
        data={"rows": version.rows, "checksum": version.checksum},
    )


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MethodFailed(
            "The disk is full.", advice="Make room where runs are kept, then resume the run."
        ) from error


def result_of(version: DatasetVersion) -> dict[str, Any]:
    """What a finished export leaves on its run's row."""
    return {
        "version": version.number,
        "rows": version.rows,
        "bytes": sum(entry["bytes"] for entry in version.files),
        "pairs": version.manifest["counts"]["in"],
        "dropped": version.manifest["counts"]["dropped"],
        "checksum": version.checksum,
    }
