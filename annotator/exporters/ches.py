"""Products of hidden states of pairs, measured before a build, and the column made of them.

A pair has three: of its answers' mean hidden states with each other and each with itself. They do
not depend on which answer is chosen. They come from a causal language model in a child process
(services.export_ches), and are kept in the run's folder so that a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import numpy as np

from annotator.exporters.verdicts import Decided
from annotator.queries.pair_texts import Batch

FILE: Final = "ches.bin"
RECORD: Final = np.dtype(
    [("a", "<i8"), ("b", "<i8"), ("between", "<f8"), ("of_a", "<f8"), ("of_b", "<f8")]
)
Three = tuple[float, float, float]


def read_records(path: Path) -> Any:
    """Whole records of a file (n,); what a kill left of one is not read."""
    if not path.exists():
        return np.empty(0, RECORD)
    whole = path.stat().st_size // RECORD.itemsize
    return np.fromfile(path, RECORD, count=whole)


class Products:
    """By pair: (between, of a, of b), ordered by id."""

    def __init__(self, records: Any) -> None:
        self._rows = records[np.lexsort((records["b"], records["a"]))]

    def of(self, batch: Batch) -> dict[tuple[int, int], Three]:
        """Of those pairs of a list that were measured."""
        rows, found = self._rows, {}
        for pair in batch.pairs:
            start, end = np.searchsorted(rows["a"], [pair.a_id, pair.a_id + 1])
            place = start + int(np.searchsorted(rows["b"][start:end], pair.b_id))
            if place < end and rows["b"][place] == pair.b_id:
                three = rows[place]
                values = float(three["between"]), float(three["of_a"]), float(three["of_b"])
                if np.isfinite(values).all():
                    found[pair.a_id, pair.b_id] = values
        return found


NONE: Final = Products(np.empty(0, RECORD))
_measured: ContextVar[Products] = ContextVar("measured", default=NONE)


@contextmanager
def measured(path: Path | None) -> Iterator[None]:
    """Sources made in here find the products of a file."""
    token = _measured.set(NONE if path is None else Products(read_records(path)))
    try:
        yield
    finally:
        _measured.reset(token)


def is_measured() -> bool:
    """Whether this is in ``measured``: elsewhere no filter can read what is not there."""
    return _measured.get() is not NONE


class Ches:
    """CHES, normalized by length: <h+, h-> - |h+|^2 of the means over the answers' tokens.

    Razin et al. 2024, Unintentional Unalignment, arXiv 2410.08847.
    """

    key = "ches"
    columns: Final = {"ches_ln": "float"}

    def __init__(self, model: str) -> None:
        self.model = model
        self._products = _measured.get()

    def look_up(self, batch: Batch) -> dict[tuple[int, int], Three]:
        return self._products.of(batch)

    def both(
        self, looked: dict[tuple[int, int], Three], one: Decided
    ) -> tuple[float | None, float | None]:
        """The score of the row and of the row in the other direction."""
        three = looked.get((one.pair.a_id, one.pair.b_id))
        if three is None:
            return None, None
        between, of_a, of_b = three
        found = between - of_a, between - of_b
        return found if one.chosen.id == one.pair.a_id else found[::-1]

    def constants(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "states": "last layer, from the last token of the prompt to the last but one of the"
            " answer, the end of its turn included",
        }
