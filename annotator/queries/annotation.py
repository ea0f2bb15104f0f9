"""What the annotation page shows: one task, the person's progress, the project's."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from django.utils.functional import cached_property

from annotator import rendering
from annotator.models import Assignment, AssignmentState, Project, Rater

CHOICES: Final = (
    ("a2", "A much better"),
    ("a1", "A better"),
    ("tie", "Tie"),
    ("b1", "B better"),
    ("b2", "B much better"),
)
WANTED_SECONDS: Final = 60


@dataclass(frozen=True)
class Turn:
    role: str
    html: str
    text: str


@dataclass(frozen=True)
class Answer:
    label: str
    html: str
    text: str


@dataclass(frozen=True)
class Desk:
    """One task on the desk. Generators are not in here: the page cannot leak them."""

    assignment_id: int
    kind: str
    expires_at: datetime
    is_late: bool
    earlier: list[Turn]
    last: Turn
    answers: list[Answer]
    draft: dict[str, Any] = field(default_factory=dict)
    draft_at: datetime | None = None

    @property
    def minutes_left(self) -> int:
        left = (self.expires_at - timezone.now()) / timedelta(minutes=1)
        return max(0, int(left))

    @cached_property
    def earlier_line(self) -> str:
        first = next((turn for turn in self.earlier if turn.role == "user"), self.earlier[0])
        return rendering.summary_line(first.text, 120)


@dataclass(frozen=True)
class Progress:
    """Counts for the task bar: today's, this person's in all, and the project's."""

    today: int
    target: int
    mine: int
    project_judged: int
    project_wanted: int

    @property
    def project_percent(self) -> int:
        return int(100 * self.project_judged / self.project_wanted) if self.project_wanted else 0


DESK_SQL: Final = """
    SELECT a.id, t.kind, a.expires_at, a.state, a.shown_order, a.draft, a.draft_at,
           p.messages, t.response_ids,
           (SELECT json_object_agg(r.id, CASE WHEN r.messages IS NULL THEN to_json(r.text)
                                              ELSE r.messages::json END)
            FROM annotator_response r WHERE r.id = ANY(t.response_ids)) AS answers
    FROM annotator_assignment a
    JOIN annotator_task t ON t.id = a.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE a.id = %s AND a.rater_id = %s AND a.state IN ('leased', 'expired')
"""


def desk(*, assignment_id: int, rater: Rater) -> Desk | None:
    """The open task of this assignment as its rater sees it; None if closed or another's."""
    # One statement by hand: this is read between two judgments, 150 times a second.
    with connection.cursor() as cursor:
        cursor.execute(DESK_SQL, [assignment_id, rater.pk])
        row = cursor.fetchone()
    if row is None:
        return None
    (pk, kind, expires_at, state, shown, draft, draft_at, messages, ids, answers) = row
    messages, draft, answers = _json(messages), _json(draft), _json(answers)
    turns = [Turn(*turn) for turn in rendering.render_messages(messages)]
    return Desk(
        assignment_id=pk,
        kind=kind,
        expires_at=expires_at,
        is_late=state == AssignmentState.EXPIRED,
        earlier=turns[:-1],
        last=turns[-1],
        answers=[_answer("AB"[slot], answers[str(ids[place])]) for slot, place in enumerate(shown)],
        draft=draft or {},
        draft_at=draft_at,
    )


def _json(value: Any) -> Any:
    # Django's connection leaves jsonb to its fields; a raw cursor hands out text.
    import json

    return json.loads(value) if isinstance(value, str) else value


def _answer(label: str, body: Any) -> Answer:
    if isinstance(body, str):
        return Answer(label, rendering.render_markdown(body), body)
    turns = rendering.render_messages(body)
    return Answer(
        label, "".join(html for _, html, _ in turns), "\n\n".join(text for *_, text in turns)
    )


def progress(*, project: Project, rater: Rater) -> Progress:
    """Own and project progress without counting rows of the project on every submit."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (SELECT count(*) FROM annotator_judgment
                    WHERE rater_id = %(rater)s AND is_current AND submitted_at >= %(midnight)s),
                   (SELECT coalesce(sum(judged), 0) FROM annotator_rater
                    WHERE project_id = %(project)s AND kind = 'human'),
                   (SELECT judged FROM annotator_rater WHERE id = %(rater)s)
            """,
            {"rater": rater.pk, "project": project.pk, "midnight": midnight},
        )
        today, judged, mine = cursor.fetchone()
    return Progress(
        today=today,
        target=project.options.daily_target,
        mine=mine,
        project_judged=int(judged),
        project_wanted=wanted(project.pk),
    )


def judged(project_id: int) -> int:
    """Judgments of people in force, summed from their own counters."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(judged), 0) FROM annotator_rater"
            " WHERE project_id = %s AND kind = 'human'",
            [project_id],
        )
        return int(cursor.fetchone()[0])


def wanted(project_id: int) -> int:
    """Judgments the project asks for in all; a minute old at most."""
    return cache.get_or_set(
        f"wanted:{project_id}", lambda: _wanted(project_id), timeout=WANTED_SECONDS
    )


def _wanted(project_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(overlap), 0) FROM annotator_task WHERE project_id = %s",
            [project_id],
        )
        return int(cursor.fetchone()[0])


def next_free_at(*, project: Project) -> datetime | None:
    """When the first task held by somebody would come back, for a person with nothing to do."""
    return (
        Assignment.objects.filter(project=project, state=AssignmentState.LEASED)
        .order_by("expires_at")
        .values_list("expires_at", flat=True)
        .first()
    )


@dataclass(frozen=True)
class Past:
    """One of a person's own judgments, in the words of the scale they saw."""

    judgment_id: int
    assignment_id: int
    prompt_line: str
    verdict: str
    both_bad: bool
    why: str
    is_counted: bool
    at: datetime


HISTORY_SQL: Final = """
    SELECT j.id, a.id, p.messages -> -1 ->> 'content', j.ranks, j.strength, j.shown_order,
           j.both_bad, j.rationale, j.is_counted, j.submitted_at
    FROM annotator_judgment j
    JOIN annotator_assignment a ON a.task_id = j.task_id AND a.rater_id = j.rater_id
    JOIN annotator_task t ON t.id = j.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE j.rater_id = %(rater)s AND j.is_current
      AND (%(before)s::timestamptz IS NULL OR j.submitted_at < %(before)s::timestamptz)
    ORDER BY j.submitted_at DESC LIMIT %(limit)s
"""


def history(*, rater: Rater, before: datetime | None = None, limit: int = 30) -> list[Past]:
    """The rater's own judgments in force, newest first; the next page is before the last."""
    with connection.cursor() as cursor:
        cursor.execute(HISTORY_SQL, {"rater": rater.pk, "before": before, "limit": limit})
        rows = cursor.fetchall()
    labels = dict(CHOICES)
    return [
        Past(
            judgment_id=pk,
            assignment_id=assignment_id,
            prompt_line=rendering.summary_line(prompt or "", 90),
            verdict=labels[shown_choice(ranks=ranks, strength=strength, shown_order=shown)],
            both_bad=both_bad,
            why=rendering.summary_line(why, 90),
            is_counted=is_counted,
            at=at,
        )
        for pk, assignment_id, prompt, ranks, strength, shown, both_bad, why, is_counted, at in rows
    ]


def shown_choice(*, ranks: list[int], strength: int, shown_order: list[int]) -> str:
    """The step of the five-step scale that shows a canonical verdict."""
    if strength == 0:
        return "tie"
    return f"{'ab'[shown_order.index(ranks.index(1))]}{min(strength, 2)}"
