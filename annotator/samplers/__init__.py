"""The order in which tasks of one priority are handed out, as named methods."""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

SAMPLERS: Final[dict[str, Method]] = {
    "sequential": Method(
        path="annotator.samplers.orders:sequential",
        label="As imported",
        summary="in the order of the file",
    ),
    "random": Method(
        path="annotator.samplers.orders:at_random",
        label="Random",
        summary="in an order drawn once, the same for everybody",
    ),
    "fewest-votes-first": Method(
        path="annotator.samplers.orders:fewest_votes_first",
        label="Fewest votes first",
        summary="every task gets its first judgment before any gets its second",
    ),
    "least-agreed-first": Method(
        path="annotator.samplers.orders:least_agreed_first",
        label="Least agreed first",
        summary="tasks whose votes disagree most come first; needs two judgments or more",
    ),
}
