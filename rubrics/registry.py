"""Named methods: a table maps a stored key to a dotted path that is loaded on first use.

A table is a plain ``dict[str, Method]`` next to what it lists. The web side reads labels and
summaries; only a worker calls ``load``. Keys are data: once stored, a key is never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


class UnknownMethod(LookupError):
    """A key that its table does not have. The message names the keys it has."""


@dataclass(frozen=True)
class Method:
    """One row of a table.

    ``path`` is ``"package.module:attribute"`` of what does the work. ``options`` is the path of
    the method's pydantic ``Options`` model, which must load without heavy imports; empty where
    there is nothing to set.
    """

    path: str
    label: str
    summary: str
    options: str = ""

    def load(self) -> Any:
        """Import and return what ``path`` names. Raises ImportError or AttributeError."""
        return resolve_name(self.path)

    def load_options(self) -> Any:
        """Import and return the ``Options`` model, or None where the method has none."""
        return resolve_name(self.options) if self.options else None


def find(table: Mapping[str, Method], key: str) -> Method:
    """The row stored under ``key``, not loaded. Raises UnknownMethod with the known keys."""
    try:
        return table[key]
    except KeyError:
        known = ", ".join(sorted(table)) or "none"
        raise UnknownMethod(f"There is no method {key!r}. Known: {known}.") from None


def pick(table: Mapping[str, Method], key: str) -> Any:
    """Load the method stored under ``key``. Raises UnknownMethod with the known keys."""
    return find(table, key).load()


def choices(table: Mapping[str, Method]) -> list[tuple[str, str]]:
    """(key, label) for every row, in table order: what a form field offers."""
    return [(key, method.label) for key, method in table.items()]
