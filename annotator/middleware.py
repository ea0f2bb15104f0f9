"""What every response shares: health probes, htmx headers, errors as pages."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.contrib.messages import get_messages
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django_htmx.http import HttpResponseClientRedirect, HttpResponseLocation
from redis import Redis, RedisError

from annotator.errors import AppError

Handler = Callable[[HttpRequest], HttpResponse]


def health(get_response: Handler) -> Handler:
    """Answer probes first, so that they need neither a host name nor a session.

    ``/healthz``: the process runs. ``/readyz``: it reaches PostgreSQL and Redis.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            return JsonResponse({"status": "ok"})
        if request.path == "/readyz":
            checks = {"postgresql": _postgresql_answers(), "redis": _redis_answers()}
            ready = all(checks.values())
            body = {"status": "ready" if ready else "not ready", **checks}
            return JsonResponse(body, status=200 if ready else 503)
        return get_response(request)

    return middleware


def _postgresql_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        connection.close()
        return False
    return True


def _redis_answers() -> bool:
    from django.conf import settings

    try:
        with Redis.from_url(settings.REDIS_URL, socket_timeout=2) as client:
            return bool(client.ping())
    except RedisError:
        return False


def htmx(get_response: Handler) -> Handler:
    """Fragments are cached apart from pages; redirects move the whole page.

    Unless a boosted part of a page leads back to that page: then the part alone is read again.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        patch_vary_headers(response, ["HX-Request"])
        if request.htmx and response.status_code in (301, 302, 303):
            to = response.headers["Location"]
            if request.htmx.boosted and request.htmx.target and _leads_back(request, to):
                # To an address that differs in its fragment alone the browser would only scroll.
                part = f"#{request.htmx.target}"
                swap = "outerHTML show:none"
                return HttpResponseLocation(to, target=part, select=part, swap=swap)
            # An XMLHttpRequest would follow the redirect and swap a page into a fragment.
            return HttpResponseClientRedirect(to)
        return response

    return middleware


def _leads_back(request: HttpRequest, to: str) -> bool:
    """Whether an address is the page that the browser shows, whatever its query."""
    here = request.htmx.current_url_abs_path
    return here is not None and urlsplit(here).path == urlsplit(to).path


class app_errors:
    """Turn an ``AppError`` from a view into a page, a fragment or JSON with its status."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, AppError):
            return None
        context = {"error": exception, "messages": get_messages(request)}
        name = "error.html#note" if request.htmx else "error.html"
        return render(request, name, context, status=exception.status)
