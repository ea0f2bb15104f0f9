"""What a recipe does, in sentences for the manifest: of what was asked for, not of what could be."""

from __future__ import annotations

from typing import Any, Final

DECIDED: Final = {
    "majority": "The answer with the most votes is chosen. It needs more votes than the other"
    " answer and more than there are calls of a tie.",
    "dawid-skene": "The likelier verdict by Dawid-Skene is chosen; where votes of the same two texts"
    " were added up, the one with the most votes.",
    "crowd-bt": "The likelier verdict by CrowdBT is chosen; where votes of the same two texts were"
    " added up, the one with the most votes.",
    "reward-model": "The answer that the reward model scores higher is chosen, whatever the votes.",
    "rubric": "The answer that the rubric scores higher is chosen, whatever the votes.",
}
TIES: Final = {
    "drop": "Left out and counted: under 'tie' where no answer leads, under 'contradiction' where"
    " both answers have equally many votes.",
    "soft": "Kept as one row with p_chosen .5; which answer stands as chosen says nothing.",
    "both": "Kept as two rows, one in each direction, with p_chosen .5.",
}
BOTH_BAD: Final = {
    "drop": "Left out where more than half of the votes call both answers bad.",
    "keep": "Calls of both answers as bad count as calls of a tie.",
    "negatives": "Both answers are undesirable where more than half of the votes call both bad.",
}
CONTROL: Final = "Votes on control questions never count."
ONCE: Final = "A pair gives one row at most, whatever number of people voted on it."
TWICE: Final = (
    "A pair gives one row at most, whatever number of people voted on it, and a tie one in each"
    " direction."
)


def policy(options: Any) -> dict[str, str]:
    """``options`` is an ExportOptions."""
    by_votes = options.decided_by == "votes"
    return {
        "decided_by": DECIDED[options.aggregator if by_votes else options.decided_by],
        "ties": TIES[options.ties],
        "both_bad": BOTH_BAD[options.both_bad],
        "control": CONTROL,
        "directions": TWICE if options.ties == "both" else ONCE,
    }
