"""AI judges: where they are asked, what they are, every call they made, what they have earned."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from annotator.models.judgments import Judgment
from annotator.models.people import Rater, User
from annotator.models.projects import Project
from annotator.models.runs import Run
from annotator.models.tasks import Task


class Endpoint(models.Model):
    """An OpenAI-compatible server that a project may call, with its key, limits and prices.

    The key is kept encrypted (services.secrets) and never shown again. ``prices`` is
    ``{model: [per million tokens in, per million tokens out]}``; "*" is any other model.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="endpoints", db_index=False)
    name = models.CharField(max_length=60)
    base_url = models.CharField(max_length=300)
    secret = models.BinaryField(null=True)
    secret_set_at = models.DateTimeField(null=True)
    concurrency = models.PositiveSmallIntegerField(default=16)
    per_minute = models.PositiveIntegerField(default=0)  # requests; 0 is no limit
    timeout_seconds = models.PositiveSmallIntegerField(default=60)
    has_schema = models.BooleanField(default=True)  # replies by JSON schema
    has_logprobs = models.BooleanField(default=False)
    has_images = models.BooleanField(default=False)
    prices = models.JSONField(default=dict)
    is_simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_endpoint_per_name")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def abilities(self) -> list[str]:
        """What it can beyond text, in words."""
        told = (
            (self.has_schema, "schema"),
            (self.has_logprobs, "probabilities"),
            (self.has_images, "images"),
        )
        return [name for has, name in told if has]


