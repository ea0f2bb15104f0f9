"""A project: one question, its guidelines, and how its work is handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from django.db import models
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from annotator.models.people import User

SKIP_REASONS = [
    "I cannot tell",
    "Not in a language I read",
    "Offensive or upsetting",
    "Broken or empty",
    "Outside my field",
]


class SplitShares(BaseModel):
    """Shares of prompts per split; drawn from the prompt's hash, so they hold on average."""

    model_config = ConfigDict(extra="forbid")

    train: float = Field(0.8, ge=0, le=1)
    validation: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitShares:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("the three shares must add up to 1")
        return self


class ProjectSettings(BaseModel):
    """What an owner can set. Stored as JSON; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")

    overlap: int = Field(
        1,
        ge=1,
        le=50,
        title="Judgments per task",
        description="How many different people judge each task.",
    )
    lease_minutes: int = Field(
        30,
        ge=1,
        le=24 * 60,
        title="Minutes a task is held",
        description="After this the task goes back to the queue; the draft is kept.",
    )
    allow_tie: bool = Field(True, title="Offer a tie")
    allow_both_bad: bool = Field(True, title="Offer “both bad”")
    rationale: Literal["off", "optional", "required"] = Field("optional", title="Ask why")
    skip_reasons: list[str] = Field(
        default_factory=lambda: list(SKIP_REASONS), max_length=12, title="Reasons to skip"
    )
    daily_target: int = Field(
        60,
        ge=1,
        le=10_000,
        title="Judgments a day",
        description="What one annotator aims for; shown as a bar, never enforced.",
    )
    split: SplitShares = Field(default_factory=SplitShares)
    split_seed: str = Field("touchstone", min_length=1, max_length=40)


class ProjectQuerySet(models.QuerySet):
    def for_user(self, user: User) -> ProjectQuerySet:
        """Projects this user is a member of. Operators see all of them in the admin only."""
        return self.filter(memberships__user=user)


class Project(models.Model):
    class Modality(models.TextChoices):
        TEXT = "text", "Text"
        IMAGE = "image", "Images"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    question = models.CharField(max_length=300, blank=True)
    modality = models.CharField(max_length=8, choices=Modality, default=Modality.TEXT)
    guidelines = models.TextField(blank=True)
    settings = models.JSONField(default=dict, blank=True)
    is_simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.settings = self.options.model_dump(mode="json")
        super().save(*args, **kwargs)

    @property
    def options(self) -> ProjectSettings:
        return ProjectSettings.model_validate(self.settings)

    def set_options(self, options: ProjectSettings) -> None:
        self.settings = options.model_dump(mode="json")
