"""Datasets for programs: recipes, builds, versions with their manifests, files, links, deletion."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from ninja import Field, Router, Schema

from annotator.api.projects import RunOut
from annotator.errors import Invalid, NotFound
from annotator.jobs import base
from annotator.models import DatasetVersion, Project, RecipeVersion, Role, Run
from annotator.queries import datasets as queries
from annotator.queries import recipes as recipe_queries
from annotator.queries.access import access_or_404
from annotator.services import dataset_compare, dataset_versions, deliveries, exports, links
from annotator.services import recipes as service

PAGE: Final = 100
BIGGEST: Final = 2**31 - 1

router = Router(tags=["datasets"])


class FileOut(Schema):
    """``url`` takes the token and ranges; ``rows`` and ``split`` are null beside the data."""

    name: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    rows: int | None = None
    split: str | None = None


class DatasetOut(Schema):
    """A version in a list. ``deleted_at``: its files are gone, its figures are kept."""

    number: int
    format: str
    rows: int
    checksum: str
    recipe: str
    run: int
    downloads: int
    created_at: datetime
    deleted_at: datetime | None
    files: list[FileOut]


class DatasetWholeOut(DatasetOut):
    manifest: dict[str, Any]


class BuildIn(Schema):
    """A format with its options, or a recipe by NAME or NAME:vN, whose options ``options`` change."""

    format: str = Field("", max_length=40)
    options: dict[str, Any] = {}
    recipe: str = Field("", max_length=120)


class LinkIn(Schema):
    """``file``: a file's name, or all.zip."""

    file: str = Field(max_length=200)
    lifetime: Literal["1h", "1d", "7d"] = "1d"


class LinkOut(Schema):
    """Works without a token until ``expires_at``."""

    url: str
    expires_at: datetime


class CompareOut(Schema):
    """Counts are null where rows cannot be compared; ``why_not`` then says why."""

    a: int
    b: int
    comparable: bool
    why_not: str
    unit: str
    equal: bool
    kept: int | None
    added: int | None
    removed: int | None
    flipped: int | None
    moved: int | None
    recipe: list[dict[str, str]]
    dropped: list[dict[str, Any]]
    examples: dict[str, list[dict[str, Any]]]


class RecipeOut(Schema):
    """A recipe's version; ``reference`` names it to a build and to the command."""

    name: str
    version: int
    reference: str
    format: str
    options: dict[str, Any]
    digest: str
    created_at: datetime


class RecipeIn(Schema):
    name: str = Field(max_length=200)
    format: str = Field(max_length=40)
    options: dict[str, Any] = {}


def _project(request: HttpRequest, slug: str) -> Project:
    return access_or_404(request.user, slug, at_least=Role.OWNER).project


def _find(request: HttpRequest, slug: str, number: int) -> DatasetVersion:
    project = _project(request, slug)
    version = queries.find(project, number) if 0 < number <= BIGGEST else None
    if version is None:
        raise NotFound(f"This project has no dataset {number}.")
    return version


def _out(request: HttpRequest, version: DatasetVersion) -> dict[str, Any]:
    recipe = version.recipe_version
    return {
        "number": version.number,
        "format": version.format,
        "rows": version.rows,
        "checksum": version.checksum,
        "recipe": service.reference_of(recipe) if recipe else "",
        "run": version.run_id,
        "downloads": version.downloads,
        "created_at": version.created_at,
        "deleted_at": version.deleted_at,
        "files": _files(request, version) if version.deleted_at is None else [],
    }


def _files(request: HttpRequest, version: DatasetVersion) -> list[dict[str, Any]]:
    known = {entry["name"]: entry for entry in version.files}
    return [
        {
            **known.get(name, {}),
            "name": name,
            "url": request.build_absolute_uri(
                reverse("dataset_download", args=[version.project.slug, version.number, name])
            ),
        }
        for name in deliveries.file_names(version)
    ]


