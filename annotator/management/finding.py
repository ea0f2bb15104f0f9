"""What commands are given names of. Each raises CommandError where nothing is called so."""

from __future__ import annotations

from django.core.management.base import CommandError

from annotator.models import Project, RewardModel
from annotator.queries import rewards


def find_project(slug: str, *, advice: str = "") -> Project:
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"There is no project {slug!r}. {advice}".rstrip())
    return project


def find_reward_model(project: Project, number: int) -> RewardModel:
    """3 is rm-3."""
    model = rewards.find(project, number) if 0 < number < 2**31 else None
    if model is None:
        raise CommandError(f"{project.name} has no reward model {number}.")
    return model
