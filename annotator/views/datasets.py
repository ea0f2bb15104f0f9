"""Datasets: the list, the recipe that builds one, its page, its files."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_safe

from annotator.errors import AppError
from annotator.exporters import preview as previews
from annotator.exporters.files import MEDIA_TYPES
from annotator.exporters.recipe import ExportOptions
from annotator.forms.exports import ExportForm
from annotator.jobs import base
from annotator.models import DatasetVersion, Role, Run
from annotator.queries import datasets as queries
from annotator.queries.pairs import Selection
from annotator.services import deliveries, exports
from annotator.views import dataset_page, ranges
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
@require_http_methods(["GET", "POST"])
def export(request: HttpRequest, access: Access) -> HttpResponse:
    """Ask for a recipe and build it. htmx, or the button Count, asks what it would leave."""
    if request.htmx and request.method == "GET":
        return _show_counts(request, access, ExportForm(request.GET, project=access.project))
    if request.method == "GET":
        form = ExportForm(project=access.project, key=request.GET.get("format", ""))
        known = queries.known_kinds(access.project, Selection()) if form.counts_pairs else None
        found = previews.foretell(known, form.options_model()) if known else None
        return _show_form(request, access, form, found, is_untouched=True)
    form = ExportForm(request.POST, project=access.project)
    if "count" in request.POST:
        return _show_counts(request, access, form)
    run = _start(request, access, form) if form.is_valid() else None
    if run is None:
        return _show_form(request, access, form, None, status=422)
    return redirect("run", slug=access.project.slug, run_id=run.pk)


def _start(request: HttpRequest, access: Access, form: ExportForm) -> Run | None:
    """The queued build, or None with the reason on the form."""
    try:
        with transaction.atomic():
            run = exports.start(
                project=access.project,
                format=form.format_key,
                options=form.values(),
                by=request.user,
            )
            base.enqueue(run)
    except AppError as error:
        form.add_error(None, f"{error.message} {error.advice}".strip())
        return None
    return run


def _show_counts(request: HttpRequest, access: Access, form: ExportForm) -> HttpResponse:
    options = form.options if form.is_valid() and form.counts_pairs else None
    found = _preview(access, options) if options else None
    return _show_form(request, access, form, found, is_slow=bool(options) and found is None)


def _preview(access: Access, options: ExportOptions) -> previews.Preview | None:
    chosen = options.selection()
    # Splits are told apart in the counts, so that choosing among them needs no new ones.
    kinds = queries.kinds(access.project, Selection(chosen.raters, chosen.names))
    return previews.foretell(kinds, options) if kinds else None


def _show_form(
    request: HttpRequest,
    access: Access,
    form: ExportForm,
    found: previews.Preview | None,
    *,
    status: int = 200,
    **more: Any,
) -> HttpResponse:
    rules = dataset_page.rules(form, found)
    context = {"access": access, "form": form, "found": found, "rules": rules, **more}
    name = "datasets/counts.html" if request.htmx else "datasets/export.html"
    return render(request, name, context, status=status)


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
        deliveries.record_download(version=version, name=name, by=request.user, span=span)
    return ranges.send(
        path,
        span=span,
        etag=etag,
        media_type=MEDIA_TYPES[path.suffix],
        name=f"{access.project.slug}-v{number}-{name}",
        is_head=request.method == "HEAD",
    )
