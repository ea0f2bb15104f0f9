"""One verdict from one or both orders in which two answers were shown."""

from __future__ import annotations

from typing import Final

from annotator.importers import labels
from annotator.importers.types import BadRow, Raw, Vote

UNSAID: Final = "no verdict"
SHOWN: Final = 60  # characters of a verdict that cannot be used


def read_vote(
    row: Raw, rater: str, scheme: labels.Scheme, columns: list[str], *, is_judge: bool
) -> Vote | None:
    """The vote that one or two columns of a row hold; None where they say nothing.

    ``columns``: what was said of the answers as given, and with the two exchanged; both name the
    winner by its first place. A person's label that cannot be read makes the row a bad one; a
    judge's is kept as a verdict that failed, for that is what it was.
    """
    said: list[labels.Reading | None] = []
    unread = ""
    for column in columns:
        value = row.get(column)
        if labels.is_unsaid(value):
            said.append(None)
            continue
        try:
            said.append(scheme(value))
        except BadRow as bad:
            if not is_judge:
                raise BadRow(bad.code, bad.detail, columns=(column,)) from None
            said.append(None)
            unread = unread or repr(value)[:SHOWN]
    found = combined([one for one in said if one is not None])
    if not is_judge:
        return Vote(rater, found[0], found[1], both_bad=found[2]) if found else None
    outcome, strength, both_bad = found or labels.TIE
    return Vote(
        rater,
        outcome,
        strength,
        both_bad=both_bad,
        is_judge=True,
        orders=tuple(None if one is None else one[0] for one in said),
        unread=None if found else unread or UNSAID,
    )


def combined(said: list[labels.Reading]) -> labels.Reading | None:
    """Agree-only: a tie where two orders name different winners; one alone stands for itself."""
    if not said:
        return None
    if len({outcome for outcome, _, _ in said}) > 1:
        return labels.TIE
    strength = min(one for _, one, _ in said)
    return said[0][0], strength, all(bad for _, _, bad in said)
