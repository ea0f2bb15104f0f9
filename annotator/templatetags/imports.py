"""What a finished import shows of its file."""

from __future__ import annotations

from django import template

from annotator.models import Run
from annotator.queries import imports as queries

register = template.Library()


@register.simple_tag
def import_result(run: Run) -> queries.Imported:
    """The figures of an import and its first bad rows: two statements at most."""
    return queries.imported(run)
