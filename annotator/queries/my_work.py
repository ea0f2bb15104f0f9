"""A person's own work in a project: what waits, what is begun, what is done, what was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection
from django.utils.dateparse import parse_datetime

from annotator import rendering
from annotator.kinds.base import LABELS, kind
from annotator.kinds.verdict import Verdict
from annotator.models import ProjectSettings, Rater
from annotator.queries import rubric_lists

PAGE: Final = 30
MAX_QUERY: Final = 200  # characters looked for
FIRST_WORDS: Final = 46  # of each response, so that rows of one prompt differ

# Tab -> the assignments in it. Each assignment is in exactly one, or given back untouched.
TABS: Final = {
    "pending": "(a.state = 'leased' AND a.draft_at IS NULL"
    " OR a.state IN ('leased', 'expired') AND a.sent_back_at IS NOT NULL)",
    "drafts": "a.state IN ('leased', 'expired') AND a.draft_at IS NOT NULL"
    " AND a.sent_back_at IS NULL",
    "submitted": "a.state = 'submitted'",
    "skipped": "a.state = 'skipped'",
}
LABELS_OF_TABS: Final = {
    "pending": "Pending",
    "drafts": "Drafts",
    "submitted": "Submitted",
    "skipped": "Skipped",
}


@dataclass(frozen=True)
class Own:
    """One task of a person's own, told from others of the same prompt by its answers."""

    assignment_id: int
    task_id: int
    state: str
    prompt_line: str
    answers: list[tuple[str, str]]  # (label as shown, first words)
    verdict: str
    both_bad: bool
    why: str
    is_extra: bool
    revisions: int
    note: str  # a reviewer's, with a task sent back
    skip_reason: str
    reply: str  # the newest answer to a remark of this person
    at: datetime
    expires_at: datetime

    @property
    def is_open(self) -> bool:
        return self.state in ("leased", "expired")


@dataclass(frozen=True)
class Work:
    rows: list[Own]
    next: str  # what to go on after, empty at the end
    is_first: bool


# Newest first; the open ones by when they were handed out, the closed ones by when they closed.
WORK_SQL: Final = """
    SELECT a.id, a.task_id, a.state, p.messages -> -1 ->> 'content', t.kind, t.response_ids,
           a.shown_order,
           (SELECT json_object_agg(r.id, CASE WHEN r.text <> '' THEN left(r.text, 300)
                WHEN r.messages IS NOT NULL THEN left(r.messages -> -1 ->> 'content', 300)
                ELSE 'image' END)
            FROM annotator_response r WHERE r.id = ANY(t.response_ids)),
           j.ranks, j.strength, j.ratings, j.both_bad, j.rationale, NOT j.is_counted,
           (SELECT count(*) FROM annotator_judgment h
            WHERE h.task_id = a.task_id AND h.rater_id = a.rater_id AND h.kind = 'vote'),
           a.sent_back_note, a.skip_reason, a.draft,
           (SELECT c.text FROM annotator_comment c JOIN annotator_comment mine
                ON mine.id = c.reply_to_id AND mine.author_id = %(user)s
            WHERE c.task_id = a.task_id ORDER BY c.id DESC LIMIT 1),
           {at}, a.expires_at, {list_of}
    FROM annotator_assignment a
    JOIN annotator_task t ON t.id = a.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    LEFT JOIN annotator_judgment j ON j.task_id = a.task_id AND j.rater_id = a.rater_id
        AND j.is_current AND j.kind <> 'adjudication'
    WHERE a.rater_id = %(rater)s AND {tab}
      AND (%(at)s::timestamptz IS NULL OR ({at}, a.id) < (%(at)s::timestamptz, %(id)s))
      AND (%(like)s = '' OR j.rationale ILIKE %(like)s OR a.draft ->> 'why' ILIKE %(like)s
           OR a.skip_reason ILIKE %(like)s
           OR EXISTS (SELECT FROM jsonb_array_elements(p.messages) m
                      WHERE m ->> 'content' ILIKE %(like)s))
    ORDER BY {at} DESC, a.id DESC LIMIT %(limit)s
"""


