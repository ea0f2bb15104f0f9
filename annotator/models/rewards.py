"""Trained reward models, and what they and rubrics say of responses."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from annotator.models.projects import Project
from annotator.models.prompts import Response
from annotator.models.rubrics import RubricVersion
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

    @property
    def members(self) -> int:
        """How many models an ensemble is of, else 1."""
        return int((self.metrics.get("ensemble") or {}).get("members", 1))


class RewardScore(models.Model):
    """What one source says of one response, on its own scale. The source is set, the other null.

    ``mean`` is the score; ``variance`` that of an ensemble's members, null where there is one.
    """

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    response = models.ForeignKey(
        Response, models.CASCADE, related_name="scores", db_constraint=False
    )
    reward_model = models.ForeignKey(
        RewardModel, models.CASCADE, null=True, related_name="scores", db_index=False
    )
    rubric_version = models.ForeignKey(
        RubricVersion, models.CASCADE, null=True, related_name="scores", db_index=False
    )
    mean = models.FloatField()
    variance = models.FloatField(null=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(reward_model=None) ^ Q(rubric_version=None), name="one_source_of_score"
            ),
            models.UniqueConstraint(
                fields=["reward_model", "response"],
                condition=Q(reward_model__isnull=False),
                name="one_score_per_model",
            ),
            models.UniqueConstraint(
                fields=["rubric_version", "response"],
                condition=Q(rubric_version__isnull=False),
                name="one_score_per_rubric",
            ),
        ]

    def __str__(self) -> str:
        return f"score {self.pk}"
