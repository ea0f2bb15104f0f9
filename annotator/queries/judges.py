"""Judges as pages show them: the list with what each has earned, and the log of calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import Count, Q, QuerySet

from annotator.models import (
    AcceptRule,
    Battery,
    Endpoint,
    Judge,
    JudgeOutcome,
    JudgeReport,
    LlmCall,
    Project,
    Run,
)
from annotator.queries.judge_report import VERSION, at
from annotator.queries.pages import Page, page_by_id
from annotator.queries.runs import ACTIVE
from rubrics.judging import JUDGES

PAGE: Final = 30
CALLS: Final = 50
OF_JUDGES: Final = (Run.Kind.JUDGE, Run.Kind.BATTERY, Run.Kind.REPORT)
HEADLINE: Final = {
    "agreement": ("agreement", "exact", "judge"),
    "ceiling": ("agreement", "exact", "ceiling"),
    "same": ("position", "same"),
    "ece": ("calibration", "ece"),
    "cost": ("cost", "per_1000"),
}


@dataclass(frozen=True)
class Row:
    """One judge in the list; the estimates are of its newest report."""

    judge: Judge
    what: str
    judged: int
    agreement: dict[str, Any] | None
    ceiling: dict[str, Any] | None
    same: dict[str, Any] | None
    ece: dict[str, Any] | None
    cost: float | None
    battery: Battery | None
    rule: AcceptRule | None


def what(judge: Judge) -> str:
    """A judge in a few words: its kind, its model, how it is asked."""
    if judge.kind == Judge.IMPORTED:
        return "verdicts that came with a file"
    parts = [JUDGES[judge.kind].label if judge.kind in JUDGES else judge.kind]
    if judge.model:
        parts.append(judge.model)
    options = judge.options
    if options.get("mode", "pairwise") != "pairwise":
        parts.append(options["mode"])
    if "orders" in options and options.get("mode") != "pointwise":
        parts.append("both orders" if options["orders"] == "both" else "one order")
    if criteria := options.get("criteria"):
        parts.append(f"{len(criteria)} criteri{'on' if len(criteria) == 1 else 'a'}")
    return ", ".join(parts)


def listing(project: Project, *, after: int | None = None, archived: bool = False) -> Page[Row]:
    """Judges, the newest first."""
    rows = Judge.objects.filter(project=project, archived_at__isnull=not archived)
    rows = rows.select_related("rater", "endpoint", "rubric_version__rubric")
    rows = rows.defer("template_text").order_by("-pk")
    page = page_by_id(rows, after=after, size=PAGE, build=lambda judge: judge)
    judges = [judge.pk for judge in page.rows]
    reports = _newest(JudgeReport.objects.filter(figures__version=VERSION), judges)
    figures = [at(path) for path in HEADLINE.values()]
    found = {
        judge: dict(zip(HEADLINE, values, strict=True))
        for judge, *values in reports.values_list("judge_id", *figures)
    }
    batteries = {one.judge_id: one for one in _newest(Battery.objects.defer("probes"), judges)}
    rules = {one.judge_id: one for one in AcceptRule.objects.filter(judge__in=judges)}
    lines = [
        Row(
            judge=judge,
            what=what(judge),
            judged=judge.rater.judged,
            battery=batteries.get(judge.pk),
            rule=rules.get(judge.pk),
            **(found.get(judge.pk) or dict.fromkeys(HEADLINE)),
        )
        for judge in page.rows
    ]
    return Page(lines, page.next, page.is_first)


def _newest(rows: QuerySet[Any], judges: list[int]) -> QuerySet[Any]:
    """The newest row of each judge."""
    mine = rows.filter(judge__in=judges)
    return mine.order_by("judge_id", "-created_at", "-pk").distinct("judge_id")


def find(project: Project, judge_id: int) -> Judge | None:
    rows = Judge.objects.filter(project=project, pk=judge_id)
    return rows.select_related("rater", "endpoint", "created_by", "rubric_version__rubric").first()


def endpoints(project: Project) -> list[Endpoint]:
    """The project's endpoints with how many judges ask each."""
    rows = Endpoint.objects.filter(project=project, archived_at=None).defer("secret")
    in_use = Count("judges", filter=Q(judges__archived_at=None))
    return list(rows.annotate(judge_count=in_use).order_by("name"))


def active_runs(judge: Judge) -> list[Run]:
    """Runs under way of this judge."""
    rows = Run.objects.filter(
        project_id=judge.project_id, kind__in=OF_JUDGES, state__in=ACTIVE, config__judge=judge.pk
    )
    return list(rows.defer("log").order_by("pk")[:10])


def last_battery(judge: Judge) -> Battery | None:
    return Battery.objects.filter(judge=judge).order_by("-created_at", "-pk").first()


def failures(judge: Judge) -> list[tuple[str, int]]:
    """(reason, tasks) of what this judge could not judge, the most frequent first."""
    rows = JudgeOutcome.objects.filter(judge=judge, error__gt="")  # the index has these together
    return list(rows.values_list("error").annotate(n=Count("pk")).order_by("-n"))


@dataclass(frozen=True)
class Call:
    """One line of the call log."""

    id: int
    model: str
    tokens_in: int
    tokens_out: int
    cost: float
    latency_ms: int
    attempts: int
    finish_reason: str
    run_id: int | None
    created_at: datetime


def calls(project: Project, *, run_id: int | None = None, after: int | None = None) -> Page[Call]:
    """The ledger of a project, or of one run, the newest first."""
    rows = LlmCall.objects.filter(project=project).defer("request", "reply", "logprobs")
    if run_id is not None:
        rows = rows.filter(run_id=run_id)

    def build(row: LlmCall) -> Call:
        return Call(**{name: getattr(row, name) for name in Call.__dataclass_fields__})

    return page_by_id(rows.order_by("-pk"), after=after, size=CALLS, build=build)


def find_call(project: Project, call_id: int) -> LlmCall | None:
    return LlmCall.objects.filter(project=project, pk=call_id).first()
