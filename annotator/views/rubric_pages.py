"""What every page about a version of a rubric begins with."""

from __future__ import annotations

from django.http import Http404

from annotator.models import RubricVersion
from annotator.queries import rubrics as queries
from annotator.queries.access import Access


def find(access: Access, rubric_id: int, number: int) -> RubricVersion:
    """The version that an address names. Raises Http404 for one of another project."""
    found = queries.find(access.project, rubric_id, number)
    if found is None:
        raise Http404("no such version of a rubric in this project")
    return found
