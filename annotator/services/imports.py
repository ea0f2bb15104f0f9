"""Reading a file into a project: all of its good rows, or nothing.

The bad rows of a file are reported with their line and reason and change nothing. Whatever ends
an import early (a damaged file, ``strict``, a cancel, a kill) leaves the tables as they were.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from pydantic import ValidationError

from annotator.errors import AppError, Gone, Invalid, MethodFailed
from annotator.importers import IMPORTERS, checking, detection, presets
from annotator.importers.readers import Culprit
from annotator.importers.sources import Source, open_source
from annotator.importers.types import FIELDS, BadRow, Options, Row
from annotator.models import AuditEvent, ImportIssue, Project, Run, User
from annotator.queries import figures
from annotator.services import hashing, runs
from annotator.services.import_rows import Loader
from annotator.services.splits import splitter
from rubrics.registry import pick

STORED: Final = "upload"  # the name of an uploaded file in its run's folder
CHUNK: Final = 1_000  # rows
KEPT_ISSUES: Final = 10_000
LISTED_ISSUES: Final = 100  # in the command's JSON
PREVIEW_ROWS: Final = 5
EXCERPT: Final = 240

Checked = tuple[Row, list[tuple[int, int]]]


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


@dataclass
class Tally:
    """What was read and refused so far."""

    lines: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)
    preview: list[dict[str, Any]] = field(default_factory=list)


def perform(work: runs.Work) -> dict[str, Any]:
    """Do the import of a run and return its result; also what a killed one is asked again."""
    run = work.run
    if run.result.get("committed"):
        return run.result  # killed between the commit and its record
    config = run.config
    options = options_from(config.get("options", {}))
    ImportIssue.objects.filter(run=run).delete()
    began = time.monotonic()
    work.stage("read", "Read")
    tally = Tally()
    with open_source(path_of(run)) as source:
        sample = source.sample()
        found = _format(config.get("format", ""), sample, options)
        read = pick(IMPORTERS, found.key)(options, sample)
        with Loader(
            project=run.project,
            run=run,
            while_waiting=work.check,
            is_simulated=config.get("simulated", False),
        ) as loader:
            for chunk in _chunks(source, read, options, tally, run, loader):
                work.check()
                loader.add(chunk)
                _show(work, source, tally)
            _refuse_if_bad(tally, strict=config.get("strict", False))
            result = _result(source, found, sample, options, tally, loader, run, began)
            loader.record(result)
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


def _format(key: str, sample: list[dict[str, Any]], options: Options) -> detection.Detection:
    if key:
        return detection.Detection(key, "it was named")
    return detection.detect(sample, mapped=list(options.mapping))


def _chunks(
    source: Source, read: Any, options: Options, tally: Tally, run: Run, loader: Loader
) -> Iterator[list[Checked]]:
    """Checked rows, a chunk at a time; bad ones are noted on the way."""
    good: list[tuple[int, Checked]] = []
    issues: list[ImportIssue] = []

    def flush() -> list[Checked]:
        ids = [(row.external_id, row.messages) for _, (row, _) in good]
        taken = loader.taken_ids(ids) if any(one for one, _ in ids) else frozenset()
        for place in sorted(taken):
            number, (row, _) = good[place]
            bad = BadRow("duplicate-id", repr(row.external_id))
            issues.append(_issue(run, number, bad, {"id": row.external_id}, tally))
        _keep(issues, tally)
        kept = [checked for place, (_, checked) in enumerate(good) if place not in taken]
        good.clear()
        issues.clear()
        return kept

    for number, raw in source.rows:
        tally.lines += 1
        try:
            if isinstance(raw, Culprit):
                raise raw.bad
            row = read(raw)
            pairs = checking.check(row, options)
        except BadRow as bad:
            issues.append(_issue(run, number, bad, raw, tally))
        else:
            good.append((number, (row, pairs)))
            if len(tally.preview) < PREVIEW_ROWS:
                tally.preview.append(_preview(number, row))
        if len(good) + len(issues) >= CHUNK:
            yield flush()
    yield flush()


def _issue(run: Run, number: int, bad: BadRow, raw: Any, tally: Tally) -> ImportIssue:
    tally.bad += 1
    tally.reasons[bad.code] += 1
    if len(tally.listed) < LISTED_ISSUES:
        tally.listed.append({"line": number, "reason": bad.reason})
    return ImportIssue(
        run=run, line=number, code=bad.code, reason=bad.reason, excerpt=excerpt(raw, bad)
    )


def _keep(issues: list[ImportIssue], tally: Tally) -> None:
    room = KEPT_ISSUES - (tally.bad - len(issues))
    if room > 0 and issues:
        ImportIssue.objects.bulk_create(issues[:room])


def excerpt(raw: Any, bad: BadRow) -> str:
    """The part of a row to show beside its reason, fit to be stored."""
    if isinstance(raw, Culprit):
        text = raw.text
    else:
        shown = {key: raw[key] for key in bad.columns if key in raw} or raw
        text = _as_text(shown)
    text = text.replace("\0", "␀").encode(errors="replace").decode()
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _as_text(row: dict[str, Any]) -> str:
    try:
        return orjson.dumps(row, default=str).decode()
    except TypeError:  # nested too deeply, or text that is no UTF-8
        return ", ".join(f"{key}: {_cell(value)}" for key, value in row.items())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "…"


def _preview(number: int, row: Row) -> dict[str, Any]:
    answers = [reply.text[:200] for reply in row.replies[:2]]
    return {
        "line": number,
        "prompt": row.messages[-1]["content"][:200],
        "answers": answers,
        "more": max(0, len(row.replies) - 2),
        "hash": hashing.of_prompt(row.messages).hex(),
    }


def _show(work: runs.Work, source: Source, tally: Tally) -> None:
    """Progress by rows where their number is known, else by bytes."""
    message = f"{tally.lines:,} {source.unit}s read"
    if source.total_rows is not None:
        work.progress(tally.lines, source.total_rows, unit="rows", message=message)
    else:
        work.progress(source.bytes_read(), source.size, unit="bytes", message=message)


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
    splits, raters = counts.pop("splits"), counts.pop("raters")
    return {
        **counts,
        "bad_rows": tally.listed,
        "bad_rows_total": tally.bad,
        "reasons": dict(tally.reasons.most_common()),
        "lines": tally.lines,
        "unit": source.unit,
        "splits": dict(splits),
        "raters": dict(raters),
        "format": found.key,
        "format_reason": found.reason,
        "container": source.container,
        "encoding": source.encoding,
        "gzip": source.is_gzip,
        "bytes": source.size,
        "seconds": round(time.monotonic() - began, 3),
        "columns": columns_read(sample, options),
        "preview": [_with_split(one, run) for one in tally.preview],
        "committed": True,
    }


def _with_split(shown: dict[str, Any], run: Run) -> dict[str, Any]:
    options = run.project.options
    split_of = splitter(shares=options.split, seed=options.split_seed)
    found = split_of(bytes.fromhex(shown["hash"])).value
    return {**{name: shown[name] for name in shown if name != "hash"}, "split": found}


def columns_read(sample: list[dict[str, Any]], options: Options) -> list[dict[str, str]]:
    """Which column was read as what, for people: named mappings win over recognized ones."""
    columns = {column for row in sample for column in row}
    mapping, _, _ = presets.guess(columns)
    mapping = {**mapping, **options.mapping}
    return [
        {"field": name, "columns": ", ".join(used), "meaning": FIELDS[name]}
        for name, used in mapping.items()
        if name in FIELDS and set(used) <= columns
    ]
