"""What the votes add up to: the consensus of a task, what reviewers look at, the figures."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from annotator.models.people import User
from annotator.models.projects import Project
from annotator.models.runs import Run
from annotator.models.tasks import Task


class Consensus(models.Model):
    """One task's verdict by a named aggregator, rewritten by each quality run.

    ``pairs`` holds ``[a, b, p_a, p_tie, p_b]`` per pair of response ids in canonical order;
    ``posterior`` is the smallest probability that the consensus of one of its pairs is right.
    """

    task = models.OneToOneField(Task, models.CASCADE, primary_key=True, related_name="consensus")
    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    aggregator = models.CharField(max_length=40)
    ranks = ArrayField(models.SmallIntegerField())
    ratings = models.JSONField(null=True)  # {attribute: [mean of each response or null]}
    pairs = models.JSONField(default=list)
    posterior = models.FloatField()
    votes = models.PositiveSmallIntegerField()
    agreement = models.FloatField(null=True)  # share of agreeing pairs of raters; null for one
    computed_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["project", "posterior"], name="consensus_doubt")]

    def __str__(self) -> str:
        return f"consensus of task {self.pk}"


class ReviewItem(models.Model):
    """A task a reviewer should look at, and why. Open until somebody decides."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    task = models.ForeignKey(Task, models.CASCADE, related_name="review_items", db_index=False)
    reason = models.CharField(max_length=20)  # a key of services.review.REASONS
    severity = models.FloatField(default=0)  # the worst first
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)
    decision = models.CharField(max_length=20, blank=True)
    decided_by = models.ForeignKey(
        User, models.SET_NULL, null=True, related_name="+", db_index=False
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task", "reason"],
                condition=Q(closed_at__isnull=True),
                name="one_open_item_per_reason",
            )
        ]
        indexes = [
            models.Index(
                "project",
                F("severity").desc(),
                "id",
                name="review_queue",
                condition=Q(closed_at__isnull=True),
            ),
            models.Index(fields=["task"], name="review_of_task"),
        ]

    def __str__(self) -> str:
        return f"review of task {self.task_id}"


class QualityReport(models.Model):
    """Agreement, raters and win rates of a project as one run found them."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    run = models.ForeignKey(Run, models.CASCADE, related_name="+")
    figures = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["project", "-created_at"], name="quality_latest")]

    def __str__(self) -> str:
        return f"quality report {self.pk}"
