"""Addresses around the datasets of a project: recipes, comparing, links, deletion."""

from __future__ import annotations

from typing import Final

from django.urls import path
from django.urls.resolvers import URLPattern

from annotator.views import dataset_compare, recipes
from annotator.views import dataset_delivery as delivery

RECIPE: Final = "datasets/recipes/<int:recipe_id>/"
RECIPE_VERSION: Final = RECIPE + "v<int:number>/"
VERSION: Final = "datasets/<int:number>/"

datasets: list[URLPattern] = [
    path("datasets/recipes/", recipes.recipes, name="recipes"),
    path("datasets/recipes/import/", recipes.import_file, name="recipe_import"),
    path(RECIPE, recipes.recipe, name="recipe"),
    path(RECIPE + "archive/", recipes.archive, name="recipe_archive"),
    path(RECIPE_VERSION + "recipe.json", recipes.file, name="recipe_file"),
    path(RECIPE_VERSION + "against/v<int:other>/", recipes.compare, name="recipe_compare"),
    path("datasets/compare/", dataset_compare.compare, name="dataset_compare"),
    path(VERSION + "all.zip", delivery.archive, name="dataset_archive"),
    path(VERSION + "links/", delivery.make_link, name="dataset_links"),
    path(VERSION + "downloads/", delivery.downloads, name="dataset_downloads"),
    path(VERSION + "delete/", delivery.delete, name="dataset_delete"),
]
# For whoever has a link: no account is asked for.
open_links: list[URLPattern] = [
    path("d/<str:token>/<str:name>", delivery.by_link, name="dataset_link"),
]
