"""How the votes on one item become its verdict, as named methods."""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

AGGREGATORS: Final[dict[str, Method]] = {
    "majority": Method(
        path="models.consensus:majority",
        label="Majority",
        summary="one rater, one vote",
    ),
    "dawid-skene": Method(
        path="models.consensus:dawid_skene",
        label="Dawid–Skene",
        summary="votes weighted by how each rater confuses verdicts, learned from all votes",
    ),
    "crowd-bt": Method(
        path="models.consensus:crowd_bt",
        label="CrowdBT",
        summary="one scale of responses and one reliability per rater, learned together",
    ),
}
