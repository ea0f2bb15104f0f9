"""Trained reward models."""

from __future__ import annotations

from django.db import models

from annotator.models.projects import Project
from annotator.models.runs import Run


class RewardModel(models.Model):
    """A trained artifact and what it scored on the test split.

    ``metrics`` is what the trainer wrote: accuracy, interval, test_pairs, baselines, and the
    hash of the data it saw.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="reward_models")
    run = models.OneToOneField(Run, models.RESTRICT, related_name="reward_model")
    number = models.PositiveIntegerField()
    objective = models.CharField(max_length=40)
    backbone = models.CharField(max_length=300)
    options = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    artifact = models.CharField(max_length=400)  # folder, relative to WORK_ROOT
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_reward_model_number")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"rm-{self.number}"
