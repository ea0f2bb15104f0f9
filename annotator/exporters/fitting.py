"""Whether a format can hold what a project has, said in words before a build begins."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from annotator.errors import Invalid
from annotator.exporters.files import FLAT
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.sources import Sources
from annotator.exporters.types import Shape
from annotator.models import Project
from annotator.queries import datasets as queries

WORDS: Final = {"text": "answers that are texts", "image": "answers that are pictures"}
OTHER: Final = {
    "text": "Choose pick-a-pic, or raw judgments.",
    "image": "Choose a format of texts, such as trl-preference.",
}


def check_container(columns: dict[str, str], container: str) -> None:
    """Raises Invalid where a table is asked to hold lists."""
    if container != "csv":
        return
    if odd := [name for name, kind in columns.items() if kind not in FLAT]:
        raise Invalid(
            f"CSV holds texts and numbers; here {', '.join(odd)} are more than that.",
            advice="Choose JSONL or Parquet, or a style that writes conversations as text.",
        )


def check_modality(project: Project, form: Any) -> None:
    """``form`` is a class of exporters.types.RowFormat. Raises Invalid."""
    if form.reads != project.modality:
        raise Invalid(
            f"This format is for {WORDS[form.reads]}; this project has {WORDS[project.modality]}.",
            advice=OTHER[form.reads],
        )


def check_fit(
    project: Project,
    make_format: Any,
    options: ExportOptions,
    sources: Sources,
    *,
    connection: psycopg.Connection,
) -> None:
    """All of it, for a format of pairs. Raises Invalid."""
    check_modality(project, make_format)
    if options.both_bad == "negatives" and not make_format.takes_both_bad:
        raise Invalid("both_bad=negatives goes with a format that is unpaired.")
    if options.container != "csv":
        return
    form = make_format(options, Shape(*queries.shape_of(project, connection=connection)))
    columns = form.own | (sources.columns if form.carries_columns else {})
    check_container(columns, options.container)
