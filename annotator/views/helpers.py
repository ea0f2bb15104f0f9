"""Access to a project, the same way for every view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse

from annotator.models import Role
from annotator.queries.access import Access, access_or_404

__all__ = ["Access", "page_after", "project_page"]


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
