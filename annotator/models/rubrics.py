"""Rubrics: what counts as a good answer, in criteria that people can read and judges can check."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from annotator.models.judges import Judge
from annotator.models.people import Rater, User
from annotator.models.projects import Project
from annotator.models.prompts import Response
from annotator.models.runs import Run


class Rubric(models.Model):
    """A named line of versions."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="rubrics", db_index=False)
    name = models.CharField(max_length=80)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_rubric_per_name")
        ]

    def __str__(self) -> str:
        return self.name


class RubricVersion(models.Model):
    """One state of a rubric. A draft is worked on; what is approved never changes again.

    ``method`` is the generator that proposed it, empty for one written by hand; ``figures`` are
    the generator's own. What was measured of it is in ``measurements``. ``verifier`` is the judge
    whose endpoint and model answer the criteria that a language model checks.
    """

    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        APPROVED = "approved", "Approved"

    rubric = models.ForeignKey(Rubric, models.CASCADE, related_name="versions", db_index=False)
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, related_name="children")
    method = models.CharField(max_length=40, blank=True)
    options = models.JSONField(default=dict)
    verifier = models.ForeignKey(
        Judge, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="rubric_versions")
    figures = models.JSONField(default=dict)
    digest = models.CharField(max_length=64, blank=True)  # of the criteria in force, once approved
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    approved_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    approved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["rubric", "number"], name="one_rubric_version_number"),
            models.UniqueConstraint(
                fields=["rubric"], condition=Q(state="draft"), name="one_draft_per_rubric"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rubric} v{self.number}"

    @property
    def is_draft(self) -> bool:
        return self.state == self.State.DRAFT


class Criterion(models.Model):
    """One line of a version: what is asked of an answer, and what a yes is worth.

    ``polarity`` 1: a yes speaks for the answer, -1: against it. ``weight`` is signed for a yes;
    null where none was fitted, and then every criterion counts the same. ``group`` names the
    prompt (its id) or the tag that a narrower scope is about.
    """

    class Decision(models.TextChoices):
        PROPOSED = "proposed", "Proposed"
        ACCEPTED = "accepted", "Accepted"
        REJECTED = "rejected", "Rejected"
        MERGED = "merged", "Merged into another"

    class Scope(models.TextChoices):
        PROJECT = "project", "Every prompt"
        GROUP = "group", "Prompts of a tag"
        PROMPT = "prompt", "One prompt"

    class Verifier(models.TextChoices):
        PERSON = "person", "Person"
        LLM = "llm", "Language model"
        PROGRAM = "program", "Program"
        REWARD_MODEL = "reward-model", "Reward model"

    version = models.ForeignKey(
        RubricVersion, models.CASCADE, related_name="criteria", db_index=False
    )
    position = models.PositiveSmallIntegerField()
    text = models.CharField(max_length=500)
    polarity = models.SmallIntegerField(default=1)
    weight = models.FloatField(null=True)
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.PROJECT)
    group = models.CharField(max_length=100, blank=True)
    verifier = models.CharField(max_length=12, choices=Verifier, default=Verifier.LLM)
    # A key of rubrics.programs.PROGRAMS, or the number of a reward model of the project.
    program = models.CharField(max_length=40, blank=True)
    theme = models.CharField(max_length=200, blank=True)
    decision = models.CharField(max_length=10, choices=Decision, default=Decision.PROPOSED)
    merged_into = models.ForeignKey("self", models.SET_NULL, null=True, related_name="merged")
    # support, coverage, precision, contribution, interval of the weight, redundancy, ...
    figures = models.JSONField(default=dict)
    is_edited = models.BooleanField(default=False)  # a person changed what a generator wrote

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["version", "position"], name="one_criterion_per_place"),
            models.CheckConstraint(condition=Q(polarity__in=[-1, 1]), name="polarity_is_a_sign"),
        ]

    def __str__(self) -> str:
        return self.text


class CriterionEvidence(models.Model):
    """A preference that a criterion came from, or that it does not fit."""

    criterion = models.ForeignKey(Criterion, models.CASCADE, related_name="evidence")
    prompt_id = models.BigIntegerField()
    chosen_id = models.BigIntegerField()  # responses
    rejected_id = models.BigIntegerField()
    judgment_id = models.BigIntegerField(null=True)
    rater = models.ForeignKey(
        Rater, models.SET_NULL, null=True, related_name="+", db_constraint=False, db_index=False
    )
    supports = models.BooleanField()
    quote = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"evidence {self.pk}"


class CriterionVerdict(models.Model):
    """What a rater says of one response under one criterion.

    ``value`` 1 yes, 0 no, null does not apply; ``probability`` of a yes, where one was given.
    ``rater`` is a person or a judge, null where a program or a reward model checked.
    """

    criterion = models.ForeignKey(
        Criterion, models.CASCADE, related_name="verdicts", db_index=False
    )
    response = models.ForeignKey(
        Response, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    rater = models.ForeignKey(
        Rater, models.CASCADE, null=True, related_name="+", db_constraint=False, db_index=False
    )
    value = models.SmallIntegerField(null=True)
    probability = models.FloatField(null=True)
    call_key = models.BinaryField(max_length=32, null=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["criterion", "response", "rater"],
                name="one_verdict_per_criterion",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"verdict {self.pk}"


class RubricMeasurement(models.Model):
    """What was measured of a version at one time, and the scores that it rests on.

    ``sheet`` is services.rubric_sheet.Sheet as bytes: from it a page counts again what an
    accuracy is when a criterion is rejected. ``figures`` are what a page shows.
    """

    version = models.ForeignKey(
        RubricVersion, models.CASCADE, related_name="measurements", db_index=False
    )
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")
    sheet = models.BinaryField()
    figures = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["version", "-id"], name="measurement_by_version")]

    def __str__(self) -> str:
        return f"measurement {self.pk}"
