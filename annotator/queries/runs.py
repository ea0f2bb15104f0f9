"""Runs as pages show them: a line in a list, and everything about one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.db.models.functions import Right
from django.utils import timezone

from annotator.models import Project, Run, RunState
from annotator.queries import option_titles
from annotator.queries.pages import Page, page_by_id
from annotator.queries.run_commands import command, ledger

PAGE: Final = 30
TAIL_CHARS: Final = 6_000
TAIL_LINES: Final = 40
ACTIVE: Final = (RunState.QUEUED, RunState.RUNNING, RunState.STOPPING)
# Short looks at something: they have a page of their own and would crowd out the long work.
ASIDE: Final = (Run.Kind.TRY, Run.Kind.ASK)
STATES: Final = {
    "active": ("Active", ACTIVE),
    "done": ("Done", (RunState.DONE,)),
    "failed": ("Failed", (RunState.FAILED,)),
    "paused": ("Paused", (RunState.PAUSED,)),
    "canceled": ("Canceled", (RunState.CANCELED,)),
}
# The shape that stands before the state's word.
MARKS: Final = {
    RunState.QUEUED: "",
    RunState.RUNNING: "running",
    RunState.STOPPING: "running",
    RunState.DONE: "done",
    RunState.FAILED: "failed",
    RunState.CANCELED: "canceled",
    RunState.PAUSED: "canceled",
}


@dataclass(frozen=True)
class Line:
    """One run in a list. ``mark`` is the shape before ``word``; times are of the server."""

    id: int
    kind: str
    title: str
    state: str
    mark: str
    word: str
    outcome: str
    by: str
    progress: int
    total: int | None
    created_at: datetime
    seconds: float | None
    seconds_left: float | None
    retried_as: int | None
    project_id: int
    project_name: str
    project_slug: str

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def percent(self) -> int | None:
        return percent(self.progress, self.total)

    @property
    def can_resume(self) -> bool:
        stopped = (RunState.PAUSED, RunState.CANCELED, RunState.FAILED)
        return self.state in stopped and self.retried_as is None

    @property
    def can_cancel(self) -> bool:
        return self.state in (RunState.QUEUED, RunState.RUNNING)

    @property
    def can_pause(self) -> bool:
        """Only where pausing differs from canceling: what is judged stays, the rest waits."""
        return self.kind == Run.Kind.JUDGE and self.can_cancel


def percent(progress: int, total: int | None) -> int | None:
    """Whole percent, never 100 before the end."""
    return min(100, int(100 * progress / total)) if total else None


def lines_of(rows: QuerySet) -> QuerySet:
    """What a ``Line`` needs and no more: a log is long, and lists have many."""
    return rows.select_related("project", "created_by").defer(
        "log", "config", "project__guidelines", "project__settings"
    )


def lines(rows: Iterable[Run]) -> list[Line]:
    rows = list(rows)
    again = dict(
        Run.objects.filter(retry_of__in=[row.pk for row in rows])
        .order_by("pk")
        .values_list("retry_of_id", "pk")
    )
    return [line(row, retried_as=again.get(row.pk)) for row in rows]


def line(run: Run, *, retried_as: int | None = None) -> Line:
    bad = bad_rows(run)
    mark, word = MARKS[RunState(run.state)], run.state
    if run.state == RunState.DONE and bad:
        mark, word = "warn", f"done, {bad:,} bad row{'s' if bad > 1 else ''}"
    elif run.state == RunState.DONE and run.kind == Run.Kind.JUDGE and run.result.get("failed"):
        mark, word = "warn", f"done, {run.result['failed']:,} failed"
    return Line(
        id=run.pk,
        kind=run.kind,
        title=run.title,
        state=run.state,
        mark=mark,
        word=word,
        outcome=outcome(run) + (f"; retried as {retried_as}" if retried_as else ""),
        by=str(run.created_by) if run.created_by else "",
        progress=run.progress,
        total=run.total,
        created_at=run.created_at,
        seconds=seconds(run),
        seconds_left=seconds_left(run),
        retried_as=retried_as,
        project_id=run.project_id,
        project_name=run.project.name,
        project_slug=run.project.slug,
    )


def seconds(run: Run) -> float | None:
    """How long it took, or has taken so far."""
    if run.started_at is None:
        return None
    return ((run.finished_at or timezone.now()) - run.started_at).total_seconds()


def seconds_left(run: Run) -> float | None:
    """From the progress of the first attempt; a resumed run began somewhere else."""
    if run.state != RunState.RUNNING or run.attempt != 1 or not run.total or not run.progress:
        return None
    if run.kind == Run.Kind.RUBRIC:  # each stage counts anew, and some take much longer
        return None
    if run.progress >= run.total:
        return None  # what follows, such as a check of what was written, is not counted
    spent = seconds(run)
    return None if spent is None else spent * (run.total - run.progress) / run.progress


def bad_rows(run: Run) -> int:
    """How many rows an import refused, however its result says so."""
    for name in ("bad_rows_total", "bad_rows"):
        value = run.result.get(name)
        if isinstance(value, list):
            return len(value)
        if isinstance(value, int):
            return value
    return 0


def outcome(run: Run) -> str:
    """One phrase: what came out, how far it is, or why it stopped."""
    if run.state == RunState.QUEUED:
        return run.message or "waits for a free worker"
    if run.state == RunState.FAILED:
        return _lower(first_sentence(run.error))
    if run.state != RunState.DONE:
        return how_far(run) or run.message
    result = run.result
    match run.kind:
        case Run.Kind.IMPORT:
            return _imported(result)
        case Run.Kind.TRAIN if result.get("accuracy") is not None:
            low, high = result.get("interval") or (None, None)
            text = f"test accuracy {100 * result['accuracy']:.1f} %"
            return text if low is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"
        case Run.Kind.QUALITY if "tasks" in result:
            return f"consensus of {result['tasks']:,} task{'' if result['tasks'] == 1 else 's'}"
        case Run.Kind.JUDGE if "judged" in result:
            return _judged(result)
        case Run.Kind.BATTERY if "is_passed" in result:
            fooled = len(result["failed"])
            by = f"fooled by {fooled:,} probe{'' if fooled == 1 else 's'}"
            return "no probe fooled it" if result["is_passed"] else by
        case Run.Kind.RUBRIC if "criteria" in result:
            return _induced(result)
        case Run.Kind.SCORE if "scored" in result:
            return f"{result['scored']:,} of {result['responses']:,} answers scored"
        case Run.Kind.ASK if "scores" in result:
            return f"{len(result['scores']):,} scores"
        case Run.Kind.EVALUATE if result.get("accuracy"):
            found = result["accuracy"]
            text = f"right on {100 * found['value']:.1f} % of {found['n']:,} pairs"
            return f"{text} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        case Run.Kind.EXPORT if "rows" in result:
            return f"{result['rows']:,} row{'' if result['rows'] == 1 else 's'}"
    return run.message


def _lower(text: str) -> str:
    """The phrase as part of a sentence; names and abbreviations keep their capitals."""
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


def _imported(result: dict[str, Any]) -> str:
    kept = result.get("tasks", 0)
    doubles = result.get("skipped_duplicates", 0)
    if not kept and doubles:
        return f"nothing new, {doubles:,} there already"
    text = f"{kept:,} task{'' if kept == 1 else 's'}"
    votes = result.get("judgments", 0)
    return f"{text}, {votes:,} judgment{'' if votes == 1 else 's'}" if votes else text


def _judged(result: dict[str, Any]) -> str:
    text = f"{result['judged']:,} judged"
    if result.get("failed"):
        text = f"{text}, {result['failed']:,} failed"
    return f"{text}, its budget is spent" if result.get("stopped") == "budget" else text


def _induced(result: dict[str, Any]) -> str:
    count, held = len(result["criteria"]), result.get("held_out") or {}
    text = f"{count:,} criteri{'on' if count == 1 else 'a'}"
    if held.get("accuracy") is not None:
        low, high = held["interval"]
        text += f", right on {100 * held['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{text}, its budget is spent" if result.get("stopped") == "budget" else text


def how_far(run: Run) -> str:
    if run.total is None:
        return f"{run.progress:,} {run.unit}".strip() if run.progress else ""
    return f"{run.progress:,} of {run.total:,} {run.unit}".strip()


def first_sentence(text: str, limit: int = 120) -> str:
    head = re.split(r"(?<=[.:!?])\s|\n", text.strip(), maxsplit=1)[0].rstrip(".:")
    return head if len(head) <= limit else f"{head[: limit - 1]}…"


def runs(
    project: Project, *, kind: str = "", state: str = "", after: int | None = None
) -> Page[Line]:
    """Runs of a project, newest first. Those of ``ASIDE`` come where their kind is asked for."""
    rows = Run.objects.filter(project=project)
    rows = rows.filter(kind=kind) if kind else rows.exclude(kind__in=ASIDE)
    if state in STATES:
        rows = rows.filter(state__in=STATES[state][1])
    page = page_by_id(lines_of(rows).order_by("-pk"), after=after, size=PAGE, build=lambda row: row)
    return Page(lines(page.rows), next=page.next, is_first=page.is_first)


def recent(project: Project, *, limit: int = 5) -> list[Line]:
    rows = Run.objects.filter(project=project).exclude(kind__in=ASIDE)
    return lines(lines_of(rows).order_by("-pk")[:limit])


def running(project_ids: Iterable[int], *, limit: int = 6) -> list[Line]:
    """Active runs of these projects, then what ended in the last hour."""
    rows = Run.objects.filter(project__in=list(project_ids)).exclude(kind__in=ASIDE)
    rows = lines_of(rows)
    active = list(rows.filter(state__in=ACTIVE).order_by("pk")[:limit])
    ended = rows.filter(
        state__in=[RunState.DONE, RunState.FAILED],
        finished_at__gt=timezone.now() - timedelta(hours=1),
    ).order_by("-pk")
    return lines([*active, *ended[: max(0, limit - len(active))]])


@dataclass(frozen=True)
class LogLine:
    at: str  # HH:MM:SS of the server, or nothing
    text: str
    level: str  # "", "warn" or "bad"


@dataclass(frozen=True)
class Detail:
    """A run's page, apart from its curves."""

    run: Run
    line: Line
    log: list[LogLine]
    config: list[tuple[str, str]]
    usual: list[tuple[str, str]]  # options that nobody changed
    command: str
    waiting_before: int | None  # queued runs of the same kind in front of it

    @property
    def title(self) -> str:
        """The run's title as the rest of a sentence."""
        return _lower(self.run.title)

    @property
    def judge_id(self) -> int | None:
        """The judge that a run is about, to link to."""
        found = self.run.config.get("judge")
        return found if isinstance(found, int) else None

    @property
    def was_resumed(self) -> bool:
        return self.run.attempt > 1

    @property
    def speed(self) -> float | None:
        spent = self.line.seconds
        if self.run.attempt != 1 or not spent or not self.run.progress:
            return None
        return self.run.progress / spent


