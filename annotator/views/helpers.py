"""Access to a project, the same way for every view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.http import content_disposition_header

from annotator.models import Role
from annotator.queries.access import Access, access_or_404
from annotator.services import tokens

__all__ = ["Access", "as_id", "attachment", "page_after", "project_page", "token_or_session"]


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
    return as_id(request.GET.get(name, ""))


def as_id(value: str) -> int | None:
    """The key of a row as an address or a form has it; None for anything else."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None


def token_or_session(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Let a personal token stand in for a session, so that ``curl`` needs no cookies."""

    @wraps(view)
    def wrapped(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            user = tokens.user_of(secret.strip())
            if user is None:
                return JsonResponse({"detail": "Unauthorized"}, status=401)
            request.user = user
        return view(request, **kwargs)

    wrapped.at_least = view.at_least
    return wrapped


def attachment(text: str, media_type: str, name: str) -> HttpResponse:
    """A small file to save under a name."""
    response = HttpResponse(text, content_type=f"{media_type}; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["X-Content-Type-Options"] = "nosniff"
    return response
