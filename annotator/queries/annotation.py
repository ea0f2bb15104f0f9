"""What the annotation page shows: one task, the person's progress, the project's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from django.utils.functional import cached_property

from annotator import rendering
from annotator.kinds.asked import RubricSettings
from annotator.kinds.base import LABELS, kind
from annotator.models import AssignmentState, Image, Project, ProjectSettings, Rater
from annotator.queries import rubric_lists

WANTED_SECONDS: Final = 60
# Among the reasons only; anywhere else digits are the scale's. Those after the tenth have none.
REASON_KEYS: Final = "1234567890"


@dataclass(frozen=True)
class Turn:
    role: str
    html: str
    text: str


@dataclass(frozen=True)
class Picture:
    """An image as a page shows it; addresses are made by the template from its id."""

    image_id: int
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Answer:
    label: str
    html: str
    text: str
    image: Picture | None = None


@dataclass(frozen=True)
class Desk:
    """One task on the desk. Generators are not in here: the page cannot leak them."""

    assignment_id: int
    task_id: int
    kind: str
    template: str
    expires_at: datetime
    is_late: bool
    earlier: list[Turn]
    last: Turn
    answers: list[Answer]
    source: Picture | None = None  # what the images were edited from
    mask: Picture | None = None
    turn: int = 0  # of a conversation judged turn by turn; 0 for a prompt of its own
    turns: int = 0
    sent_back_note: str = ""
    draft: dict[str, str] = field(default_factory=dict)
    draft_at: datetime | None = None
    ask: dict[str, Any] = field(default_factory=dict)  # what the kind's template needs
    reasons: list[dict[str, Any]] = field(default_factory=list)
    options: ProjectSettings | None = None  # what the task goes by: those of with_answers

    def with_answers(
        self, answers: Mapping[str, str], options: ProjectSettings | None = None
    ) -> Desk:
        """The same task with other answers filled in.

        ``options`` are the task's own, ``rubric_lists.options_of``; needed the first time only.
        """
        options = options or self.options
        assert options is not None
        ask = kind(self.kind).present(answers, options=options, slots=len(self.answers))
        reasons = [
            {
                "field": f"reason-{at}",
                "text": text,
                "key": REASON_KEYS[at] if at < len(REASON_KEYS) else "",
                "checked": bool(answers.get(f"reason-{at}")),
            }
            for at, text in enumerate(options.reasons)
        ]
        return replace(self, draft=dict(answers), ask=ask, reasons=reasons, options=options)

    @property
    def reason_keys(self) -> str:
        """The last key of the reasons to tick."""
        return [reason["key"] for reason in self.reasons if reason["key"]][-1]

    @property
    def is_images(self) -> bool:
        return any(answer.image for answer in self.answers)

    @property
    def is_of_rubric(self) -> bool:
        """Whether criteria of a rubric are asked: the project's question is about something else."""
        return isinstance(self.options, RubricSettings)

    @property
    def default_question(self) -> str:
        """Asked where the project's owner has asked nothing."""
        return "Judge the images" if self.is_images else "Judge the answers"

    @property
    def minutes_left(self) -> int:
        left = (self.expires_at - timezone.now()) / timedelta(minutes=1)
        return max(0, int(left))

    @property
    def is_held_for_days(self) -> bool:
        """As what a reviewer sent back is: minutes and a time of day would say nothing."""
        return self.expires_at - timezone.now() > timedelta(days=1)

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


DESK_SQL: Final = f"""
    SELECT a.id, t.id, t.kind, a.expires_at, a.state, a.shown_order, a.draft, a.draft_at,
           a.sent_back_note, p.messages, p.thread, p.turn, p.project_id,
           p.source_image_id, p.mask_image_id, t.response_ids,
           (SELECT json_object_agg(r.id, json_build_array(
                CASE WHEN r.messages IS NULL THEN to_json(r.text) ELSE r.messages::json END,
                r.image_id))
            FROM annotator_response r WHERE r.id = ANY(t.response_ids)) AS answers,
           {rubric_lists.LIST_OF}
    FROM annotator_assignment a
    JOIN annotator_task t ON t.id = a.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE a.id = %s AND a.rater_id = %s AND a.state IN ('leased', 'expired')
"""


