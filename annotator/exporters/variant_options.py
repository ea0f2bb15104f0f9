"""Options of the columns that variants of DPO read."""

from __future__ import annotations

from pydantic import BaseModel


class VariantColumns(BaseModel):
    """Columns for variants of DPO; see annotator.exporters.variants."""