@router.get("/{slug}/datasets", response=list[DatasetOut])
def list_datasets(
    request: HttpRequest, slug: str, before: int | None = None
) -> list[dict[str, Any]]:
    """Versions, newest first, a hundred at a time: pass the last number as ``before``."""
    rows = DatasetVersion.objects.filter(project=_project(request, slug))
    rows = rows.filter(number__lt=min(before, BIGGEST)) if before is not None else rows
    rows = rows.select_related("project", "recipe_version__recipe").order_by("-number")
    return [_out(request, version) for version in rows[:PAGE]]


@router.post("/{slug}/datasets", response=RunOut)
def build_dataset(request: HttpRequest, slug: str, body: BuildIn) -> Run:
    """Build a version in the background; the run, once done, has its number in ``result``."""
    project = _project(request, slug)
    recipe = service.named(project, body.recipe) if body.recipe else None
    if recipe is None and not body.format:
        raise Invalid("Say a format, or a recipe.")
    format = body.format or (recipe.format if recipe else "")
    # Options of one format mean nothing to another.
    known = recipe.options if recipe and recipe.format == format else {}
    with transaction.atomic():
        run = exports.start(
            project=project,
            format=format,
            options=known | body.options,
            by=request.user,
            recipe=recipe,
        )
        base.enqueue(run)
    return run


@router.get("/{slug}/datasets/compare", response=CompareOut)
def compare_datasets(request: HttpRequest, slug: str, a: int, b: int) -> dict[str, Any]:
    """What became of the rows of version ``a`` in version ``b``."""
    older, newer = _find(request, slug, a), _find(request, slug, b)
    return dataset_compare.compare(older, newer).as_dict()


@router.get("/{slug}/datasets/{int:number}", response=DatasetWholeOut)
def read_dataset(request: HttpRequest, slug: str, number: int) -> dict[str, Any]:
    """One version with its manifest: counts, reasons, health, recipe, checksums."""
    version = _find(request, slug, number)
    return _out(request, version) | {"manifest": version.manifest}


@router.delete("/{slug}/datasets/{int:number}", response=DatasetOut)
def delete_dataset(request: HttpRequest, slug: str, number: int) -> dict[str, Any]:
    """Remove a version's files for good; its figures stay. A second time changes nothing."""
    version = _find(request, slug, number)
    dataset_versions.delete(version=version, by=request.user)
    return _out(request, _find(request, slug, number))


@router.post("/{slug}/datasets/{int:number}/links", response=LinkOut)
def make_link(request: HttpRequest, slug: str, number: int, body: LinkIn) -> dict[str, Any]:
    """A link to one file for whoever has it. It stops when its maker is no owner any more."""
    version = _find(request, slug, number)
    made = links.make(version=version, name=body.file, lifetime=body.lifetime, by=request.user)
    address = reverse("dataset_link", args=[made.token, made.name])
    return {"url": request.build_absolute_uri(address), "expires_at": made.expires_at}


def _recipe_out(version: RecipeVersion) -> dict[str, Any]:
    return {
        "name": version.recipe.name,
        "version": version.number,
        "reference": service.reference_of(version),
        "format": version.format,
        "options": version.options,
        "digest": version.digest,
        "created_at": version.created_at,
    }


@router.get("/{slug}/recipes", response=list[RecipeOut])
def list_recipes(request: HttpRequest, slug: str) -> list[dict[str, Any]]:
    """The newest version of every recipe in use, by name; 300 at most."""
    return [_recipe_out(one) for one in recipe_queries.offered(_project(request, slug))]


@router.post("/{slug}/recipes", response=RecipeOut)
def save_recipe(request: HttpRequest, slug: str, body: RecipeIn) -> dict[str, Any]:
    """Save a recipe; one of that name gets its next version where this says something else."""
    project = _project(request, slug)
    version = service.save(
        project=project,
        name=body.name,
        format=body.format,
        options=body.options,
        by=request.user,
    )
    return _recipe_out(version)
