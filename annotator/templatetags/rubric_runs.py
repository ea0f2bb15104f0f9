"""What a run about a rubric shows of it."""

from __future__ import annotations

from django import template

from annotator.models import Run
from annotator.views.run_rubric import Made, made

register = template.Library()


@register.simple_tag
def rubric_of(run: Run) -> Made:
    """The draft it made, what was dropped, how right it is."""
    return made(run)
