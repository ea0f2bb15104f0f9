"""Recipes and the data sets built from them: both immutable once written."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from annotator.models.projects import Project
from annotator.models.runs import Run


class Recipe(models.Model):
    """A named way from preferences to rows. What it says stands in its versions."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="recipes")
    name = models.CharField(max_length=80)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True)  # no longer offered; its versions stay

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_recipe_name")]

    def __str__(self) -> str:
        return self.name


class RecipeVersion(models.Model):
    """What a recipe said from then on: format and options; ``digest`` is the SHA-256 of both."""

    recipe = models.ForeignKey(Recipe, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    format = models.CharField(max_length=40)
    options = models.JSONField(default=dict)
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["recipe", "number"], name="one_recipe_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.recipe.name} v{self.number}"


class DatasetVersion(models.Model):
    """One built export: its recipe, its manifest, its files and their checksums.

    A deleted version keeps its row, its manifest and its number; its files are gone.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="dataset_versions")
    run = models.OneToOneField(Run, models.RESTRICT, related_name="dataset_version")
    number = models.PositiveIntegerField()
    format = models.CharField(max_length=40)
    recipe = models.JSONField(default=dict)
    recipe_version = models.ForeignKey(
        RecipeVersion, models.SET_NULL, null=True, related_name="datasets"
    )
    manifest = models.JSONField(default=dict)
    files = models.JSONField(default=list)  # [{"name", "split", "bytes", "rows", "sha256"}]
    folder = models.CharField(max_length=400)  # relative to WORK_ROOT
    rows = models.BigIntegerField(default=0)
    checksum = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    downloads = models.PositiveIntegerField(default=0)
    deleted_at = models.DateTimeField(null=True)
    deleted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+"
    )

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_dataset_number")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"{self.project.slug} v{self.number}"
