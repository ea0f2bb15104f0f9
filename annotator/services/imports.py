"""Reading a file into a project: all of its good rows, or nothing.

The bad rows of a file are reported with their line and reason and change nothing. Whatever ends
an import early (a damaged file, ``strict``, a cancel, a kill) leaves the tables as they were.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from pydantic import ValidationError

from annotator.errors import AppError, Gone, Invalid, MethodFailed
from annotator.importers import IMPORTERS, detection, presets, ratings, values, votes
from annotator.importers.sources import Source, open_source
from annotator.importers.types import FIELDS, Options
from annotator.models import AuditEvent, ImportIssue, Project, ProjectSettings, Run, User
from annotator.queries import figures
from annotator.services import images, queue, runs
from annotator.services.import_reading import Reading, Tally
from annotator.services.import_rows import Loader
from annotator.services.splits import splitter
from rubrics.registry import pick

STORED: Final = "upload"  # the name of an uploaded file in its run's folder


def options_from(config: dict[str, Any]) -> Options:
    """Validate how rows are read. Raises Invalid with the first reason."""
    try:
        return Options.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise Invalid(f"{where}: {message}" if where else message) from None


def start(
    *,
    project: Project,
    name: str,
    config: dict[str, Any],
    by: User | None,
    retry_of: Run | None = None,
) -> Run:
    """A queued import. ``config`` holds path, format, strict, simulated and options.

    Raises Invalid for a format or options that do not exist.
    """
    if config.get("format"):
        pick(IMPORTERS, config["format"])
    options_from(config.get("options", {}))
    return runs.start(
        project=project,
        kind=Run.Kind.IMPORT,
        title=f"Import {name}",
        config=config,
        by=by,
        retry_of=retry_of,
    )


def import_file(
    *,
    project: Project,
    path: Path | str,
    format: str = "",
    strict: bool = False,
    options: dict[str, Any] | None = None,
    is_simulated: bool = False,
    by: User | None = None,
) -> Run:
    """Import a file here and now, as a run that the pages show. Raises AppError on failure."""
    config = {
        "path": str(path),
        "format": format,
        "strict": strict,
        "options": options or {},
        "simulated": is_simulated,
    }
    run = start(project=project, name=Path(str(path)).name, config=config, by=by)
    pen = runs.begin(run_id=run.pk, worker="command")
    assert pen is not None  # nobody else knows of this run
    try:
        pen.finish(perform(pen))
    except AppError as error:
        pen.fail(error.message, advice=error.advice)
        raise
    run.refresh_from_db()
    return run


def receive(
    *, project: Project, upload: UploadedFile, config: dict[str, Any], by: User | None
) -> Run:
    """A queued import of an uploaded file, which moves into the run's folder.

    The name it came with is a title and nothing else: it never becomes a path.
    """
    name = Path(upload.name or "upload").name[:120]
    config = {**config, "path": STORED, "absolute": False, "filename": name}
    with transaction.atomic():
        run = start(project=project, name=name, config=config, by=by)
        try:
            _store(upload, run.folder / STORED)
        except BaseException:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise
    return run


def _store(upload: UploadedFile, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with to.open("xb") as file:
            for chunk in upload.chunks(1 << 20):
                file.write(chunk)
    except OSError as error:
        raise MethodFailed(
            f"The file could not be kept on the server: {error.strerror or error}.",
            advice="Most often its disk is full. Nothing was imported.",
        ) from error


def read_again(*, run: Run, config: dict[str, Any], by: User | None) -> Run:
    """A queued import of the file of an earlier one, read in another way.

    Raises Gone where the file is no longer there.
    """
    path_of(run)
    kept = ("path", "absolute", "filename")
    config = {**config, **{name: run.config[name] for name in kept if name in run.config}}
    name = config.get("filename") or Path(config["path"]).name
    return start(project=run.project, name=name, config=config, by=by, retry_of=run)


def path_of(run: Run) -> str:
    """Where a run's file lies: as given for a command; for an upload, in the folder of its run.

    A retry reads what its first run was sent. Raises Gone where the file is no longer there.
    """
    path = run.config["path"]
    if run.config.get("absolute", True):
        return path
    holder: Run | None = run
    while holder is not None:
        if (holder.folder / path).is_file():
            return str(holder.folder / path)
        holder = holder.retry_of
    raise Gone("The uploaded file is no longer on the server.", advice="Upload it again.")


def perform(work: runs.Work) -> dict[str, Any]:
    """Do the import of a run and return its result; also what a killed one is asked again."""
    run = work.run
    if run.result.get("committed"):
        _put_in_order(work)
        return run.result  # killed between the commit and its record
    config = run.config
    options = options_from(config.get("options", {}))
    ImportIssue.objects.filter(run=run).delete()
    began = time.monotonic()
    work.stage("read", "Read")
    with (
        open_source(path_of(run), beside=config.get("absolute", True)) as source,
        _swept(run.project_id),
    ):
        sample = source.sample()
        found = _format(config.get("format", ""), sample, options)
        read = pick(IMPORTERS, found.key)(options, sample)
        with Loader(
            project=run.project,
            run=run,
            while_waiting=work.check,
            is_simulated=config.get("simulated", False),
            is_open=options.people == "open",
        ) as loader:
            reading = Reading(work, source, read, options, loader)
            for chunk in reading.chunks():
                work.check()
                loader.add(chunk)
                reading.show()
            _refuse_if_bad(reading.tally, strict=config.get("strict", False))
            loader.settle()
            result = _result(source, found, sample, options, reading.tally, loader, run, began)
            loader.record(result)
    _put_in_order(work)
    for name in ("figures", "readiness"):  # pages shown right after count again
        figures.forget(run.project_id, name)
    AuditEvent.objects.create(
        project=run.project,
        actor=run.created_by,
        verb="import.done",
        subject=f"run {run.pk}",
        data={key: result[key] for key in ("prompts", "responses", "tasks", "judgments")},
    )
    return result


def _put_in_order(work: runs.Work) -> None:
    """New tasks stand at the end; an order other than the file's has a place for them."""
    if work.run.project.options.sampler != "sequential":
        work.stage("order", "Put in order")
        queue.reorder(work.run.project_id)


