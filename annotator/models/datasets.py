"""Exported data sets: immutable once built."""

from __future__ import annotations

from django.db import models

from annotator.models.projects import Project
from annotator.models.runs import Run


class DatasetVersion(models.Model):
    """One built export: its recipe, its manifest, its files and their checksums."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="dataset_versions")
    run = models.OneToOneField(Run, models.RESTRICT, related_name="dataset_version")
    number = models.PositiveIntegerField()
    format = models.CharField(max_length=40)
    recipe = models.JSONField(default=dict)
    manifest = models.JSONField(default=dict)
    files = models.JSONField(default=list)  # [{"name", "bytes", "rows", "sha256"}]
    folder = models.CharField(max_length=400)  # relative to WORK_ROOT
    rows = models.BigIntegerField(default=0)
    checksum = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    downloads = models.PositiveIntegerField(default=0)

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
