"""Rules over all rows that look at texts: near-duplicates first, then lengths."""

from __future__ import annotations

import psycopg

from annotator.exporters.length_matching import LengthMatched
from annotator.exporters.near_duplicates import NearDuplicates
from annotator.exporters.recipe import ExportOptions


def text_rules(
    options: ExportOptions, *, connection: psycopg.Connection
) -> list[NearDuplicates | LengthMatched]:
    """Fresh rules that the recipe asks for."""
    rules: list[NearDuplicates | LengthMatched] = []
    if options.near_duplicates:
        rules.append(NearDuplicates(options.near_duplicates, connection=connection))
    if options.lengths == "matched":
        rules.append(LengthMatched())
    return rules
