"""Rubrics in and out: a version as a file, a file as a draft, an empty draft."""

from __future__ import annotations

import json
from typing import Final

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from annotator import formats
from annotator.errors import AppError
from annotator.forms.rubric_files import NewRubricForm, RubricFileForm
from annotator.models import Criterion, Role, RubricVersion
from annotator.services import rubric_files as files
from annotator.services import rubrics as service
from annotator.uploads import was_too_large
from annotator.views.helpers import Access, attachment, project_page, token_or_session
from annotator.views.rubric_pages import find

SAMPLE: Final = {
    "format": files.FORMAT,
    "version": files.VERSION,
    "rubric": "Helpfulness",
    "criteria": [
        {"text": "It names each step.", "weight": 0.8},
        {"text": "It refuses for no reason.", "polarity": -1},
    ],
}


@token_or_session
@project_page(Role.REVIEWER)
@require_GET
def file(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """The criteria of a version as JSON, or with ``?format=md`` for people to read."""
    version = find(access, rubric_id, number)
    if request.GET.get("format") == "md":
        return attachment(
            files.as_markdown(version), "text/markdown", files.file_name(version, "md")
        )
    text = json.dumps(files.as_json(version), ensure_ascii=False, indent=2)
    return attachment(text, "application/json", files.file_name(version, "json"))


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def import_file(request: HttpRequest, access: Access) -> HttpResponse:
    """A file becomes a draft, all of it or nothing."""
    if request.method == "GET":
        return _import_form(request, access, RubricFileForm())
    form = RubricFileForm(request.POST, request.FILES)
    if was_too_large(request):
        limit = formats.file_size(files.MAX_BYTES)
        form.add_error("file", f"The file is larger than {limit}: no rubric is.")
    if form.is_valid():
        data = form.cleaned_data["file"].read()
        try:
            version = files.read(
                project=access.project, data=data, name=form.cleaned_data["name"], by=request.user
            )
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return _to(access, version)
    return _import_form(request, access, form, status=422)


def _import_form(
    request: HttpRequest, access: Access, form: RubricFileForm, *, status: int = 200
) -> HttpResponse:
    context = {
        "access": access,
        "form": form,
        "limit": files.MAX_BYTES,
        "sample": json.dumps(SAMPLE, indent=2),
        "verifiers": Criterion.Verifier.values,
        "scopes": Criterion.Scope.values,
    }
    return render(request, "rubrics/import.html", context, status=status)


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, access: Access) -> HttpResponse:
    """An empty draft, to write criteria into."""
    form = NewRubricForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            with transaction.atomic():
                rubric = service.create(
                    project=access.project, name=form.cleaned_data["name"], by=request.user
                )
                version = service.draft(rubric=rubric, by=request.user)
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return _to(access, version)
    status = 422 if form.is_bound else 200
    return render(request, "rubrics/new.html", {"access": access, "form": form}, status=status)


def _to(access: Access, version: RubricVersion) -> HttpResponse:
    return redirect("rubric_version", access.project.slug, version.rubric_id, version.number)