class Judge(models.Model):
    """One version of a judge: model, template, criteria and settings. It never changes.

    It is a rater: ``rater`` holds its verdicts. Another setting is another version. ``kind`` is a
    key of rubrics.judging.JUDGES, or "imported" for verdicts that came with a file.
    """

    IMPORTED = "imported"

    project = models.ForeignKey(Project, models.CASCADE, related_name="judges", db_index=False)
    rater = models.OneToOneField(Rater, models.CASCADE, related_name="judge")
    name = models.CharField(max_length=80)
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, null=True, related_name="judges")
    model = models.CharField(max_length=200, blank=True)
    template = models.CharField(max_length=60, blank=True)
    template_hash = models.CharField(max_length=64, blank=True)
    template_text = models.TextField(blank=True)  # as it was: files change
    options = models.JSONField(default=dict)  # of the kind's Options model, every value filled in
    # Whose criteria are among the options: they are copied, since a judge never changes.
    rubric_version = models.ForeignKey(
        "annotator.RubricVersion", models.SET_NULL, null=True, related_name="judges"
    )
    digest = models.CharField(max_length=64)  # of everything above that changes a verdict
    is_simulated = models.BooleanField(default=False)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["name", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name", "version"], name="one_judge_per_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class LlmCall(models.Model):
    """One reply that was paid for: the ledger, and by ``key`` the cache.

    ``request`` is what was sent, with pictures by digest; no header, so never a key.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    key = models.BinaryField(max_length=32)  # rubrics.llm.types.Request.key
    endpoint = models.ForeignKey(
        Endpoint, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    run = models.ForeignKey(
        Run, models.SET_NULL, null=True, related_name="calls", db_constraint=False
    )
    model = models.CharField(max_length=200)
    request = models.JSONField()
    reply = models.TextField()
    logprobs = models.JSONField(null=True)  # [[[token, logprob], ...] per position]
    finish_reason = models.CharField(max_length=40, blank=True)
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    cost = models.FloatField(default=0)  # in the unit of the endpoint's prices
    latency_ms = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "key"], name="one_call_per_request")
        ]
        indexes = [models.Index(fields=["project", "-id"], name="call_log")]

    def __str__(self) -> str:
        return f"call {self.pk}"


class JudgeAnswer(models.Model):
    """What a judge said of one task in one order: single answers, before they are put together.

    ``shown_order`` as in Assignment; ``ranks``, ``scores`` and ``probability`` (that the first of
    ``Task.response_ids`` is better) are in canonical order. ``error`` names why there is none.
    """

    judge = models.ForeignKey(
        Judge, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="+", db_constraint=False)
    run = models.ForeignKey(
        Run, models.SET_NULL, null=True, related_name="+", db_constraint=False, db_index=False
    )
    shown_order = ArrayField(models.SmallIntegerField())
    repeat = models.PositiveSmallIntegerField(default=0)
    model = models.CharField(max_length=200, blank=True)
    ranks = ArrayField(models.SmallIntegerField(), null=True)
    probability = models.FloatField(null=True)
    scores = models.JSONField(null=True)
    error = models.CharField(max_length=40, blank=True)
    call_key = models.BinaryField(max_length=32, null=True)  # of the LlmCall, if there was one

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["judge", "task", "model", "repeat", "shown_order"],
                name="one_answer_per_order",
            )
        ]

    def __str__(self) -> str:
        return f"answer {self.pk}"


class JudgeOutcome(models.Model):
    """How one task ended for one judge: judged, or failed with its reason."""

    judge = models.ForeignKey(
        Judge, models.CASCADE, related_name="outcomes", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="+", db_constraint=False)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+", db_constraint=False)
    judgment = models.ForeignKey(
        Judgment, models.CASCADE, null=True, related_name="+", db_constraint=False
    )
    confidence = models.FloatField(null=True)  # the judge's own, not calibrated; null: it has none
    probability = models.FloatField(null=True)  # of pairs: that the first is better
    is_consistent = models.BooleanField(null=True)  # the same winner in every order; null: one
    error = models.CharField(max_length=40, blank=True)  # empty where it was judged
    detail = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["judge", "task"], name="one_outcome_per_judge")
        ]
        indexes = [
            models.Index(fields=["judge", "error", "task"], name="outcome_by_error"),
        ]

    def __str__(self) -> str:
        return f"outcome {self.pk}"


class JudgeReport(models.Model):
    """A judge beside people, as one run found it."""

    judge = models.ForeignKey(Judge, models.CASCADE, related_name="reports", db_index=False)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")
    figures = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["judge", "-created_at"], name="judge_report_latest")]

    def __str__(self) -> str:
        return f"judge report {self.pk}"


class Battery(models.Model):
    """One run of the attack battery against a judge: the gate to unattended labelling."""

    judge = models.ForeignKey(Judge, models.CASCADE, related_name="batteries", db_index=False)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")
    limit = models.FloatField()  # share of tries that may be fooled
    probes = models.JSONField()
    is_passed = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["judge", "-created_at"], name="battery_latest")]

    def __str__(self) -> str:
        return f"battery {self.pk}"


class AcceptRule(models.Model):
    """Whether a judge's votes are accepted without a person, from which confidence on, and why."""

    judge = models.OneToOneField(Judge, models.CASCADE, related_name="accept_rule")
    limit = models.FloatField()  # share of wrong labels among the accepted
    risk = models.FloatField(default=0.05)  # chance that the limit does not hold
    audit_share = models.FloatField(default=0.05)  # accepted tasks that people judge all the same
    is_on = models.BooleanField(default=False)
    figures = models.JSONField(default=dict)  # threshold, calibration, counts: services.trust
    changed_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)
    off_reason = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"rule of judge {self.judge_id}"


class Acceptance(models.Model):
    """A task that needs no people because a judge's vote was accepted.

    ``overlap_before`` gives the task back its places when the acceptance is revoked. An audited
    one keeps its places: what people say of it is compared with the judge.
    """

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="acceptances", db_index=False)
    judge = models.ForeignKey(Judge, models.CASCADE, related_name="acceptances", db_index=False)
    judgment = models.ForeignKey(Judgment, models.CASCADE, related_name="+")
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")
    confidence = models.FloatField()  # calibrated
    is_audit = models.BooleanField(default=False)
    overlap_before = models.PositiveSmallIntegerField()
    accepted_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task"],
                condition=Q(revoked_at__isnull=True),
                name="one_acceptance_in_force",
            )
        ]
        indexes = [models.Index(fields=["judge", "-id"], name="acceptance_by_judge")]

    def __str__(self) -> str:
        return f"acceptance of task {self.task_id}"
