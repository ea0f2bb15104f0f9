"""Reading recipes: the list, one of them with its versions, what was built with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import Count

from annotator.models import Project, Recipe, RecipeVersion
from annotator.queries.pages import Page, page_by_id

PAGE_SIZE: Final = 30
DATASETS: Final = 6  # of a version, by number


@dataclass(frozen=True)
class Line:
    """A recipe in the list, with its newest version."""

    recipe: Recipe
    newest: RecipeVersion
    versions: int
    datasets: int


def listing(project: Project, *, after: int | None, is_archived: bool = False) -> Page[Line]:
    """The project's recipes, newest first."""
    rows = Recipe.objects.filter(project=project, archived_at__isnull=not is_archived)
    page = page_by_id(rows.order_by("-pk"), after=after, size=PAGE_SIZE, build=lambda one: one)
    ids = [one.pk for one in page.rows]
    newest = {
        one.recipe_id: one
        for one in RecipeVersion.objects.filter(recipe__in=ids)
        .order_by("recipe_id", "-number")
        .distinct("recipe_id")
        .select_related("created_by", "recipe")
    }
    built = dict(
        RecipeVersion.objects.filter(recipe__in=ids)
        .order_by()
        .values("recipe_id")
        .annotate(built=Count("datasets"))
        .values_list("recipe_id", "built")
    )
    lines = [
        Line(one, newest[one.pk], newest[one.pk].number, built[one.pk])
        for one in page.rows
        if one.pk in newest
    ]
    return Page(lines, next=page.next, is_first=page.is_first)


def find(project: Project, recipe_id: int) -> Recipe | None:
    return Recipe.objects.filter(project=project, pk=recipe_id).first()


def find_version(project: Project, recipe_id: int, number: int) -> RecipeVersion | None:
    found = RecipeVersion.objects.select_related("recipe", "created_by")
    return found.filter(recipe__project=project, recipe=recipe_id, number=number).first()


def versions(recipe: Recipe, *, after: int | None) -> Page[RecipeVersion]:
    """Newest first."""
    rows = recipe.versions.select_related("created_by", "recipe").order_by("-pk")
    return page_by_id(rows, after=after, size=PAGE_SIZE, build=lambda one: one)


def before(version: RecipeVersion) -> RecipeVersion | None:
    """The version that this one followed."""
    found = RecipeVersion.objects.select_related("recipe")
    return found.filter(recipe=version.recipe_id, number__lt=version.number).first()


def built_with(version: RecipeVersion) -> list[int]:
    """Numbers of the newest datasets that were built with a version."""
    return list(version.datasets.order_by("-number").values_list("number", flat=True)[:DATASETS])


def offered(project: Project) -> list[RecipeVersion]:
    """The newest version of every recipe that is in use, by name; the first few hundred."""
    rows = RecipeVersion.objects.filter(recipe__project=project, recipe__archived_at=None)
    rows = rows.order_by("recipe__name", "-number").distinct("recipe__name")
    return list(rows.select_related("recipe")[:300])
