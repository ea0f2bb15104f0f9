"""Who uses the product, and who (or what) judges in it."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotator.models.projects import Project


class UserManager(BaseUserManager):
    """Accounts are found by e-mail address, whatever its case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        if not email:
            raise ValueError("an account needs an e-mail address")
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, email: str | None) -> User:
        return self.get(email=(email or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_staff = models.BooleanField("operator", default=False)
    is_active = models.BooleanField(default=True)
    may_create_projects = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)
    # WCAG 2.1.4: single-character shortcuts can be switched off.
    single_keys = models.BooleanField("single-key shortcuts", default=True)
    theme = models.CharField(max_length=8, blank=True)  # "", "light" or "dark"

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    def __str__(self) -> str:
        return self.name or self.email

    def get_full_name(self) -> str:
        return str(self)

    def get_short_name(self) -> str:
        return str(self)

    @property
    def can_create_projects(self) -> bool:
        return self.is_staff or self.may_create_projects


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    REVIEWER = "reviewer", "Reviewer"
    ANNOTATOR = "annotator", "Annotator"


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_project")
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


def _in_two_weeks() -> Any:
    return timezone.now() + timedelta(days=14)


class Invitation(models.Model):
    """A link that makes its holder a member. Only the hash of its token is stored."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=12, choices=Role)
    token_hash = models.CharField(max_length=64, unique=True)
    note = models.CharField(max_length=120, blank=True)
    places = models.PositiveSmallIntegerField(default=1)
    used = models.PositiveSmallIntegerField(default=0)
    created_by = models.ForeignKey(User, models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(default=_in_two_weeks)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.role} in {self.project_id}"

    @property
    def is_open(self) -> bool:
        return (
            self.revoked_at is None and self.used < self.places and self.expires_at > timezone.now()
        )


def hash_token(token: str) -> str:
    """Tokens are 256 random bits, so one round of SHA-256 is enough to store them by."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    return secrets.token_urlsafe(32)


class ApiToken(models.Model):
    """A personal key for the API. Shown once; only its hash is stored."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    token_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Rater(models.Model):
    """Whoever gives verdicts in a project: a person, a judge version or a named outside source."""

    class Kind(models.TextChoices):
        HUMAN = "human", "Person"
        JUDGE = "judge", "Judge"
        IMPORTED = "imported", "Imported"

    project = models.ForeignKey(Project, models.CASCADE, related_name="raters")
    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=120)
    user = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="raters")
    is_simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    # Own progress without counting: each changes only in its rater's own transactions.
    judged = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    # Low-water mark of the queue: every task that sorts before it has been had by this rater or
    # was taken. Null means "from the top". See services.queue.
    mark_priority = models.IntegerField(null=True, blank=True)
    mark_position = models.BigIntegerField(null=True, blank=True)
    mark_task_id = models.BigIntegerField(null=True, blank=True)
    claims_since_mark = models.PositiveIntegerField(default=0)
    # Limits of this person; null means the project's.
    quota = models.PositiveIntegerField(null=True, blank=True)
    daily_cap = models.PositiveIntegerField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    # Verdicts are kept, but left out of consensus, training and export.
    is_excluded = models.BooleanField(db_default=False)
    qualified_at = models.DateTimeField(null=True, blank=True)
    disqualified_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user"], condition=Q(kind="human"), name="one_rater_per_person"
            ),
            models.UniqueConstraint(
                fields=["project", "kind", "name"],
                condition=~Q(kind="human"),
                name="one_rater_per_outside_name",
            ),
        ]

    def __str__(self) -> str:
        return self.name
