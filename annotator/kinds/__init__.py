"""Kinds of task: what is asked about the responses of a prompt, as a table of named kinds.

A kind turns what the page shows into the canonical verdict and back. It is pure: it knows the
project's settings and the order in which the responses were shown, never the database.
``base.Kind`` says what each one does.
"""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

KINDS: Final[dict[str, Method]] = {
    "pairwise": Method(
        path="annotator.kinds.pairwise:Pairwise",
        label="Pairs",
        summary="which of two is better, on a scale of 3, 5 or 7 steps",
    ),
    "ranking": Method(
        path="annotator.kinds.ranking:Ranking",
        label="Ranking",
        summary="3 to 10 responses from best to worst, ties allowed",
    ),
    "rating": Method(
        path="annotator.kinds.rating:Rating",
        label="Rating",
        summary="each response on a scale, one per attribute",
    ),
    "best-worst": Method(
        path="annotator.kinds.best_worst:BestWorst",
        label="Best and worst",
        summary="the best and the worst of four or more",
    ),
    "checklist": Method(
        path="annotator.kinds.checklist:Checklist",
        label="Checklist",
        summary="yes, no or does not apply for each criterion and response",
    ),
}
