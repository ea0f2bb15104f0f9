"""Judges and the versions of rubrics that condition them, as pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotator.models import Judge, JudgeReport, Project, RubricVersion
from annotator.queries.judge_report import VERSION, at
from annotator.queries.judges import HEADLINE, what
from rubrics.judging import conditioning


@dataclass(frozen=True)
class Shown:
    """A criterion of a judge. ``is_against``: a yes speaks against an answer."""

    text: str
    is_against: bool
    weight: str
    program: str


@dataclass(frozen=True)
class Conditioned:
    """A judge of a version; ``agreement`` and ``ceiling`` are of its newest report, or None."""

    judge: Judge
    what: str
    judged: int
    agreement: dict[str, Any] | None
    ceiling: dict[str, Any] | None


def find_version(project: Project, number: str) -> RubricVersion | None:
    """By its id as an address has it; None for anything else, also another project's."""
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        return None
    rows = RubricVersion.objects.select_related("rubric", "verifier")
    return rows.filter(rubric__project=project, pk=int(number)).first()


def shown_criteria(judge: Judge) -> list[Shown]:
    """What counts for a judge that was given criteria; [] for all others."""
    criteria = judge.options.get("criteria") if judge.kind in ("llm", "rubric") else None
    return [_shown(one) for one in criteria or ()]


def _shown(one: Any) -> Shown:
    if isinstance(one, dict):
        weight = one["weight"]
        return Shown(one["text"], weight < 0, f"{abs(weight):.3g}", one["program"])
    text, sign, weight = conditioning.read(one)
    return Shown(text, sign < 0, "" if weight == 1 else f"{100 * weight:.1f} %", "")


def conditioned_on(version: RubricVersion, *, most: int = 50) -> list[Conditioned]:
    """Judges in use that were made from this version, the newest first."""
    rows = Judge.objects.filter(rubric_version=version, archived_at=None)
    rows = rows.select_related("rater", "endpoint", "rubric_version__rubric")
    judges = list(rows.defer("template_text").order_by("-pk")[:most])
    reports = JudgeReport.objects.filter(judge__in=judges, figures__version=VERSION)
    reports = reports.order_by("judge_id", "-created_at", "-pk").distinct("judge_id")
    wanted = [at(HEADLINE[name]) for name in ("agreement", "ceiling")]
    found = {pk: values for pk, *values in reports.values_list("judge_id", *wanted)}
    return [
        Conditioned(one, what(one), one.rater.judged, *(found.get(one.pk) or (None, None)))
        for one in judges
    ]
