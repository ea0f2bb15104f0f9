"""Access to a project, the same way for every view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse

from annotator.errors import NotAllowed
from annotator.models import Membership, Project, Role

RANK: Final = {Role.ANNOTATOR: 0, Role.REVIEWER: 1, Role.OWNER: 2}


@dataclass(frozen=True)
class Access:
    """What the signed-in user is in this project. Templates ask it what to show."""

    project: Project
    role: Role

    def reaches(self, role: Role) -> bool:
        return RANK[self.role] >= RANK[role]

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


def project_page(at_least: Role) -> Callable[..., Any]:
    """Decorate ``view(request, access, ...)``: signs in, finds the project, checks the role."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @login_required
        @wraps(view)
        def wrapped(request: HttpRequest, slug: str, **kwargs: Any) -> HttpResponse:
            access = access_or_404(request.user, slug, at_least=at_least)
            request.access = access
            return view(request, access, **kwargs)

        wrapped.at_least = at_least
        return wrapped

    return decorate


def page_after(request: HttpRequest, name: str = "after") -> int | None:
    """The key in the address after which a page of a list starts; nonsense means the start."""
    value = request.GET.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
