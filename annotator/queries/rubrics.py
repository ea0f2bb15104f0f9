"""Rubrics as pages show them."""

from __future__ import annotations

from annotator.models import Project, RubricMeasurement, RubricVersion
from rubrics.sheet import Sheet


def find(project: Project, rubric_id: int, number: int) -> RubricVersion | None:
    """A version with its rubric, its verifier and its parent; None for one of another project."""
    rows = RubricVersion.objects.select_related(
        "rubric", "verifier", "verifier__endpoint", "parent", "run", "approved_by"
    )
    return rows.filter(rubric__project=project, rubric_id=rubric_id, number=number).first()


def measurement(version: RubricVersion) -> RubricMeasurement | None:
    """What was measured last, without the sheet it rests on."""
    return version.measurements.defer("sheet").order_by("-id").first()


def sheet(measured: RubricMeasurement) -> Sheet:
    """The scores that a measurement rests on."""
    return Sheet.from_bytes(bytes(measured.sheet))
