"""Raw scores of a reward model on another scale, for whoever asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.errors import Conflict
from models import transforms
from models.transforms import Reference

Array = NDArray[np.float64]


def apply(
    transform: str,
    raw: Array,
    *,
    reference: Reference | None,
    references: Sequence[Array] = (),
    unit: float = 1.0,
) -> Array:
    """Scores (n,) of raw scores (n,), NaN where one has none.

    ``references``: for each, the scores of answers to the same prompt. ``unit``: what a difference
    of 1 is in log-odds, where it is not 1 (an ensemble). Raises Conflict where the model has no
    scale.
    """
    if transform == "raw":
        return raw
    if transform == "standardized":
        if reference is None:
            raise Conflict(
                "The project has no answers that a scale could be taken from.",
                advice="Ask for raw scores.",
            )
        return transforms.standardized(raw, reference)
    table = np.full((len(raw), max([1, *map(len, references)])), np.nan)
    for row, own in zip(table, references, strict=True):
        row[: len(own)] = own
    if transform == "par":
        return transforms.par(raw, table, steepness=unit)
    return transforms.log_sigmoid(unit * raw, unit * table)
