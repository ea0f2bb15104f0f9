"""The list of projects: what waits for this person, what runs, how far each project is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Final

from django.db import connection
from django.urls import reverse
from django.utils import timezone

from annotator.models import Membership, Project, Role, User
from annotator.queries import figures, runs, steps
from annotator.queries.figures import Figures
from annotator.queries.pages import Page, page_by_id

PAGE: Final = 50
WAITING: Final = 6
STEPS: Final = 3  # of them at most that learn or export
PACE_OF: Final = 30  # own judgments that tell how long one takes


@dataclass(frozen=True)
class Row:
    """One project in the list. ``figures`` and ``next`` are for reviewers and owners only."""

    project: Project
    role: Role
    figures: Figures
    next: steps.Step | None

    @property
    def sees_figures(self) -> bool:
        return self.role != Role.ANNOTATOR


@dataclass(frozen=True)
class Own:
    """This person's share of a project today."""

    today: int
    seconds_each: float | None
    has_task: bool


@dataclass(frozen=True)
class Waiting:
    label: str
    project: str
    why: str
    action: str
    url: str


@dataclass(frozen=True)
class Projects:
    page: Page[Row]
    waiting: list[Waiting]
    running: list[runs.Line]
    active: int
    archived: int
    open: int

    @property
    def sees_figures(self) -> bool:
        """Whether there is a project whose figures this person may see."""
        return any(row.sees_figures for row in self.page.rows)


def projects(user: User, *, archived: bool = False, after: int | None = None) -> Projects:
    """One page of this user's projects; the number of statements does not grow with it."""
    mine = Membership.objects.filter(user=user)
    shown = mine.filter(project__archived_at__isnull=not archived).select_related("project")
    page = page_by_id(
        shown.defer("project__guidelines").order_by("-pk"),
        after=after,
        size=PAGE,
        build=lambda row: row,
    )
    ids = [row.project_id for row in page.rows]
    counted, known = figures.figures(ids), steps.facts(ids)
    rows = [
        Row(
            project=member.project,
            role=Role(member.role),
            figures=counted[member.project_id],
            next=_next(member, counted, known),
        )
        for member in page.rows
    ]
    visible = [row.project.pk for row in rows if row.sees_figures]
    lines = runs.running(visible) if visible and not archived else []
    away = mine.filter(project__archived_at__isnull=False).count()
    return Projects(
        page=Page(rows, next=page.next, is_first=page.is_first),
        waiting=[] if archived else _waiting(user, rows, known),
        running=lines,
        active=sum(line.is_active for line in lines),
        archived=away,
        open=mine.count() - away,
    )


def _next(
    member: Membership, counted: dict[int, Figures], known: dict[int, steps.Facts]
) -> steps.Step | None:
    pk, slug = member.project_id, member.project.slug
    if member.project.archived_at is not None:
        return None
    if member.role == Role.OWNER:
        return steps.best(slug, counted[pk], known[pk])
    step = steps.collect(slug, counted[pk], known[pk])
    return step if step and step.is_for_all else None


# Whether a task is left for a rater is asked from the rater's low-water mark on (services.queue),
# so the walk is as short as that of a claim.
OWN_SQL: Final = """
    SELECT r.project_id,
           (SELECT count(*) FROM annotator_judgment j
            WHERE j.rater_id = r.id AND j.is_current AND j.submitted_at >= %(midnight)s
              AND j.kind <> 'adjudication'),
           (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY last.active_ms) / 1000
            FROM (SELECT j.active_ms FROM annotator_judgment j
                  WHERE j.rater_id = r.id AND j.is_current AND j.kind <> 'adjudication'
                  ORDER BY j.submitted_at DESC LIMIT %(most)s) last),
           EXISTS (SELECT 1 FROM annotator_task t
                   WHERE t.project_id = r.project_id AND t.free > 0
                     AND t.group_id = ANY(ARRAY(
                         SELECT 0 UNION ALL SELECT g.group_id FROM annotator_group_raters g
                         WHERE g.rater_id = r.id))
                     AND (r.mark_priority IS NULL OR (t.priority * -1, t.position, t.id)
                          >= (r.mark_priority * -1, r.mark_position, r.mark_task_id))
                     AND COALESCE((SELECT a.state <> 'expired' FROM annotator_assignment a
                                   WHERE a.task_id = t.id AND a.rater_id = r.id), false) = false)
    FROM annotator_rater r
    WHERE r.user_id = %(user)s AND r.kind = 'human' AND r.project_id = ANY(%(ids)s)
"""


def own(user: User, project_ids: Iterable[int]) -> dict[int, Own]:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    with connection.cursor() as cursor:
        cursor.execute(
            OWN_SQL,
            {"user": user.pk, "ids": list(project_ids), "midnight": midnight, "most": PACE_OF},
        )
        return {
            pk: Own(today, float(each) if each else None, has_task)
            for pk, today, each, has_task in cursor.fetchall()
        }


def _waiting(user: User, rows: list[Row], known: dict[int, steps.Facts]) -> list[Waiting]:
    """What this person can do now: broken runs, tasks to judge, the first step of a project."""
    busy = [row.project.pk for row in rows if row.figures.open]
    shares = own(user, busy) if busy else {}
    found = [item for row in rows if (item := _failed(row, known[row.project.pk]))]
    found += [
        Waiting(row.next.label, row.project.name, row.next.why, "Start", row.next.url)
        for row in rows
        if row.next and row.role == Role.OWNER and row.next.stage in ("learn", "export")
    ][:STEPS]
    for row in rows:
        share = shares.get(row.project.pk, Own(today=0, seconds_each=None, has_task=True))
        if row.figures.open and share.has_task and (item := _annotate(row, share)):
            found.append(item)
    found += [
        Waiting(row.next.label, row.project.name, row.next.why, "Import", row.next.url)
        for row in rows
        if row.next
        and row.role == Role.OWNER
        and not row.figures.tasks
        and row.next.stage == "collect"
    ]
    return found[:WAITING]


def _failed(row: Row, known: steps.Facts) -> Waiting | None:
    if row.role != Role.OWNER or known.latest_state != "failed" or known.latest_run is None:
        return None
    url = reverse("run", args=[row.project.slug, known.latest_run])
    return Waiting(
        f"Run {known.latest_run} failed", row.project.name, known.latest_title, "Look", url
    )


def _annotate(row: Row, share: Own) -> Waiting | None:
    left = row.project.options.daily_target - share.today
    wanted = min(left, row.figures.open)
    if wanted <= 0:
        return None
    why = f"Your share of today, {share.today:,} done" if share.today else "Your share of today"
    if share.seconds_each:
        minutes = ceil(timedelta(seconds=share.seconds_each * wanted) / timedelta(minutes=1))
        why += f"; about {minutes:,} min"
    noun = "image pair" if row.project.modality == Project.Modality.IMAGE else "pair"
    label = f"Annotate {wanted:,} {noun}{'' if wanted == 1 else 's'}"
    url = reverse("annotate", args=[row.project.slug])
    return Waiting(label, row.project.name, why, "Start", url)
