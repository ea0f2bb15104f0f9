"""The cells of a row, and what filters read beside them."""

from __future__ import annotations

from typing import Any

from annotator.exporters.files import Row


class Cells(Row):
    """``beside`` is what filters and rules read and no row holds."""

    __slots__ = ("beside",)

    def __init__(self) -> None:
        super().__init__()
        self.beside: dict[str, Any] = {}


def beside(cells: Row, name: str) -> Any:
    """What is known under this name; None where nothing is."""
    return cells.beside.get(name) if isinstance(cells, Cells) else None
