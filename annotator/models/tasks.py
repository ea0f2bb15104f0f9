"""What is to be judged, and who holds it now."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from annotator.models.people import Rater, User
from annotator.models.projects import Project
from annotator.models.prompts import Prompt


class Group(models.Model):
    """Raters to whom tasks can be assigned; one of a single person is how a person is named."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="groups")
    name = models.CharField(max_length=80)
    raters = models.ManyToManyField(Rater, related_name="groups")
    # Set where the group stands for one named person (services.groups.of_person).
    person = models.OneToOneField(Rater, models.CASCADE, null=True, related_name="own_group")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_group_per_name")
        ]

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """A question about some responses of one prompt.

    ``free`` is the number of places nobody holds: overlap - counted judgments - live leases.
    Only services.queue changes it, in the transaction that changes the other two, so that a
    partial index on it is the whole queue. A gold task has no places: everybody gets it once.
    """

    EVERYBODY: ClassVar[int] = 0

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="tasks", db_constraint=False, db_index=False
    )
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=20, default="pairwise")
    # The responses in canonical order: verdicts refer to them by place in this list.
    response_ids = ArrayField(models.BigIntegerField())
    content_hash = models.BinaryField(max_length=16)
    overlap = models.PositiveSmallIntegerField(default=1)
    judged = models.PositiveSmallIntegerField(default=0)
    free = models.SmallIntegerField(default=1)
    priority = models.IntegerField(default=0)
    position = models.BigIntegerField(default=0)  # order within a priority
    group_id = models.BigIntegerField(db_default=0)  # a Group, or EVERYBODY
    is_gold = models.BooleanField(default=False)  # mixed in unrecognizably, tests the rater
    is_qualification = models.BooleanField(db_default=False)  # a gold given before real work
    # The known right verdict: {"ranks", "strength", "both_bad", "ratings", "note"}. A task that
    # is not a gold may have one too: it is what aggregators are measured against.
    gold = models.JSONField(null=True)
    is_settled = models.BooleanField(db_default=False)  # a reviewer's verdict overrules the votes
    # Whose criteria a checklist asks (a RubricVersion); null: those of the project's settings.
    rubric_version_id = models.BigIntegerField(null=True)
    # What the file calls it, where it names a pair and not its prompt: prompts come in many pairs.
    external_id = models.CharField(max_length=200, blank=True, db_default="")
    import_run_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="one_task_per_hash"),
        ]
        indexes = [
            # The queue: an index-only pick in hand-out order among tasks with a free place.
            models.Index(
                "project",
                "group_id",
                F("priority") * -1,
                "position",
                "id",
                name="task_queue",
                condition=Q(free__gt=0),
            ),
            models.Index(
                fields=["project", "is_qualification", "position", "id"],
                name="task_golds",
                condition=Q(is_gold=True),
            ),
            # The checklists of a rubric's version, which are few among many tasks.
            models.Index(
                fields=["rubric_version_id"],
                name="task_of_rubric",
                condition=Q(rubric_version_id__isnull=False),
            ),
            # Pages and chunks walk a project's tasks in the order of their import.
            models.Index(fields=["project", "id"], name="task_by_project"),
        ]

    def __str__(self) -> str:
        return f"task {self.pk}"


class AssignmentState(models.TextChoices):
    LEASED = "leased", "Held"
    SUBMITTED = "submitted", "Submitted"
    SKIPPED = "skipped", "Skipped"
    EXPIRED = "expired", "Given back"


class Assignment(models.Model):
    """One rater's lease on one task: what was shown, in which order, when, and the draft."""

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="assignments", db_index=False)
    rater = models.ForeignKey(Rater, models.CASCADE, related_name="assignments", db_index=False)
    state = models.CharField(max_length=10, choices=AssignmentState)
    seed = models.BigIntegerField()
    # Places in Task.response_ids in the order shown: [1, 0] shows the second response as A.
    shown_order = ArrayField(models.SmallIntegerField())
    leased_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    first_paint_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    draft = models.JSONField(null=True)
    draft_at = models.DateTimeField(null=True)
    skip_reason = models.CharField(max_length=200, blank=True)
    # A reviewer's words with a task that came back to its rater.
    sent_back_at = models.DateTimeField(null=True)
    sent_back_note = models.TextField(blank=True, db_default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "rater"], name="one_assignment_per_rater")
        ]
        indexes = [
            models.Index(
                fields=["project", "expires_at"],
                name="assignment_live",
                condition=Q(state="leased"),
            ),
            models.Index(fields=["rater", "state", "-closed_at"], name="assignment_history"),
        ]

    def __str__(self) -> str:
        return f"assignment {self.pk}"


class Comment(models.Model):
    """A remark on a task. A flag asks a reviewer to look; it is open until someone has."""

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="comments")
    author = models.ForeignKey(User, models.CASCADE, related_name="+", db_index=False)
    text = models.TextField(blank=True)
    is_flag = models.BooleanField(default=False)
    # What it answers: its author sees the answer, though nobody else's remarks.
    reply_to = models.ForeignKey("self", models.CASCADE, null=True, related_name="replies")
    created_at = models.DateTimeField(auto_now_add=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(
        User, models.SET_NULL, null=True, related_name="+", db_index=False
    )

    def __str__(self) -> str:
        return f"comment {self.pk}"
