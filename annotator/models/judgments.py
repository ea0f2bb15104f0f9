"""Verdicts, append-only, and the normalized edges that training, agreement and export read."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from annotator.models.people import Rater
from annotator.models.projects import Project
from annotator.models.tasks import Task


class Judgment(models.Model):
    """One rater's verdict on one task. An edit or an undo adds a revision.

    ``is_current`` marks what is in force: one vote per task and rater, and beside the votes one
    adjudication per task, by whichever reviewer decided last. Both are revisions of the same
    rater where a reviewer also voted, so readers of votes leave kind "adjudication" out. An
    adjudication takes no place: it is never counted.

    The canonical form serves every kind of task and never depends on what was shown where:

    - ``ranks``: place of each response of ``Task.response_ids``, 1 the best, equal for ties,
      0 for one that could not be ranked;
    - ``strength``: 0 (tie) to 3;
    - ``both_bad``: none of the responses is acceptable; ``ranks`` still says which is less bad;
    - ``ratings``: ``{attribute: [value of each response or null]}``, for kinds that rate or
      check; a checklist's values are 1 yes, 0 no, null does not apply.
    """

    class Kind(models.TextChoices):
        VOTE = "vote", "Vote"
        IMPORTED = "imported", "Imported"
        ADJUDICATION = "adjudication", "Adjudication"
        WITHDRAWAL = "withdrawal", "Withdrawal"

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(Task, models.CASCADE, related_name="judgments", db_index=False)
    rater = models.ForeignKey(
        Rater, models.CASCADE, related_name="judgments", db_constraint=False, db_index=False
    )
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.VOTE)
    revision = models.PositiveSmallIntegerField(default=1)
    is_current = models.BooleanField(default=True)
    # False for a late submit whose place had been given away: kept for agreement, not for quota.
    is_counted = models.BooleanField(default=True)
    ranks = ArrayField(models.SmallIntegerField())
    strength = models.PositiveSmallIntegerField(default=0)
    both_bad = models.BooleanField(default=False)
    ratings = models.JSONField(null=True)
    rationale = models.TextField(blank=True)
    reasons = ArrayField(models.CharField(max_length=80), default=list)
    confidence = models.FloatField(null=True)
    shown_order = ArrayField(models.SmallIntegerField(), null=True)
    first_paint_at = models.DateTimeField(null=True)
    submitted_at = models.DateTimeField()
    active_ms = models.PositiveIntegerField(null=True)  # hidden tabs excluded
    is_hit = models.BooleanField(null=True)  # agrees with the gold; null on an ordinary task
    import_run_id = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task", "rater", "revision"], name="one_judgment_per_revision"
            ),
            models.UniqueConstraint(
                fields=["task"],
                condition=Q(kind="adjudication", is_current=True),
                name="one_adjudication_in_force",
            ),
        ]
        indexes = [
            models.Index(
                fields=["project", "submitted_at"],
                name="judgment_by_time",
                condition=Q(is_current=True),
            ),
            models.Index(
                fields=["rater", "-submitted_at"],
                name="judgment_by_rater",
                condition=Q(is_current=True),
            ),
        ]

    def __str__(self) -> str:
        return f"judgment {self.pk}"


class Preference(models.Model):
    """One edge: response ``a`` against response ``b`` according to one judgment in force.

    Written in the judgment's own transaction and deleted when the judgment is superseded, so
    this table only ever holds edges that count. ``a`` stands before ``b`` in
    ``Task.response_ids``: the order never depends on what was shown where.
    """

    class Outcome(models.IntegerChoices):
        A = 1, "a is better"
        TIE = 0, "tie"
        B = -1, "b is better"

    project = models.ForeignKey(
        Project, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    judgment = models.ForeignKey(Judgment, models.CASCADE, related_name="preferences")
    task = models.ForeignKey(
        Task, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    prompt_id = models.BigIntegerField()
    rater = models.ForeignKey(
        Rater, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    a_id = models.BigIntegerField()
    b_id = models.BigIntegerField()
    outcome = models.SmallIntegerField(choices=Outcome)
    strength = models.PositiveSmallIntegerField(default=0)
    both_bad = models.BooleanField(default=False)
    is_gold = models.BooleanField(default=False)
    # A reviewer settled the task: its adjudication's edges count, this one does not.
    is_overruled = models.BooleanField(db_default=False)
    # An AI judge's vote that no evidence has accepted: it is measured, and counts nowhere unless
    # the judge is named by whoever trains or exports.
    is_held = models.BooleanField(db_default=False)

    class Meta:
        indexes = [
            # Walks a project pair by pair: the order in which training and export read.
            models.Index(fields=["project", "prompt_id", "a_id", "b_id"], name="preference_pairs"),
        ]

    def __str__(self) -> str:
        return f"preference {self.pk}"
