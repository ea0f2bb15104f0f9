"""A project: one question, its guidelines, and how its work is handed out."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from django.db import models
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

if TYPE_CHECKING:
    from annotator.models.people import User

SKIP_REASONS = [
    "I cannot tell",
    "Not in a language I read",
    "Offensive or upsetting",
    "Broken or empty",
    "Outside my field",
]


ATTRIBUTES = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
TEXT_LINE = 200  # characters of one line of a list


def named(table: str, default: str, title: str, description: str = "") -> Any:
    """A setting that names a row of a table of methods, given as ``module:attribute``."""
    return Field(default, title=title, description=description, json_schema_extra={"table": table})


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

    kind: str = named(
        "annotator.kinds:KINDS",
        "pairwise",
        "Kind of task",
        "What later imports become; an import can choose another. Tasks that exist keep theirs.",
    )
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
    steps: Literal[3, 5, 7] = Field(
        5,
        title="Steps of the scale",
        description="Pairs: 3 is better or not, 7 goes up to “very much better”.",
    )
    allow_tie: bool = Field(True, title="Offer a tie")
    allow_both_bad: bool = Field(True, title="Offer “both bad”")
    rationale: Literal["off", "optional", "required"] = Field("optional", title="Ask why")
    reasons: list[str] = Field(
        default_factory=list,
        max_length=12,
        title="Reasons to tick",
        description="Offered as chips beside every verdict. One per line, 12 at most.",
    )
    attributes: list[str] = Field(
        default_factory=lambda: list(ATTRIBUTES),
        min_length=1,
        max_length=10,
        title="Attributes to rate",
        description="One per line, 10 at most. The first decides which answer is preferred.",
    )
    rating_low: int = Field(0, ge=0, le=1, title="Lowest rating")
    rating_high: int = Field(4, ge=1, le=10, title="Highest rating")
    rating_low_means: str = Field(
        "", max_length=60, title="Lowest rating means", description="Shown above the grid."
    )
    rating_high_means: str = Field("", max_length=60, title="Highest rating means")
    criteria: list[str] = Field(
        default_factory=list,
        max_length=40,
        title="Criteria that should hold",
        description="Checklists: a yes speaks for the answer. One per line, 40 at most.",
    )
    failures: list[str] = Field(
        default_factory=list,
        max_length=40,
        title="Failures to look for",
        description="Checklists: a yes speaks against the answer. One per line, 40 at most.",
    )
    allow_not_applicable: bool = Field(True, title="Offer “does not apply”")
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
    daily_cap: int = Field(
        0,
        ge=0,
        le=100_000,
        title="Daily cap",
        description="One person gets no more than this a day; 0 is no cap.",
    )
    quota: int = Field(
        0,
        ge=0,
        le=10_000_000,
        title="Quota per person",
        description="One person gets no more than this in all; 0 is no quota.",
    )
    sampler: str = named(
        "annotator.samplers:SAMPLERS",
        "sequential",
        "Order of tasks",
        "Within one priority; the highest priority always comes first.",
    )
    gold_rate: float = Field(
        0.05,
        ge=0,
        le=0.5,
        title="Share of golds",
        description="How often a task with a known answer is mixed in, 0 to 0.5.",
    )
    qualification_share: float = Field(
        0.8,
        ge=0,
        le=1,
        title="Share to qualify",
        description="Where there is a qualification set: the share to get right before real work.",
    )
    aggregator: str = named(
        "models.aggregators:AGGREGATORS",
        "dawid-skene",
        "Consensus",
        "How the votes on a task are added up.",
    )
    leaks: Literal["ignore", "flag", "redact"] = Field(
        "flag",
        title="A response that names its model",
        description="Checked at import: a named model makes a vote less than blind.",
    )
    split: SplitShares = Field(default_factory=SplitShares)
    split_seed: str = Field("touchstone", min_length=1, max_length=40)

    @field_validator("kind", "sampler", "aggregator")
    @classmethod
    def _is_in_its_table(cls, key: str, info: ValidationInfo) -> str:
        extra = cls.model_fields[info.field_name].json_schema_extra
        table = resolve_name(extra["table"])
        if key not in table:
            raise ValueError(f"there is no {info.field_name} {key!r}; known: {', '.join(table)}")
        return key

    @field_validator("reasons", "attributes", "criteria", "failures", "skip_reasons")
    @classmethod
    def _lines_are_short_and_differ(cls, lines: list[str]) -> list[str]:
        if any(not line.strip() or len(line) > TEXT_LINE for line in lines):
            raise ValueError(f"each line holds 1 to {TEXT_LINE} characters")
        if len(set(lines)) < len(lines):
            raise ValueError("a line stands there twice")
        return lines

    # Of the field declared last, so that a form can say where: what it is compared with is in data.
    @field_validator("rating_high")
    @classmethod
    def _lowest_is_below_highest(cls, high: int, info: ValidationInfo) -> int:
        if info.data.get("rating_low", 0) >= high:
            raise ValueError("the lowest rating must be below the highest")
        return high

    @field_validator("failures")
    @classmethod
    def _no_criterion_is_a_failure(cls, failures: list[str], info: ValidationInfo) -> list[str]:
        both = set(failures) & set(info.data.get("criteria", []))
        if both:
            raise ValueError(f"a criterion cannot also be a failure: {min(both)}")
        return failures


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
    paused_at = models.DateTimeField(null=True, blank=True)

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
