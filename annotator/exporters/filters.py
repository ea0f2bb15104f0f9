"""Filters that drop a row by the cells beside its texts."""

from __future__ import annotations

from typing import Any, Protocol

import psycopg

from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided
from annotator.models import Project


class Filter(Protocol):
    """``fate`` is a key of REASONS, or "" where the row passes."""

    def fate(self, one: Decided, cells: Row) -> str: ...

    def as_dict(self) -> dict[str, Any]:
        """For the manifest, under a key of its own."""
        ...


def filters_of(
    project: Project, options: ExportOptions, *, connection: psycopg.Connection
) -> list[Filter]:
    """What the recipe asks for, in the order in which it is tried. Raises Invalid."""
    return []
