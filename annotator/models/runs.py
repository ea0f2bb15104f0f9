"""Every long piece of work, its curves, the rows an import refused, and who did what."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models

from annotator.models.people import User
from annotator.models.projects import Project


class RunState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    STOPPING = "stopping", "stopping"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    CANCELED = "canceled", "canceled"
    PAUSED = "paused", "paused"


class Run(models.Model):
    """Progress, heartbeat, outcome. Workers write it; pages only read it.

    ``token`` changes each time a worker begins: a worker that was presumed dead and comes back
    finds another's token and stops writing.
    """

    class Kind(models.TextChoices):
        IMPORT = "import", "Import"
        TRAIN = "train", "Train"
        EXPORT = "export", "Export"
        QUALITY = "quality", "Quality"
        TASKS = "tasks", "Tasks"
        JUDGE = "judge", "Judge"
        BATTERY = "battery", "Attack battery"
        REPORT = "report", "Judge report"
        RUBRIC = "rubric", "Rubric"
        MEASURE = "measure", "Rubric measurement"
        TRY = "try", "Rubric tried"
        SCORE = "score", "Scores"
        EVALUATE = "evaluate", "Evaluation"
        ASK = "ask", "Scores asked for"

    project = models.ForeignKey(Project, models.CASCADE, related_name="runs")
    kind = models.CharField(max_length=12)  # a Kind; not in choices, the list grows
    title = models.CharField(max_length=200)
    state = models.CharField(max_length=10, choices=RunState, default=RunState.QUEUED)
    config = models.JSONField(default=dict)
    result = models.JSONField(default=dict)
    stages = models.JSONField(default=list)  # [{"key", "label", "state", "seconds"}]
    counters = models.JSONField(default=dict, db_default={})  # what it has used and met so far
    progress = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True)
    unit = models.CharField(max_length=20, blank=True)
    message = models.CharField(max_length=300, blank=True)
    log = models.TextField(blank=True)  # the tail; services.runs bounds it
    error = models.TextField(blank=True)
    advice = models.TextField(blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    resumed_from = models.CharField(max_length=80, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    token = models.UUIDField(null=True)
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="retries")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    is_pausing = models.BooleanField(db_default=False)  # asked to stop in order to go on later

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["project", "-id"], name="run_by_project"),
            models.Index(
                fields=["state", "heartbeat_at"],
                name="run_alive",
                condition=models.Q(state__in=["queued", "running", "stopping"]),
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk}, {self.title}"

    @property
    def is_active(self) -> bool:
        return self.state in (RunState.QUEUED, RunState.RUNNING, RunState.STOPPING)

    @property
    def folder(self) -> Path:
        """Files of this run: uploads, checkpoints, artifacts. Shared by web and workers."""
        return Path(settings.WORK_ROOT) / "runs" / str(self.pk)


class RunPoint(models.Model):
    """One point of a run's curves: step -> named values."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="points", db_index=False)
    kind = models.CharField(max_length=12)  # "step" or "evaluate"
    step = models.BigIntegerField()
    values = models.JSONField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "kind", "step"], name="one_point_per_step")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.step}"


class ImportIssue(models.Model):
    """A row that an import refused: where it stood and why. The first few thousand are kept."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="issues")
    line = models.BigIntegerField()
    code = models.CharField(max_length=40)
    reason = models.TextField()
    excerpt = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["run", "code", "line"], name="issue_by_reason")]

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class AuditEvent(models.Model):
    """Who did what to what. Rows are only ever added."""

    project = models.ForeignKey(
        Project, models.SET_NULL, null=True, related_name="events", db_index=False
    )
    actor = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    verb = models.CharField(max_length=60)
    subject = models.CharField(max_length=120, blank=True)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["project", "-id"], name="event_by_project")]

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"
