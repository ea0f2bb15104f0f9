"""Confidence intervals for an accuracy, where models look for them: rubrics.intervals."""

from __future__ import annotations

from rubrics.intervals import (
    CELLS_AT_ONCE,
    Accuracy,
    Interval,
    cluster_bootstrap,
    estimate_accuracy,
    group_codes,
    wilson,
)

__all__ = [
    "CELLS_AT_ONCE",
    "Accuracy",
    "Interval",
    "cluster_bootstrap",
    "estimate_accuracy",
    "group_codes",
    "wilson",
]
