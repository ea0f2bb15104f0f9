"""Running out of memory, and going on with less at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import numpy as np
import torch

from models.errors import OutOfMemory

WORDS: Final = ("not enough memory", "out of memory", "bad_alloc", "cannot allocate")
ADVICE: Final = "Choose a smaller model or shorter texts, or run it where there is more memory."
Row = TypeVar("Row")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in WORDS)


@contextmanager
def guard_memory(message: str) -> Iterator[None]:
    """Turn running out of memory into OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"Memory ran out. {message}", advice=ADVICE) from error


def in_batches(
    rows: Sequence[Row],
    lengths: Sequence[int],
    run: Callable[[list[Row]], None],
    *,
    tokens: int,
    check: Callable[[], None],
) -> None:
    """``run`` every row once, neighbors in length together, at most ``tokens`` with padding.

    The longest come first, so that what does not fit fails at once. Where memory runs out the
    batch is halved, and so are those after it. Raises OutOfMemory where one row does not fit;
    ``check`` is called between batches and may raise.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1].tolist()
    at = 0
    while at < len(order):
        check()
        longest = max(1, lengths[order[at]])
        size = max(1, tokens // longest)
        if _fits(run, [rows[i] for i in order[at : at + size]]):
            at += size
        else:
            # Out of the except block: the error no longer holds the tensors it was raised over.
            torch.cuda.empty_cache()
            tried = min(size, len(order) - at)
            tokens = tried // 2 * longest


def _fits(run: Callable[[list[Row]], None], batch: list[Row]) -> bool:
    try:
        run(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) > 1:
            return False
        raise OutOfMemory(
            "Memory ran out on a single text, the longest one left.", advice=ADVICE
        ) from error
    return True
