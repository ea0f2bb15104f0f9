"""The members page: people with what they did, and the invitations that are still open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import F, OuterRef, Subquery
from django.utils import timezone

from annotator.models import Group, Invitation, Judgment, Membership, Project, Rater, Role, Task
from annotator.queries.pages import Page, page_by_id

PAGE: Final = 50


@dataclass(frozen=True)
class Member:
    membership_id: int
    user_id: int
    name: str
    email: str
    role: Role
    judged: int
    skipped: int
    last_at: datetime | None
    since: datetime
    quota: int | None = None  # None is the project's
    daily_cap: int | None = None
    is_paused: bool = False
    is_qualified: bool = False
    is_disqualified: bool = False

    @property
    def label(self) -> str:
        return self.name or self.email


def members(project: Project, *, after: int | None = None) -> Page[Member]:
    """Members in the order in which they came, with own counts; one statement a page."""
    own = Rater.objects.filter(project=project, kind=Rater.Kind.HUMAN, user=OuterRef("user_id"))
    last = Judgment.objects.filter(rater=OuterRef("rater_id"), is_current=True)
    rows = (
        Membership.objects.filter(project=project)
        .select_related("user")
        .annotate(
            rater_id=Subquery(own.values("pk")[:1]),
            judged=Subquery(own.values("judged")[:1]),
            skipped=Subquery(own.values("skipped")[:1]),
            quota=Subquery(own.values("quota")[:1]),
            daily_cap=Subquery(own.values("daily_cap")[:1]),
            paused_at=Subquery(own.values("paused_at")[:1]),
            qualified_at=Subquery(own.values("qualified_at")[:1]),
            disqualified_at=Subquery(own.values("disqualified_at")[:1]),
        )
        .annotate(
            last_at=Subquery(last.order_by("-submitted_at").values("submitted_at")[:1]),
        )
        .order_by("pk")
    )
    return page_by_id(rows, after=after, size=PAGE, build=_member)


def _member(row: Membership) -> Member:
    return Member(
        membership_id=row.pk,
        user_id=row.user_id,
        name=row.user.name,
        email=row.user.email,
        role=Role(row.role),
        judged=row.judged or 0,
        skipped=row.skipped or 0,
        last_at=row.last_at,
        since=row.created_at,
        quota=row.quota,
        daily_cap=row.daily_cap,
        is_paused=row.paused_at is not None,
        is_qualified=row.qualified_at is not None,
        is_disqualified=row.disqualified_at is not None,
    )


def has_qualification(project: Project) -> bool:
    return Task.objects.filter(project=project, is_gold=True, is_qualification=True).exists()


GROUPS: Final = 500  # services.groups.MAX_GROUPS, and as many people who were named


@dataclass(frozen=True)
class GroupLine:
    """A group as lists name it; one that stands for a person has that person's id."""

    pk: int
    label: str
    person_id: int | None
    rater_ids: frozenset[int]


def groups(project: Project) -> list[GroupLine]:
    """The groups of a project by name, those of named persons last."""
    rows = (
        Group.objects.filter(project=project)
        .select_related("person")
        .prefetch_related("raters")
        .order_by(F("person_id").asc(nulls_first=True), "name")[: 2 * GROUPS]
    )
    return [
        GroupLine(
            pk=one.pk,
            label=one.person.name if one.person else one.name,
            person_id=one.person_id,
            rater_ids=frozenset(rater.pk for rater in one.raters.all()),
        )
        for one in rows
    ]


def raters(project: Project) -> list[Rater]:
    """People of the project who can be assigned tasks or put into groups, by name."""
    members = Membership.objects.filter(project=project).values("user")
    return list(
        Rater.objects.filter(project=project, kind=Rater.Kind.HUMAN, user__in=members).order_by(
            "name", "pk"
        )[:GROUPS]
    )


def open_invitations(project: Project) -> list[Invitation]:
    """Invitations somebody can still come in by, newest first. Their number is bounded."""
    return list(
        Invitation.objects.filter(
            project=project, revoked_at=None, expires_at__gt=timezone.now(), used__lt=F("places")
        )
        .select_related("created_by")
        .order_by("-pk")
    )
