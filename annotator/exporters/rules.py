"""Rules that need all candidate rows before they can drop one: a first pass looks, a second writes.

A rule hears of every row that would be written and says afterwards which pairs are left out, by
their places in the stream. Rules are asked one after the other; each knows what is gone already.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.exporters.files import Row
from annotator.exporters.recipe import REASONS, ExportOptions
from annotator.exporters.score_rules import score_rules
from annotator.exporters.text_rules import text_rules
from annotator.exporters.verdicts import Decided
from annotator.models import Project
from annotator.queries.pair_texts import PromptText

Mask = NDArray[np.bool_]
REASON_NAMES: tuple[str, ...] = ("", *REASONS)


class Rule(Protocol):
    """One pass long. ``reason`` is a key of REASONS."""

    reason: str

    def note(self, prompt: PromptText, one: Decided, cells: Row) -> None:
        """Hear of a candidate row: a few bytes of it may be kept."""
        ...

    def cut(self, gone: Mask) -> NDArray[np.int64]:
        """Places to leave out, of those not ``gone``, a mask (places,)."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """For the manifest, under a key of its own, after ``cut``."""
        ...


def rules_of(
    project: Project, options: ExportOptions, *, connection: psycopg.Connection
) -> list[Rule]:
    """Fresh rules that the recipe asks for, in the order in which they are asked."""
    return [*score_rules(options), *text_rules(options, connection=connection)]


class Cuts:
    """Why a place is left out: a byte per pair, 0 where it is not."""

    def __init__(self) -> None:
        self.codes: bytes = b""

    def settle(self, rules: list[Rule], places: int) -> None:
        """Ask every rule."""
        codes = np.zeros(places, dtype=np.uint8)
        for rule in rules:
            cut = rule.cut(codes > 0)
            fresh = cut[codes[cut] == 0]
            codes[fresh] = REASON_NAMES.index(rule.reason)
        self.codes = codes.tobytes()

    def reason(self, place: int) -> str:
        """ "" where the place stays."""
        return REASON_NAMES[self.codes[place]] if self.codes else ""