@contextmanager
def _swept(project_id: int) -> Iterator[None]:
    """Images are stored before the rows that show them: an import that fails leaves none."""
    try:
        yield
    except BaseException:
        images.sweep(project_id=project_id)
        raise


def _format(key: str, sample: list[dict[str, Any]], options: Options) -> detection.Detection:
    if key:
        return detection.Detection(key, "it was named")
    return detection.detect(sample, mapped=list(options.mapping))


def _refuse_if_bad(tally: Tally, *, strict: bool) -> None:
    if not tally.bad:
        return
    first = tally.listed[0]
    if strict:
        raise Invalid(
            f"{tally.bad:,} of {tally.lines:,} rows are bad, and the import was strict.",
            advice=f"Nothing was imported. The first: line {first['line']}, {first['reason']}.",
        )
    if tally.bad == tally.lines:
        raise Invalid(
            f"None of the {tally.lines:,} rows could be read.",
            advice=f"The first: line {first['line']}, {first['reason']}.",
        )


def _result(
    source: Source,
    found: detection.Detection,
    sample: list[dict[str, Any]],
    options: Options,
    tally: Tally,
    loader: Loader,
    run: Run,
    began: float,
) -> dict[str, Any]:
    counts = dict(vars(loader.counts))
    splits, raters, kinds = (counts.pop(name) for name in ("splits", "raters", "kinds"))
    rated, unread = counts.pop("rated"), counts.pop("unread")
    return {
        **counts,
        "bad_rows": tally.listed,
        "bad_rows_total": tally.bad,
        "reasons": dict(tally.reasons.most_common()),
        "lines": tally.lines,
        "unit": source.unit,
        "splits": dict(splits),
        "raters": dict(raters),
        "kinds": dict(kinds),
        "rated": {name: list(scale) for name, scale in rated.items()},
        "judges": loader.judges,
        "unread": dict(unread),
        "notes": unread_notes(unread)
        + (scale_notes(rated, loader.options) if options.people == "open" else []),
        "leaks": tally.leaks,
        "leaked": tally.leaked,
        "leak_mode": loader.options.leaks,
        "people": options.people,
        "format": found.key,
        "format_reason": found.reason,
        "container": source.container,
        "encoding": source.encoding,
        "gzip": source.is_gzip,
        "bytes": source.size,
        "seconds": round(time.monotonic() - began, 3),
        "columns": columns_read(sample, options, found.key),
        "preview": [_with_split(one, run) for one in tally.preview],
        "committed": True,
    }


def _with_split(shown: dict[str, Any], run: Run) -> dict[str, Any]:
    options = run.project.options
    split_of = splitter(shares=options.split, seed=options.split_seed)
    found = split_of(bytes.fromhex(shown["hash"])).value
    return {**{name: shown[name] for name in shown if name != "hash"}, "split": found}


def unread_notes(unread: Mapping[str, int]) -> list[str]:
    """Which judges said things that cannot be read."""
    if not unread:
        return []
    listed = values.listed([f"{name}: {count:,}" for name, count in unread.items()])
    return [f"Verdicts of judges that cannot be read, kept as failed: {listed}."]


def scale_notes(rated: dict[str, tuple[str, int, int]], options: ProjectSettings) -> list[str]:
    """Where people would be asked something else than the raters of the file were."""
    notes = []
    unknown = {"rating": list[str](), "checklist": list[str]()}
    beyond = []
    for name, (kind, low, high) in rated.items():
        asked = options.attributes if kind == "rating" else [*options.criteria, *options.failures]
        if name not in asked:
            unknown.setdefault(kind, []).append(name)
        if kind == "rating" and (low < options.rating_low or high > options.rating_high):
            beyond.append(f"{low} to {high}")
    if unknown["rating"]:
        notes.append(
            f"The file rates {values.listed(unknown['rating'])}, people here are asked for"
            f" {values.listed(options.attributes)}."
        )
    if unknown["checklist"]:
        notes.append(
            f"The file checks {values.listed(unknown['checklist'])}, which people here are not"
            " asked about."
        )
    if beyond:
        notes.append(
            f"The file’s ratings go from {beyond[0]}, people here rate from"
            f" {options.rating_low} to {options.rating_high}."
        )
    return notes


def columns_read(
    sample: list[dict[str, Any]], options: Options, key: str = ""
) -> list[dict[str, str]]:
    """Which column was read as what, for people: named mappings win over recognized ones."""
    columns = {column for row in sample for column in row}
    if key == "ratings-long":
        mapping, _ = ratings.guess(columns, options.mapping)
    elif key == "votes-long":
        mapping, _, _ = votes.guess(columns, options.mapping)
    else:
        known, _, _ = presets.guess(columns)
        mapping = {**known, **options.mapping}
    if key == "helpsteer" and "ratings" not in mapping:
        mapping = {
            **{name: mapping[name] for name in ("prompt", "system") if name in mapping},
            "response": ["response"],
            "ratings": ratings.helpsteer_columns(columns),
        }
    return [
        {"field": name, "columns": ", ".join(used), "meaning": FIELDS[name]}
        for name, used in mapping.items()
        if name in FIELDS and set(used) <= columns
    ]
