"""Recipes: the list, one with its versions and what changed, two side by side, files in and out."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator import formats
from annotator.errors import AppError
from annotator.exporters import EXPORTERS
from annotator.forms.recipe_files import RecipeFileForm
from annotator.models import Recipe, RecipeVersion, Role
from annotator.queries import recipes as queries
from annotator.services import recipe_files as files
from annotator.services import recipes as service
from annotator.uploads import was_too_large
from annotator.views.helpers import (
    Access,
    attachment,
    page_after,
    project_page,
    token_or_session,
)

SAMPLE: Final = {
    "name": "Two of three",
    "format": "trl-preference",
    "options": {"min_votes": 3, "min_agreement": 0.67, "container": "parquet"},
}


@project_page(Role.OWNER)
@require_GET
def recipes(request: HttpRequest, access: Access) -> HttpResponse:
    is_archived = request.GET.get("show") == "archived"
    page = queries.listing(access.project, after=page_after(request), is_archived=is_archived)
    lines = [
        {
            "recipe": line.recipe,
            "newest": line.newest,
            "versions": line.versions,
            "datasets": line.datasets,
            "label": label_of(line.newest.format),
            "reference": service.reference_of(line.newest),
        }
        for line in page.rows
    ]
    context = {"access": access, "page": page, "lines": lines, "is_archived": is_archived}
    return render(request, "datasets/recipes.html", context)


def label_of(format: str) -> str:
    method = EXPORTERS.get(format)
    return method.label if method else format


@project_page(Role.OWNER)
@require_GET
def recipe(request: HttpRequest, access: Access, recipe_id: int) -> HttpResponse:
    """Its versions, each with what it changed, and the newest in full."""
    found = _find(access, recipe_id)
    page = queries.versions(found, after=page_after(request))
    newest = found.versions.select_related("recipe").first()
    assert newest is not None  # a recipe is made with its first version
    chosen, others = options_of(newest)
    context = {
        "access": access,
        "recipe": found,
        "page": page,
        "newest": newest,
        "lines": _lines(page.rows),
        "label": label_of(newest.format),
        "chosen": chosen,
        "others": others,
        "why_not": service.why_not(access.project, newest),
    }
    return render(request, "datasets/recipe.html", context)


def _lines(versions: list[RecipeVersion]) -> list[dict[str, Any]]:
    """Each version with what it says otherwise than the one before it."""
    befores = [*versions[1:], queries.before(versions[-1])] if versions else []
    return [
        {
            "version": version,
            "reference": service.reference_of(version),
            "before": before,
            "changes": service.diff(before, version) if before else [],
            "datasets": queries.built_with(version),
        }
        for version, before in zip(versions, befores, strict=True)
    ]


def options_of(version: RecipeVersion) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(title, value) of what it sets otherwise than the defaults, and of everything else."""
    every = service.differences("", {}, version.format, version.options)
    usual = service.differences(version.format, {}, version.format, version.options)
    names = {one.name for one in usual}
    rows = [one for one in every if one.name != "format"]
    return (
        [(one.title, one.new) for one in rows if one.name in names],
        [(one.title, one.new) for one in rows if one.name not in names],
    )


@project_page(Role.OWNER)
@require_GET
def compare(
    request: HttpRequest, access: Access, recipe_id: int, number: int, other: int
) -> HttpResponse:
    """What version ``number`` says otherwise than version ``other``."""
    new, old = (_find_version(access, recipe_id, one) for one in (number, other))
    context = {
        "access": access,
        "recipe": new.recipe,
        "old": old,
        "new": new,
        "changes": service.diff(old, new),
    }
    return render(request, "datasets/recipe_compare.html", context)


@project_page(Role.OWNER)
@require_POST
def archive(request: HttpRequest, access: Access, recipe_id: int) -> HttpResponse:
    found = _find(access, recipe_id)
    service.archive(recipe=found, by=request.user, is_archived="restore" not in request.POST)
    return redirect("recipe", access.project.slug, found.pk)


@token_or_session
@project_page(Role.OWNER)
@require_GET
def file(request: HttpRequest, access: Access, recipe_id: int, number: int) -> HttpResponse:
    """A version as JSON, which the command and ``import_file`` read again."""
    version = _find_version(access, recipe_id, number)
    text = json.dumps(files.as_json(version), ensure_ascii=False, indent=2)
    return attachment(f"{text}\n", "application/json", files.file_name(version))


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def import_file(request: HttpRequest, access: Access) -> HttpResponse:
    """A file becomes a recipe, or the next version of one."""
    if request.method == "GET":
        return _import_form(request, access, RecipeFileForm())
    form = RecipeFileForm(request.POST, request.FILES)
    if was_too_large(request):
        limit = formats.file_size(files.MAX_BYTES)
        form.add_error("file", f"The file is larger than {limit}: no recipe is.")
    if form.is_valid():
        try:
            version = files.read(
                project=access.project,
                data=form.cleaned_data["file"].read(),
                name=form.cleaned_data["name"],
                by=request.user,
            )
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            messages.success(request, f"Saved as {service.reference_of(version)}.")
            return redirect("recipe", access.project.slug, version.recipe_id)
    return _import_form(request, access, form, status=422)


def _import_form(
    request: HttpRequest, access: Access, form: RecipeFileForm, *, status: int = 200
) -> HttpResponse:
    context = {
        "access": access,
        "form": form,
        "limit": files.MAX_BYTES,
        "sample": json.dumps(SAMPLE, indent=2),
        "formats": list(EXPORTERS),
    }
    return render(request, "datasets/recipe_import.html", context, status=status)


def _find(access: Access, recipe_id: int) -> Recipe:
    found = queries.find(access.project, recipe_id)
    if found is None:
        raise Http404("no such recipe in this project")
    return found


def _find_version(access: Access, recipe_id: int, number: int) -> RecipeVersion:
    found = queries.find_version(access.project, recipe_id, number)
    if found is None:
        raise Http404("no such version of a recipe in this project")
    return found
