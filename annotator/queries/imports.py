"""Imports as pages show them: the list, what one brought, its bad rows by reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber

from annotator.importers.reasons import REASONS
from annotator.models import ImportIssue, Project, Run
from annotator.queries import runs
from annotator.queries.pages import Page

SHOWN_LINES: Final = 3
CSV_CHUNK: Final = 500
WIDTH: Final = 1216  # of the strip, in the picture's own units
GAP: Final = 2
LEAST: Final = 3  # a part that is there is seen


@dataclass(frozen=True)
class Culprit:
    line: int
    detail: str
    excerpt: str


@dataclass(frozen=True)
class Group:
    """The bad rows of one reason: how many, what to do, the first of them."""

    title: str
    advice: str
    count: int
    culprits: list[Culprit]

    @property
    def more(self) -> int:
        return self.count - len(self.culprits)


@dataclass(frozen=True)
class Part:
    style: int
    x: float
    width: float


@dataclass(frozen=True)
class Imported:
    """Everything the result of an import shows."""

    result: dict[str, Any]
    groups: list[Group]
    bad: int
    kept_rows: int
    parts: list[Part]
    splits: list[tuple[str, int]]
    raters: list[tuple[str, int]]

    @property
    def is_pairs(self) -> bool:
        """Whether all it brought are pairs, as before there were other kinds."""
        return set(self.result.get("kinds", {})) <= {"pairwise"}

    @property
    def listed(self) -> int:
        """How many bad rows can be downloaded."""
        return min(self.bad, sum(group.count for group in self.groups))

    @property
    def lines(self) -> int:
        return int(self.result.get("lines", 0))

    @property
    def known(self) -> int:
        return int(self.result.get("rows_known", 0))

    @property
    def kept_share(self) -> float | None:
        return self.kept_rows / self.lines if self.lines else None


def listing(project: Project, *, after: int | None) -> Page[runs.Line]:
    return runs.runs(project, kind=Run.Kind.IMPORT, after=after)


def find(project: Project, run_id: int) -> Run | None:
    return (
        Run.objects.filter(project=project, pk=run_id, kind=Run.Kind.IMPORT)
        .select_related("project", "retry_of")
        .defer("log", "retry_of__log")
        .first()
    )


def imported(run: Run) -> Imported:
    result = run.result or {}
    counts = result.get("reasons") or dict(
        run.issues.values_list("code").annotate(found=Count("pk")).order_by("-found")
    )
    bad = result.get("bad_rows_total", sum(counts.values()))
    lines, known = result.get("lines", 0), result.get("rows_known", 0)
    kept = max(0, lines - known - bad)
    splits = result.get("splits", {})
    raters = sorted(result.get("raters", {}).items(), key=lambda item: (-item[1], item[0]))
    return Imported(
        result=result,
        groups=_groups(run, counts),
        bad=bad,
        kept_rows=kept,
        parts=strip([(1, kept), (0, known), (2, bad)]),
        splits=[(name, splits.get(name, 0)) for name in ("train", "validation", "test")],
        raters=raters[:10],
    )


def strip(counts: list[tuple[int, int]]) -> list[Part]:
    """The parts of a bar, each at least visible, in order; (style, count) in."""
    there = [(style, count) for style, count in counts if count]
    room = WIDTH - GAP * (len(there) - 1)
    total = sum(count for _, count in there)
    widths = [max(LEAST, room * count / total) for _, count in there]
    scale = room / sum(widths) if widths else 1
    parts, x = [], 0.0
    for (style, _), width in zip(there, widths, strict=True):
        parts.append(Part(style, round(x, 1), round(width * scale, 1)))
        x += width * scale + GAP
    return parts


def _groups(run: Run, counts: dict[str, int]) -> list[Group]:
    if not counts:
        return []
    place = Window(RowNumber(), partition_by=F("code"), order_by=F("line").asc())
    first: dict[str, list[Culprit]] = {}
    rows = (
        ImportIssue.objects.filter(run=run)
        .annotate(place=place)
        .filter(place__lte=SHOWN_LINES)
        .order_by("code", "line")
    )
    for row in rows:
        title = REASONS[row.code].title if row.code in REASONS else ""
        detail = row.reason.removeprefix(title).removeprefix(": ")
        first.setdefault(row.code, []).append(Culprit(row.line, detail, row.excerpt))
    return [
        Group(
            title=REASONS[code].title if code in REASONS else code,
            advice=REASONS[code].advice if code in REASONS else "",
            count=count,
            culprits=first.get(code, []),
        )
        for code, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def issues(run: Run) -> Iterator[tuple[int, str, str]]:
    """(line, reason, excerpt) of the bad rows that were kept, in the file's order."""
    after = 0
    while True:
        rows = list(
            ImportIssue.objects.filter(run=run, pk__gt=after)
            .order_by("pk")
            .values_list("pk", "line", "reason", "excerpt")[:CSV_CHUNK]
        )
        for pk, line, reason, excerpt in rows:
            yield line, reason, excerpt
            after = pk
        if len(rows) < CSV_CHUNK:
            return
