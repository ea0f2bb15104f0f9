"""Pages by key: the next page starts after the last row shown, at any depth for the same cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import QuerySet

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a long list. ``next`` is the key to go on after, None at the end."""

    rows: list[T]
    next: int | None = None
    is_first: bool = True

    @property
    def is_only(self) -> bool:
        return self.is_first and self.next is None


def page_by_id(
    rows: QuerySet, *, after: int | None, size: int, build: Callable[[Any], T]
) -> Page[T]:
    """One page of a queryset ordered by ``pk`` or ``-pk``."""
    descending = rows.query.order_by[-1].startswith("-")
    if after is not None:
        rows = rows.filter(**{"pk__lt" if descending else "pk__gt": after})
    found = list(rows[: size + 1])
    more = len(found) > size
    found = found[:size]
    return Page(
        [build(row) for row in found],
        next=found[-1].pk if more else None,
        is_first=after is None,
    )