def desk(*, assignment_id: int, rater: Rater, options: ProjectSettings) -> Desk | None:
    """The open task of this assignment as its rater sees it; None if closed or another's."""
    # One statement by hand: this is read between two judgments, 150 times a second.
    with connection.cursor() as cursor:
        cursor.execute(DESK_SQL, [assignment_id, rater.pk])
        row = cursor.fetchone()
    if row is None:
        return None
    (pk, task_id, of_kind, expires_at, state, shown, draft, draft_at, note, messages, thread, turn,
     project_id, source_id, mask_id, ids, answers, list_of) = row  # fmt: skip
    messages, draft, answers = _json(messages), _json(draft), _json(answers)
    turns = [Turn(*one) for one in rendering.render_messages(messages)]
    bodies = [answers[str(ids[place])] for place in shown]
    pictures = pictures_of([source_id, mask_id, *(image_id for _, image_id in bodies)])
    task = Desk(
        assignment_id=pk,
        task_id=task_id,
        kind=of_kind,
        template=f"annotate/kinds/{kind(of_kind).template}",
        expires_at=expires_at,
        is_late=state == AssignmentState.EXPIRED,
        earlier=turns[:-1],
        last=turns[-1],
        answers=[
            answer_of(LABELS[slot], body, pictures.get(image_id))
            for slot, (body, image_id) in enumerate(bodies)
        ],
        source=pictures.get(source_id),
        mask=pictures.get(mask_id),
        turn=turn,
        turns=turns_of(project_id=project_id, thread=thread) if thread else 0,
        sent_back_note=note,
        draft_at=draft_at,
    )
    of = rubric_lists.parse(list_of)
    return task.with_answers(draft or {}, rubric_lists.options_of(options, of))


def pictures_of(ids: list[int | None]) -> dict[int | None, Picture]:
    wanted = [pk for pk in ids if pk is not None]
    if not wanted:
        return {}
    rows = Image.objects.filter(pk__in=wanted).values_list("pk", "width", "height", "alt")
    return {row[0]: Picture(*row) for row in rows}


def turns_of(*, project_id: int, thread: str) -> int:
    """How many turns of a conversation are judged."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(turn) FROM annotator_prompt WHERE project_id = %s AND thread = %s",
            [project_id, thread],
        )
        return int(cursor.fetchone()[0])


def _json(value: Any) -> Any:
    # Django's connection leaves jsonb to its fields; a raw cursor hands out text.
    return orjson.loads(value) if isinstance(value, str) else value


def answer_of(label: str, body: Any, image: Picture | None) -> Answer:
    if isinstance(body, str):
        return Answer(label, rendering.render_markdown(body), body, image)
    turns = rendering.render_messages(body)
    html = "".join(html for _, html, _ in turns)
    return Answer(label, html, "\n\n".join(text for *_, text in turns), image)


def progress(*, project: Project, rater: Rater) -> Progress:
    """Own and project progress without counting rows of the project on every submit."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (SELECT count(*) FROM annotator_judgment
                    WHERE rater_id = %(rater)s AND is_current AND submitted_at >= %(midnight)s
                      AND kind <> 'adjudication'),
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
            # A gold asks for nothing; whoever judged it did so like any other task.
            "SELECT coalesce(sum(CASE WHEN is_gold THEN judged ELSE overlap END), 0)"
            " FROM annotator_task WHERE project_id = %s",
            [project_id],
        )
        return int(cursor.fetchone()[0])


def next_free_at(*, project: Project, rater: Rater) -> datetime | None:
    """When the first task held by somebody would come back, for a person with nothing to do.

    Only tasks that this person may get: everybody's and their groups', not had yet.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT a.expires_at
            FROM annotator_assignment a JOIN annotator_task t ON t.id = a.task_id
            WHERE a.project_id = %(project)s AND a.state = 'leased' AND a.rater_id <> %(rater)s
              AND NOT t.is_gold
              AND (t.group_id = 0 OR t.group_id IN
                   (SELECT g.group_id FROM annotator_group_raters g
                    WHERE g.rater_id = %(rater)s))
              AND NOT EXISTS (SELECT FROM annotator_assignment mine
                              WHERE mine.task_id = t.id AND mine.rater_id = %(rater)s
                                AND mine.state IN ('submitted', 'skipped'))
            ORDER BY a.expires_at LIMIT 1
            """,
            {"project": project.pk, "rater": rater.pk},
        )
        found = cursor.fetchone()
    return found[0] if found else None