def find(project: Project, run_id: int) -> Run | None:
    """The run without its whole log: ``tail`` holds the end of it."""
    return (
        Run.objects.filter(project=project, pk=run_id)
        .select_related("created_by", "retry_of", "project")
        .defer("log", "retry_of__log")
        .annotate(tail=Right("log", TAIL_CHARS))
        .first()
    )


def detail(run: Run) -> Detail:
    retried = Run.objects.filter(retry_of=run).order_by("-pk").values_list("pk", flat=True).first()
    before, usual = None, option_titles.usual(run.config)
    if run.state == RunState.QUEUED:
        before = Run.objects.filter(state__in=ACTIVE, kind=run.kind, pk__lt=run.pk).count()
    return Detail(
        run=run,
        line=line(run, retried_as=retried),
        log=log_lines(run.tail, cut=len(run.tail) == TAIL_CHARS),
        config=ledger(_without(run.config, usual)),
        usual=ledger(usual, titles=option_titles.titles(run.config)),
        command=command(run),
        waiting_before=before,
    )


def _without(config: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A configuration less some of its entries and of its options."""
    options = {k: v for k, v in (config.get("options") or {}).items() if k not in names}
    return {k: v for k, v in config.items() if k not in names} | {"options": options}


STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)Z (.*)")
BAD: Final = re.compile(r"(error|traceback|fatal)\b|\w+Error:", re.IGNORECASE)


def log_lines(text: str, *, cut: bool) -> list[LogLine]:
    """The last lines of a log; the first one is dropped where it was cut in the middle."""
    found = text.splitlines()[1:] if cut else text.splitlines()
    result = []
    for raw in found[-TAIL_LINES:]:
        stamp = STAMP.fullmatch(raw)
        at, text = stamp.groups() if stamp else ("", raw)
        level = "warn" if text.lower().startswith("warning") else "bad" if BAD.match(text) else ""
        result.append(LogLine(at, text, level))
    return result
