"""Whose reasons stand beside a decision, and which answer they mean by "A"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rubrics.judging.types import Opinion

MAX_RATIONALE: Final = 8_000
ORDINALS: Final = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
]  # candidates in canonical order


def rationale_of(ranks: Sequence[int], opinions: Sequence[Opinion]) -> str:
    """The reasons of one opinion on the winner's side, the one in canonical order if there is one.

    Reasons that were said of another order begin with a line that says which answer was shown as
    A. A tie that nobody called, out of orders that contradict each other, gets both sides.
    """
    spoken = [one for one in opinions if one.reasoning]
    ahead = [one for one in spoken if _sides_with(one, ranks)]
    if ahead:
        return bounded(_told(min(ahead, key=_turned)))
    if len(ranks) == 2 and max(ranks) == 1:
        sides = [
            next(one for one in spoken if one.ranks == said)
            for said in ((1, 2), (2, 1))
            if any(one.ranks == said for one in spoken)
        ]
        return bounded("\n\n".join(map(_told, sides)))
    return ""


def joined(reasons: Sequence[str]) -> str:
    """Reasons given for each candidate by itself, in canonical order."""
    if len(reasons) == 1:
        return bounded(reasons[0])
    each = (MAX_RATIONALE - 30 * len(reasons)) // max(len(reasons), 1)
    return "\n\n".join(
        f"{ordinal(at).capitalize()} answer: {bounded(reason, each)}"
        for at, reason in enumerate(reasons)
        if reason
    )


def ordinal(place: int) -> str:
    return ORDINALS[place] if place < len(ORDINALS) else f"{place + 1}th"


def bounded(text: str, limit: int = MAX_RATIONALE) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sides_with(opinion: Opinion, ranks: Sequence[int]) -> bool:
    """Whether an opinion has the decision's best ahead of all it was shown with, and no others."""
    said = opinion.ranks or ()
    best = {at for at in opinion.shown_order if said[at] == 1}
    wanted = {at for at, rank in enumerate(ranks) if rank == 1}
    return bool(best) and best <= wanted and (max(ranks) > 1) == (len(set(said) - {0}) > 1)


def _turned(opinion: Opinion) -> tuple[bool, float]:
    """Canonical order first, then the surest."""
    sure = abs((opinion.probability if opinion.probability is not None else 0.5) - 0.5)
    return not _is_canonical(opinion), -sure


def _is_canonical(opinion: Opinion) -> bool:
    return opinion.shown_order == tuple(range(len(opinion.ranks or ())))


def _told(opinion: Opinion) -> str:
    if _is_canonical(opinion):
        return opinion.reasoning
    shown = ", ".join(
        f"{label} is the {ordinal(place)} answer"
        for label, place in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", opinion.shown_order, strict=False)
    )
    return f"(Here {shown}.) {opinion.reasoning}"
