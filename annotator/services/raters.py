"""Raters: people of a project, and named outside sources."""

from __future__ import annotations

from annotator.models import Project, Rater, User


def for_member(*, project: Project, user: User) -> Rater:
    """The rater that stands for this person in this project, made on first use."""
    rater = Rater.objects.filter(project=project, user=user, kind=Rater.Kind.HUMAN).first()
    if rater is None:
        rater, _ = Rater.objects.get_or_create(
            project=project, user=user, kind=Rater.Kind.HUMAN, defaults={"name": str(user)}
        )
    return rater


def imported(*, project: Project, name: str, is_simulated: bool = False) -> Rater:
    """The named outside source, made on first use."""
    rater, _ = Rater.objects.get_or_create(
        project=project,
        kind=Rater.Kind.IMPORTED,
        name=name,
        defaults={"is_simulated": is_simulated},
    )
    return rater
