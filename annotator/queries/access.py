"""What a person is in a project: asked by every page and every call of the API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from django.http import Http404

from annotator.errors import NotAllowed
from annotator.models import Membership, Project, ReviewItem, Role
from annotator.queries.runs import ACTIVE, ASIDE

RANK: Final = {Role.ANNOTATOR: 0, Role.REVIEWER: 1, Role.OWNER: 2}


@dataclass(frozen=True)
class Access:
    """What the signed-in user is in this project. Templates ask it what to show."""

    project: Project
    role: Role

    def reaches(self, role: Role) -> bool:
        return RANK[self.role] >= RANK[role]

    @cached_property
    def active_runs(self) -> int:
        """Runs under way, for the header."""
        return self.project.runs.filter(state__in=ACTIVE).exclude(kind__in=ASIDE).count()

    @cached_property
    def open_reviews(self) -> int:
        """Items waiting for a reviewer, counted up to 1,000, for the tab."""
        waiting = ReviewItem.objects.filter(project=self.project, closed_at__isnull=True)
        return waiting[:1000].count()

    @property
    def can_review(self) -> bool:
        return self.reaches(Role.REVIEWER)

    @property
    def can_manage(self) -> bool:
        return self.reaches(Role.OWNER)


def access_or_404(user: Any, slug: str, *, at_least: Role) -> Access:
    """The project for this user: 404 for strangers, 403 with a reason for a smaller role."""
    membership = (
        Membership.objects.select_related("project").filter(user=user, project__slug=slug).first()
    )
    if membership is None:
        raise Http404("no such project for this user")
    access = Access(project=membership.project, role=Role(membership.role))
    if not access.reaches(at_least):
        raise NotAllowed(f"This page is for {at_least.label.lower()}s of the project.")
    return access