def counts(rater: Rater) -> dict[str, int]:
    """How many tasks are in each tab."""
    columns = ", ".join(f"count(*) FILTER (WHERE {tab})" for tab in TABS.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM annotator_assignment a WHERE a.rater_id = %s", [rater.pk]
        )
        return dict(zip(TABS, cursor.fetchone(), strict=True))


def work(
    rater: Rater, *, options: ProjectSettings, tab: str, query: str = "", after: str = ""
) -> Work:
    """One page of a tab. ``after`` is the ``next`` of the page before; nonsense starts over.

    ``query`` is looked for in the prompt and in the person's own reasons.
    """
    at, pk = _key(after)
    closed = tab in ("submitted", "skipped")
    sql = WORK_SQL.format(
        tab=TABS[tab],
        at="a.closed_at" if closed else "a.leased_at",
        list_of=rubric_lists.LIST_OF,
    )
    values = {
        "rater": rater.pk,
        "user": rater.user_id,
        "at": at,
        "id": pk,
        "like": like(query),
        "limit": PAGE + 1,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found = cursor.fetchall()
    rows = [_own(*row, options=options) for row in found[:PAGE]]
    more = f"{rows[-1].at.isoformat()},{rows[-1].assignment_id}" if len(found) > PAGE else ""
    return Work(rows, next=more, is_first=at is None)


def like(query: str) -> str:
    """A pattern that finds the text as it was typed; empty finds everything."""
    query = query.replace("\0", "").strip()[:MAX_QUERY]
    for special in ("\\", "%", "_"):
        query = query.replace(special, f"\\{special}")
    return f"%{query}%" if query else ""


def _key(after: str) -> tuple[datetime | None, int]:
    moment, _, pk = after.partition(",")
    try:
        at = parse_datetime(moment)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not (pk.isascii() and pk.isdecimal() and len(pk) < 19):
        return None, 0
    return at, int(pk)


def first_words(
    response_ids: list[int], shown: list[int], texts: Mapping[str, str | None]
) -> list[tuple[str, str]]:
    """(label, first words) of each response in the order shown."""
    return [
        (
            LABELS[slot],
            rendering.summary_line(texts.get(str(response_ids[place])) or "", FIRST_WORDS),
        )
        for slot, place in enumerate(shown)
    ]


def _own(
    pk: int, task_id: int, state: str, prompt: str | None, of_kind: str, ids: list[int],
    shown: list[int], texts: Any, ranks: list[int] | None, strength: int, ratings: Any,
    both_bad: bool, why: str | None, extra: bool, revisions: int, note: str, skip_reason: str,
    draft: Any, reply: str | None, at: datetime, expires_at: datetime, list_of: Any,
    *, options: ProjectSettings,
) -> Own:  # fmt: skip
    said = ""
    if ranks is not None:
        verdict = Verdict(ranks=ranks, strength=strength, ratings=_json(ratings))
        asked = rubric_lists.options_of(options, rubric_lists.parse(list_of))
        said = kind(of_kind).say(verdict, options=asked, shown_order=shown)
    if why is None:
        why = (_json(draft) or {}).get("why", "")
    return Own(
        assignment_id=pk,
        task_id=task_id,
        state=state,
        prompt_line=rendering.summary_line(prompt or "", 90),
        answers=first_words(ids, shown, _json(texts) or {}),
        verdict=said,
        both_bad=bool(both_bad),
        why=rendering.summary_line(why, 90),
        is_extra=bool(extra),
        revisions=revisions,
        note=rendering.summary_line(note, 200),
        skip_reason=skip_reason,
        reply=rendering.summary_line(reply or "", 200),
        at=at,
        expires_at=expires_at,
    )


def _json(value: Any) -> Any:
    # Django's connection leaves jsonb to its fields; a raw cursor hands out text.
    return orjson.loads(value) if isinstance(value, str) else value
