"""Options that leave rows out by what models make of them."""

from __future__ import annotations

from pydantic import BaseModel


class Filters(BaseModel):
    """Filters of rows by scores; see annotator.exporters.filters."""
