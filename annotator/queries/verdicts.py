"""What one rater said, for reviewers: newest first, by kind of task and since when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection

from annotator import rendering
from annotator.kinds.base import kind
from annotator.kinds.verdict import Verdict
from annotator.models import ProjectSettings, Rater
from annotator.queries import rubric_lists
from annotator.queries.my_work import first_words, like

PAGE: Final = 20


@dataclass(frozen=True)
class Verdicts:
    rows: list[Given]
    next: int | None
    is_first: bool


@dataclass(frozen=True)
class Given:
    """One judgment in force; labels follow the order in which reviewers see the responses."""

    judgment_id: int
    task_id: int
    prompt_line: str
    answers: list[tuple[str, str]]
    verdict: str
    both_bad: bool
    why: str
    reasons: list[str]
    seconds: float | None
    is_hit: bool | None
    is_settled: bool
    kind: str  # of judgment
    at: datetime


VERDICTS_SQL: Final = f"""
    SELECT j.id, t.id, p.messages -> -1 ->> 'content', t.kind, t.response_ids,
           (SELECT json_object_agg(r.id, CASE WHEN r.text <> '' THEN left(r.text, 300)
                ELSE 'image' END)
            FROM annotator_response r WHERE r.id = ANY(t.response_ids)),
           j.ranks, j.strength, j.ratings, j.both_bad, j.rationale, j.reasons,
           j.active_ms / 1000.0, j.is_hit, t.is_settled, j.kind, j.submitted_at,
           {rubric_lists.LIST_OF}
    FROM annotator_judgment j
    JOIN annotator_task t ON t.id = j.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE j.rater_id = %(rater)s AND j.is_current
      AND (%(after)s::bigint IS NULL OR (j.submitted_at, j.id) <
           (SELECT submitted_at, id FROM annotator_judgment
            WHERE id = %(after)s AND rater_id = %(rater)s))
      AND (%(kind)s = '' OR t.kind = %(kind)s)
      AND (%(since)s::timestamptz IS NULL OR j.submitted_at >= %(since)s)
      AND (NOT %(misses)s OR j.is_hit IS FALSE)
      AND (%(like)s = '' OR j.rationale ILIKE %(like)s
           OR EXISTS (SELECT FROM jsonb_array_elements(p.messages) m
                      WHERE m ->> 'content' ILIKE %(like)s))
    ORDER BY j.submitted_at DESC, j.id DESC LIMIT %(limit)s
"""


def verdicts(
    rater: Rater,
    *,
    options: ProjectSettings,
    of_kind: str = "",
    since: datetime | None = None,
    misses: bool = False,
    query: str = "",
    after: int | None = None,
) -> Verdicts:
    """A page of a rater's judgments in force. ``misses``: only golds answered wrong."""
    values = {
        "rater": rater.pk,
        "kind": of_kind,
        "since": since,
        "misses": misses,
        "like": like(query),
        "after": after,
        "limit": PAGE + 1,
    }
    with connection.cursor() as cursor:
        cursor.execute(VERDICTS_SQL, values)
        found = cursor.fetchall()
    rows = [_given(row, options) for row in found[:PAGE]]
    more = rows[-1].judgment_id if len(found) > PAGE else None
    return Verdicts(rows, next=more, is_first=after is None)


def _given(row: Iterable[Any], options: ProjectSettings) -> Given:
    (pk, task_id, prompt, of_kind, ids, texts, ranks, strength, ratings, both_bad, why, reasons,
     seconds, is_hit, is_settled, judged_as, at, list_of) = row  # fmt: skip
    order = list(range(len(ids)))
    options = rubric_lists.options_of(options, rubric_lists.parse(list_of))
    verdict = Verdict(ranks=ranks, strength=strength, ratings=_json(ratings))
    return Given(
        judgment_id=pk,
        task_id=task_id,
        prompt_line=rendering.summary_line(prompt or "", 90),
        answers=first_words(ids, order, _json(texts) or {}),
        verdict=kind(of_kind).say(verdict, options=options, shown_order=order),
        both_bad=both_bad,
        why=why,
        reasons=reasons,
        seconds=None if seconds is None else float(seconds),
        is_hit=is_hit,
        is_settled=is_settled,
        kind=judged_as,
        at=at,
    )


def _json(value: Any) -> Any:
    # Django's connection leaves jsonb to its fields; a raw cursor hands out text.
    return orjson.loads(value) if isinstance(value, str) else value
