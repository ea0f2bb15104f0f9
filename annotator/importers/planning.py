"""What kind of task a row becomes, and which of its replies each task holds."""

from __future__ import annotations

from itertools import combinations
from typing import Final

from annotator.importers.types import AUTO, BadRow, Judged, Options, Row, Vote
from annotator.kinds.base import kind as find_kind
from annotator.kinds.verdict import dense, edges_of_ranks

PAIRWISE: Final = "pairwise"
RATED: Final = ("rating", "checklist")  # kinds whose verdict is a table of values
ALL_PAIRS_UP_TO: Final = 4  # responses; above that each is compared with the next, in a ring
SIZES: Final = {
    key: (find_kind(key).fewest, find_kind(key).most)
    for key in ("ranking", "rating", "best-worst", "checklist")
}


def plan(row: Row, options: Options, *, project_kind: str = PAIRWISE) -> list[tuple[int, ...]]:
    """The replies of each task of a row; ``row.kind`` says of which kind they are afterwards.

    A kind that was asked for stands; otherwise that of the labels, which wins over the project's.
    Raises BadRow where labels or replies do not fit the kind.
    """
    wish = options.kind
    if row.votes or (not row.verdicts and row.gold is None):
        if row.votes and wish not in (PAIRWISE, AUTO):
            raise BadRow("kind", f"a vote on a pair is no {wish}")
        if row.votes or (row.kind or project_kind if wish == AUTO else wish) == PAIRWISE:
            row.kind = PAIRWISE
            return pairing(row, options)
    row.kind = _kind_of(row, wish, project_kind)
    if row.kind == PAIRWISE:
        return _as_pairs(row, options)
    fewest, most = SIZES[row.kind]
    count = len(row.replies)
    if count < fewest:
        raise BadRow("kind", f"{row.kind} needs {fewest} answers or more, here are {count}")
    if count > most and (row.verdicts or row.gold):
        raise BadRow("too-many-responses", f"{row.kind} takes {most}, here are {count}")
    for judged in (*row.verdicts, *([row.gold] if row.gold else [])):
        _fit(judged, row.kind)
    return _parts(count, fewest=fewest, most=most)


def _kind_of(row: Row, wish: str, project_kind: str) -> str:
    """The kind of a row: as asked, else what fits its labels and its number of replies."""
    if wish != AUTO:
        return wish
    labels = [*row.verdicts, *([row.gold] if row.gold else [])]
    rated = any(judged.ratings is not None for judged in labels)
    kind = row.kind or project_kind
    if rated and kind not in RATED:
        kind = "rating"
    elif labels and not rated and kind in RATED:
        kind = "ranking"
    if kind != PAIRWISE and kind not in RATED and len(row.replies) < SIZES[kind][0]:
        # A ranking of two is a pair; so is what people are asked about two answers.
        return "ranking" if kind == "best-worst" and len(row.replies) > 2 else PAIRWISE
    if kind == "ranking" and len(row.replies) > SIZES[kind][1]:
        return PAIRWISE if not labels else kind
    return kind


def _parts(count: int, *, fewest: int, most: int) -> list[tuple[int, ...]]:
    """All replies, in as few and as equal parts as the kind allows."""
    parts = -(-count // most)
    size, over = divmod(count, parts)
    if size < fewest:
        raise BadRow("too-many-responses", f"{count} cannot be split into parts of {fewest}")
    result, at = [], 0
    for part in range(parts):
        end = at + size + (part < over)
        result.append(tuple(range(at, end)))
        at = end
    return result


def _fit(judged: Judged, kind: str) -> None:
    """Make a verdict one of this kind. Raises BadRow where it says something else."""
    if kind in RATED:
        if judged.ratings is None:
            raise BadRow("kind", f"a ranking is no {kind}")
        values = {value for rated in judged.ratings.values() for value in rated}
        if kind == "checklist" and values - {0, 1, None}:
            raise BadRow("kind", "a checklist holds yes and no")
        return
    if judged.ratings is not None:
        raise BadRow("kind", f"ratings are no {kind}")
    if kind == "best-worst":
        judged.ranks = _best_worst(judged.ranks)


def _best_worst(ranks: list[int]) -> list[int]:
    """A ranking's first and last. Raises BadRow where it has not one of each."""
    last = max(ranks)
    if 0 in ranks or last < 2 or ranks.count(1) != 1 or ranks.count(last) != 1:
        raise BadRow("kind", "no single best and worst")
    return [1 if rank == 1 else 3 if rank == last else 2 for rank in ranks]


def _as_pairs(row: Row, options: Options) -> list[tuple[int, ...]]:
    """Verdicts on all replies as votes on pairs, with the edges that they stand for."""
    count = len(row.replies)
    if row.gold is not None and count != 2:
        row.gold = None  # known for the whole, not for a pair of it
    if row.gold is not None and not row.gold.ranks:
        row.gold.ranks = _ranks(row.gold)
    for judged in row.verdicts:
        for i, j, outcome, strength in edges_of_ranks(_ranks(judged), strength=1):
            row.votes.append(
                Vote(
                    judged.rater,
                    outcome,
                    strength,
                    first=i,
                    second=j,
                    both_bad=judged.both_bad,
                    at=judged.at,
                    rationale=judged.rationale,
                    is_judge=judged.is_judge,
                )
            )
    row.pairs = [(vote.first, vote.second) for vote in row.votes] or row.pairs
    row.verdicts = []
    return pairing(row, options)


def _ranks(judged: Judged) -> list[int]:
    if judged.ratings is None:
        return judged.ranks
    return dense(list(next(iter(judged.ratings.values()), [])))


def pairing(row: Row, options: Options) -> list[tuple[int, ...]]:
    """Which replies are compared: as the row says, else by the pairing rule."""
    if row.pairs is not None:
        return list(row.pairs) if len(row.pairs) < 2 else list(dict.fromkeys(row.pairs))
    count = len(row.replies)
    rule = options.pairs
    if rule == "auto":
        rule = "all" if count <= ALL_PAIRS_UP_TO else "ring"
    if rule == "all":
        return list(combinations(range(count), 2))
    if rule == "ring" and count > 2:
        return [(place, (place + 1) % count) for place in range(count)]
    return [(0, 1)] if rule == "ring" and count == 2 else []
