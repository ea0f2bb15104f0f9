"""Handing out a dataset beyond single downloads: all at once, by link, its log, its deletion."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from annotator.exporters.files import MEDIA_TYPES
from annotator.forms.dataset_links import LinkForm
from annotator.models import DatasetVersion, Role
from annotator.queries import datasets as queries
from annotator.queries import downloads as log
from annotator.services import dataset_versions, deliveries
from annotator.services import links as service
from annotator.views import ranges
from annotator.views.helpers import Access, page_after, project_page, token_or_session


def context(version: DatasetVersion) -> dict[str, Any]:
    """What templates/datasets/links.html and downloads.html show on a version's page."""
    return {
        "link_form": LinkForm(version=version) if deliveries.are_there(version) else None,
        "links": log.links(version),
        "downloads": log.downloads(version),
    }


def via_of(request: HttpRequest) -> str:
    """How somebody who is known came, for the log."""
    return "token" if "Authorization" in request.headers else "page"


def _find(access: Access, number: int) -> DatasetVersion:
    version = queries.find(access.project, number)
    if version is None:
        raise Http404("no such dataset in this project")
    return version


@project_page(Role.OWNER)
@require_POST
def make_link(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """Show a new link, once: it is stored nowhere."""
    version = _find(access, number)
    deliveries.require_kept(version)
    form = LinkForm(request.POST, version=version)
    found: dict[str, Any] = {"access": access, "version": version, **context(version)}
    if not form.is_valid():
        return render(request, "datasets/link.html", found | {"link_form": form}, status=422)
    made = service.make(
        version=version,
        name=form.cleaned_data["name"],
        lifetime=form.cleaned_data["lifetime"],
        by=request.user,
    )
    address = request.build_absolute_uri(reverse("dataset_link", args=[made.token, made.name]))
    found |= {"made": made, "address": address, "links": log.links(version), "link_form": form}
    return render(request, "datasets/link.html", found)


@require_safe
def by_link(request: HttpRequest, token: str, name: str) -> HttpResponseBase:
    """What a link leads to, for whoever has it: no account is asked for."""
    opened = service.open_link(token, name)
    link = {"id": opened.key, "maker": opened.maker.pk}
    if name == deliveries.ARCHIVE:
        return _archive(request, opened.version, via="link", link=link)
    path = deliveries.path_of(opened.version, name)
    size, etag = path.stat().st_size, f'"{deliveries.tag_of(opened.version, name)}"'
    try:
        span = ranges.span_of(request, size, etag)
    except ranges.Unsatisfiable:
        return ranges.refuse(size)
    if request.method == "GET":
        deliveries.record_download(
            version=opened.version, name=name, by=None, span=span, via="link", link=link
        )
    return ranges.send(
        path,
        span=span,
        etag=etag,
        media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        name=f"{deliveries.zip_name(opened.version)}-{name}",
        is_head=request.method == "HEAD",
    )


@token_or_session
@project_page(Role.OWNER)
@require_safe
def archive(request: HttpRequest, access: Access, number: int) -> HttpResponseBase:
    """Every file of a version as one ZIP archive, made while it is sent."""
    return _archive(request, _find(access, number), via=via_of(request))


def _archive(
    request: HttpRequest,
    version: DatasetVersion,
    *,
    via: str,
    link: dict[str, Any] | None = None,
) -> HttpResponseBase:
    pieces = deliveries.zip_pieces(version)
    if request.method == "GET":
        deliveries.record_download(
            version=version,
            name=deliveries.ARCHIVE,
            by=None if link else request.user,
            span=None,
            via=via,
            link=link,
        )
    body = () if request.method == "HEAD" else pieces
    response = StreamingHttpResponse(body, content_type="application/zip")
    name = deliveries.zip_name(version)
    response["Content-Disposition"] = f'attachment; filename="{name}.zip"'
    response["X-Content-Type-Options"] = "nosniff"
    patch_cache_control(response, private=True, no_cache=True)
    return response


@project_page(Role.OWNER)
@require_GET
def downloads(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """Who took what, page by page."""
    version = _find(access, number)
    page = log.downloads(version, after=page_after(request))
    found = {"access": access, "version": version, "downloads": page, "is_whole": True}
    return render(request, "datasets/download_log.html", found)


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """Say what deleting does; do it when asked."""
    version = _find(access, number)
    if request.method == "GET" and version.deleted_at is None:
        found = {
            "access": access,
            "version": version,
            "bytes": sum(entry["bytes"] for entry in version.files),
            "links": log.links(version),
        }
        return render(request, "datasets/delete.html", found)
    if request.method == "POST" and dataset_versions.delete(version=version, by=request.user):
        messages.success(request, f"The files of {version} were deleted.")
    return redirect("dataset", access.project.slug, version.number)
