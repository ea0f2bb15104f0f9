"""The newest quality report of a project, and how far behind it is."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Sum

from annotator.kinds import KINDS
from annotator.models import Project, QualityReport, Rater

VERSION: Final = 1


def report(project: Project) -> QualityReport | None:
    """The newest report whose figures this version of the product understands."""
    found = (
        QualityReport.objects.filter(project=project, figures__version=VERSION)
        .select_related("run")
        .defer("run__log")
        .order_by("-created_at")
        .first()
    )
    return found


def alpha(project: Project) -> dict[str, Any] | None:
    """Krippendorff's alpha of the newest report, read without the rest of its figures."""
    rows = QualityReport.objects.filter(project=project, figures__version=VERSION)
    found = rows.order_by("-created_at").values_list("figures__agreement__whole__alpha", flat=True)
    return found.first()


def newer(project: Project, found: QualityReport) -> int:
    """How many more judgments there are than when the report was computed.

    From the raters' own counters, so that asking costs nothing, however many there are.
    """
    now = Rater.objects.filter(project=project).aggregate(total=Sum("judged"))["total"] or 0
    return max(0, now - int(found.figures.get("judged", 0)))


def chosen(figures: dict[str, Any], *, since: str, kind: str) -> dict[str, Any]:
    """The table of raters for a choice of the two filters; all of them where there is none."""
    slices = figures["slices"]
    found = slices.get(f"{since}|{kind}") or slices["start|all"]
    return slices[found["same"]] if "same" in found else found


def kinds(figures: dict[str, Any]) -> list[str]:
    """Kinds of task the raters' table can be narrowed to, in the order of their table."""
    there = {key.partition("|")[2] for key in figures["slices"]}
    return [kind for kind in KINDS if kind in there]
