"""The members page: people with what they did, and the invitations that are still open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import F, OuterRef, Subquery
from django.utils import timezone

from annotator.models import Invitation, Judgment, Membership, Project, Rater, Role
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
