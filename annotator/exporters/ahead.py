"""Reading ahead: PostgreSQL works on the next rows while Python writes the last."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

DEPTH: Final = 2  # items that wait to be taken
LOOK_SECONDS: Final = 0.1  # how often a reader that is ahead looks whether anyone still listens


class ahead(Generic[T]):
    """The items of an iterator, read by a thread of its own.

    What the iterator raises is raised to the caller. ``close`` stops the thread and closes the
    iterator in it.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._waiting: Queue[tuple[str, Any]] = Queue(DEPTH)
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, value = self._waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    def close(self) -> None:
        self._is_over.set()
        self._reader.join()

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: the caller raises it
            self._put("error", error)
        else:
            self._put("end", None)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, kind: str, value: Any) -> bool:
        while not self._is_over.is_set():
            try:
                self._waiting.put((kind, value), timeout=LOOK_SECONDS)
            except Full:
                continue
            return True
        return False
