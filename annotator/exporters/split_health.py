"""Whether any prompt stands on two sides: within a dataset, and against those built before it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from annotator.exporters.row_index import Records, load, prompts_by_split

COMPARED: Final = 20  # versions looked at, the newest first
EXAMPLES: Final = 5


def splits(records: Records, earlier: Iterable[tuple[int, Path]]) -> dict[str, Any]:
    """Prompts by split, those in two of them, and those that stood elsewhere in another version.

    ``earlier``: number and folder of versions, the newest first; one without an index is passed.
    """
    own = prompts_by_split(records)
    together = np.concatenate([*own.values()]) if own else np.empty(0, np.int64)
    found, compared = [], 0
    for number, folder in earlier:
        if compared == COMPARED:
            break
        older = load(folder)
        if older is None:
            continue
        compared += 1
        theirs = prompts_by_split(older)
        moved = [
            np.intersect1d(mine, other, assume_unique=True)
            for split, mine in own.items()
            for elsewhere, other in theirs.items()
            if elsewhere != split
        ]
        prompts = np.unique(np.concatenate(moved))
        if prompts.size:
            examples = prompts[:EXAMPLES].tolist()
            found.append({"version": number, "prompts": int(prompts.size), "examples": examples})
    return {
        "prompts": {split: int(ids.size) for split, ids in own.items() if ids.size},
        "shared": int(together.size - np.unique(together).size),
        "earlier": found,
        "compared": compared,
    }
