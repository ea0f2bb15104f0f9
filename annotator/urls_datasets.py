"""Addresses around the datasets of a project: recipes, comparing, links, deletion."""

from __future__ import annotations

from typing import Final

from django.urls import path
from django.urls.resolvers import URLPattern

from annotator.views import recipes

RECIPE: Final = "datasets/recipes/<int:recipe_id>/"
RECIPE_VERSION: Final = RECIPE + "v<int:number>/"

datasets: list[URLPattern] = [
    path("datasets/recipes/", recipes.recipes, name="recipes"),
    path("datasets/recipes/import/", recipes.import_file, name="recipe_import"),
    path(RECIPE, recipes.recipe, name="recipe"),
    path(RECIPE + "archive/", recipes.archive, name="recipe_archive"),
    path(RECIPE_VERSION + "recipe.json", recipes.file, name="recipe_file"),
    path(RECIPE_VERSION + "against/v<int:other>/", recipes.compare, name="recipe_compare"),
]
