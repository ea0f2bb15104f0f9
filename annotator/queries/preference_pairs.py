"""Preferences as generators of rubrics take them: texts, pictures, and what people said of why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from heapq import nsmallest
from typing import Any, Final

import orjson
from django.db import connection

from annotator.models import Project, Rater
from annotator.queries.judging import Unsendable, pictures, whole
from annotator.queries.pairs import Pair, Selection, decided_pairs
from rubrics.generators.types import PreferencePair, Rationale
from rubrics.judging.types import Candidate
from rubrics.llm.types import Picture

MOST: Final = 100_000  # pairs that one generator is given
MAX_RATIONALES: Final = 20  # of one pair
TEXTS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Sides:
    """The rows of a pair: its prompt, what people prefer, and the other.

    ``votes_for`` of ``votes`` put chosen first; ties are votes too.
    """

    prompt_id: int
    chosen_id: int
    rejected_id: int
    strength: int
    votes_for: int = 0
    votes: int = 0


def chosen(
    project: Project,
    selection: Selection,
    *,
    most: int | None = None,
    seed: str = "",
    only: Collection[tuple[int, int, int]] | None = None,
) -> list[Sides]:
    """Pairs with a majority for one side; with ``most`` a sample that is the same for one seed.

    ``only``: (prompt, chosen, rejected) of the pairs to take and no others.

    The sample takes pairs in the order of a hash of seed and pair, so that a larger one holds the
    smaller, and what is imported later does not change the order of what was there.
    """
    limit = min(most or MOST, MOST)
    found = (
        (sha256(f"{seed}\0{pair.a_id}\0{pair.b_id}".encode()).digest(), sides)
        for pair in decided_pairs(project, selection)
        if pair.outcome in ("a", "b")
        and (sides := _sides(pair))
        and (only is None or (sides.prompt_id, sides.chosen_id, sides.rejected_id) in only)
    )
    # No more than the sample is held, of however many pairs.
    return [sides for _, sides in nsmallest(limit, found, key=lambda row: row[0])]


def _sides(pair: Pair) -> Sides:
    strength = max(1, round(pair.strength))
    if pair.outcome == "a":
        return Sides(pair.prompt_id, pair.a_id, pair.b_id, strength, pair.wins_a, pair.votes)
    return Sides(pair.prompt_id, pair.b_id, pair.a_id, strength, pair.wins_b, pair.votes)


def with_texts(project: Project, sides: Sequence[Sides]) -> Iterator[PreferencePair]:
    """The same pairs as generators take them, ``id`` counting from 0 in the order given.

    A pair whose texts are gone, or whose picture is, is left out: its number stays unused.
    """
    for start in range(0, len(sides), TEXTS_AT_ONCE):
        yield from _chunk(project, start, sides[start : start + TEXTS_AT_ONCE])


PROMPTS: Final = "SELECT id, messages::text FROM annotator_prompt WHERE id = ANY(%s)"
RESPONSES: Final = """
    SELECT id, text, messages::text, image_id FROM annotator_response WHERE id = ANY(%s)
"""
# Why people put a side first, of votes and of decisions: dissenters give reasons for the other.
RATIONALES: Final = """
    SELECT CASE WHEN v.outcome = 1 THEN v.a_id ELSE v.b_id END,
           CASE WHEN v.outcome = 1 THEN v.b_id ELSE v.a_id END,
           j.id, j.rater_id, j.rationale
    FROM annotator_preference v
    JOIN annotator_judgment j ON j.id = v.judgment_id AND j.rationale <> ''
    JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> %(judge)s AND NOT r.is_excluded
    WHERE v.project_id = %(project)s AND v.prompt_id = ANY(%(prompts)s) AND NOT v.is_gold
      AND v.outcome <> 0
    ORDER BY j.id
"""


def _chunk(project: Project, start: int, sides: Sequence[Sides]) -> Iterator[PreferencePair]:
    prompts = sorted({one.prompt_id for one in sides})
    with connection.cursor() as cursor:
        cursor.execute(PROMPTS, [prompts])
        messages = dict(cursor.fetchall())
        ids = sorted({pk for one in sides for pk in (one.chosen_id, one.rejected_id)})
        cursor.execute(RESPONSES, [ids])
        replies = {row[0]: row[1:] for row in cursor.fetchall()}
        cursor.execute(
            RATIONALES,
            {"judge": Rater.Kind.JUDGE, "project": project.pk, "prompts": prompts},
        )
        reasons = _by_pair(cursor.fetchall())
    show = pictures({image for *_, image in replies.values()} - {None})
    for number, one in enumerate(sides, start=start):
        candidates = _candidates(one, replies, show)
        if candidates is None or one.prompt_id not in messages:
            continue
        said = reasons.get((one.chosen_id, one.rejected_id), [])
        yield PreferencePair(
            id=number,
            group=one.prompt_id,
            messages=orjson.loads(messages[one.prompt_id]),
            chosen=candidates[0],
            rejected=candidates[1],
            strength=min(one.strength, 3),
            rationales=tuple(said[:MAX_RATIONALES]),
            judgments=tuple(dict.fromkeys(why.judgment for why in said if why.judgment)),
        )


def _candidates(
    one: Sides, replies: dict[int, tuple[Any, ...]], show: Callable[[int | None], Picture | None]
) -> tuple[Candidate, Candidate] | None:
    made = []
    for pk in (one.chosen_id, one.rejected_id):
        if pk not in replies:
            return None
        text, several, image_id = replies[pk]
        try:
            made.append(Candidate(whole(text, several), show(image_id)))
        except Unsendable:
            return None
    return made[0], made[1]


def _by_pair(rows: list[tuple[Any, ...]]) -> dict[tuple[int, int], list[Rationale]]:
    """By (preferred, other)."""
    found: dict[tuple[int, int], list[Rationale]] = defaultdict(list)
    for preferred, other, judgment, rater, text in rows:
        found[preferred, other].append(Rationale(text, judgment=judgment, rater=rater))
    return found
