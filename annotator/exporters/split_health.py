"""Whether any prompt stands on two sides: within a dataset, and against those built before it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters.row_index import Records, blocks, distinct, load, prompts_by_split

COMPARED: Final = 20  # versions looked at, the newest first
EXAMPLES: Final = 5


def splits(records: Records, earlier: Iterable[tuple[int, Path]]) -> dict[str, Any]:
    """Prompts by split, those in two of them, and those that stood elsewhere in another version.

    ``earlier``: number and folder of versions, the newest first; one without an index is passed.
    """
    own = prompts_by_split([records])
    together = np.concatenate([*own.values()])
    together.sort()
    shared = int((together[1:] == together[:-1]).sum())
    del together
    found, compared = [], 0
    for number, folder in earlier:
        if compared == COMPARED:
            break
        if load(folder) is None:
            continue
        compared += 1
        theirs = prompts_by_split(blocks(folder))
        moved = [
            _in_both(mine, other)
            for split, mine in own.items()
            for elsewhere, other in theirs.items()
            if elsewhere != split
        ]
        prompts = distinct(np.concatenate(moved))
        if prompts.size:
            examples = prompts[:EXAMPLES].tolist()
            found.append({"version": number, "prompts": int(prompts.size), "examples": examples})
    return {
        "prompts": {split: int(ids.size) for split, ids in own.items() if ids.size},
        "shared": shared,
        "earlier": found,
        "compared": compared,
    }


def _in_both(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is in both; each rises and holds nothing twice."""
    few, many = sorted((some, others), key=len)
    at = np.searchsorted(many, few)
    at[at == len(many)] = 0
    return few[many[at] == few] if len(many) else few
