"""Datasets: the list, a version's page, its files. What builds one is views.export_page."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from annotator.exporters.files import MEDIA_TYPES
from annotator.models import DatasetVersion, Role
from annotator.queries import datasets as queries
from annotator.services import deliveries, recipes
from annotator.views import dataset_delivery, dataset_page, ranges
from annotator.views.helpers import Access, page_after, project_page, token_or_session


@project_page(Role.OWNER)
@require_GET
def datasets(request: HttpRequest, access: Access) -> HttpResponse:
    page = queries.versions(access.project, after=page_after(request))
    context = {
        "access": access,
        "page": page,
        "lines": [dataset_page.line(version) for version in page.rows],
        "building": queries.building(access.project) if page.is_first else [],
    }
    return render(request, "datasets/list.html", context)


@project_page(Role.OWNER)
@require_GET
def dataset(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    version = _find(access, number)
    context = {
        "access": access,
        "version": version,
        "facts": version.manifest,
        "shown": dataset_page.shown(version, preview=deliveries.preview_of(version)),
        "address": request.build_absolute_uri("/").rstrip("/"),
        "previous": version.number - 1,
        "reference": recipes.reference_of(version.recipe_version) if version.recipe_version else "",
        **dataset_delivery.context(version),
    }
    return render(request, "datasets/dataset.html", context)


def _find(access: Access, number: int) -> DatasetVersion:
    version = queries.find(access.project, number)
    if version is None:
        raise Http404("no such dataset in this project")
    return version


@token_or_session
@project_page(Role.OWNER)
@require_safe
def download(request: HttpRequest, access: Access, number: int, name: str) -> HttpResponseBase:
    """One file, or a range of it. Who took what is written to the audit."""
    version = _find(access, number)
    path = deliveries.path_of(version, name)
    size, etag = path.stat().st_size, f'"{deliveries.tag_of(version, name)}"'
    try:
        span = ranges.span_of(request, size, etag)
    except ranges.Unsatisfiable:
        return ranges.refuse(size)
    if request.method == "GET":
        deliveries.record_download(
            version=version,
            name=name,
            by=request.user,
            span=span,
            via=dataset_delivery.via_of(request),
        )
    return ranges.send(
        path,
        span=span,
        etag=etag,
        media_type=MEDIA_TYPES[path.suffix],
        name=f"{access.project.slug}-v{number}-{name}",
        is_head=request.method == "HEAD",
    )
