"""Projects: created with an owner, changed with everything that hangs on a setting, archived."""

from __future__ import annotations

from typing import Any, Final

from django.core.validators import slug_re
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from annotator.errors import Conflict, Invalid
from annotator.models import (
    AuditEvent,
    Membership,
    Project,
    ProjectSettings,
    Prompt,
    Role,
    User,
)
from annotator.services import queue, tasks

MAX_SLUG: Final = 60
# What the owner of a project may change on its settings page.
TEXTS: Final = ("name", "question", "guidelines")


def free_slug(name: str) -> str:
    """An address made from a name that no project has yet."""
    stem = slugify(name)[: MAX_SLUG - 4].strip("-_") or "project"
    taken = set(Project.objects.filter(slug__startswith=stem).values_list("slug", flat=True)[:2000])
    if stem not in taken:
        return stem
    return next(f"{stem}-{n}" for n in range(2, len(taken) + 3) if f"{stem}-{n}" not in taken)


def create(
    *,
    slug: str,
    name: str,
    owner: User | None,
    modality: str = Project.Modality.TEXT,
    question: str = "",
    guidelines: str = "",
    options: ProjectSettings | None = None,
) -> Project:
    """A new project and its owner. Raises Conflict if the slug is taken, Invalid for a bad one."""
    if not slug_re.match(slug) or len(slug) > MAX_SLUG:
        raise Invalid(
            f"The address may hold letters, digits, - and _, up to {MAX_SLUG} characters."
        )
    if modality not in Project.Modality.values:
        raise Invalid(f"The modality is one of {', '.join(Project.Modality.values)}.")
    project = Project(
        slug=slug, name=name[:120], modality=modality, question=question, guidelines=guidelines
    )
    project.set_options(options or ProjectSettings())
    try:
        with transaction.atomic():
            project.save(force_insert=True)
            if owner is not None:
                Membership.objects.create(project=project, user=owner, role=Role.OWNER)
            AuditEvent.objects.create(
                project=project, actor=owner, verb="project.create", subject=slug
            )
    except IntegrityError as error:
        if not Project.objects.filter(slug=slug).exists():
            raise
        raise Conflict(f"There is a project “{slug}” already.") from error
    return project


def has_prompts(project: Project) -> bool:
    return Prompt.objects.filter(project=project).exists()


@transaction.atomic
def change(
    *, project: Project, by: User, texts: dict[str, str], options: ProjectSettings
) -> list[str]:
    """Set texts and options; returns the names of what changed.

    Another overlap reaches every task that was not set apart, another sampler every task. Split
    shares and seed stand once there are prompts: each prompt's side was drawn from them, and
    moving one would put test prompts into training.
    Raises Conflict when they would change.
    """
    project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    before = project.options
    fresh = options.model_dump()
    changed = [name for name, value in before.model_dump().items() if fresh[name] != value]
    if {"split", "split_seed", "overlap"} & set(changed) and not queue.hold_imports(project.pk):
        raise Conflict(
            "An import is under way; overlap and split wait until it has ended.",
            advice="Its run page says how far it is.",
        )
    if {"split", "split_seed"} & set(changed) and has_prompts(project):
        raise Conflict(
            "The split is locked: prompts have been drawn with it.",
            advice="Start another project to use other shares.",
        )
    for name in TEXTS:
        if name in texts and getattr(project, name) != texts[name]:
            setattr(project, name, texts[name])
            changed.append(name)
    if not changed:
        return []
    project.set_options(options)
    project.save()
    data: dict[str, Any] = {"changed": changed}
    data |= tasks.follow_settings(
        project=project, before=before.model_dump(), changed=changed, by=by
    )
    AuditEvent.objects.create(
        project=project, actor=by, verb="project.change", subject=project.slug, data=data
    )
    return changed


@transaction.atomic
def set_archived(*, project: Project, archived: bool, by: User) -> None:
    """Put a project away or take it out again. Nothing is deleted."""
    changed = Project.objects.filter(pk=project.pk, archived_at__isnull=archived).update(
        archived_at=timezone.now() if archived else None
    )
    if changed:
        verb = "project.archive" if archived else "project.restore"
        AuditEvent.objects.create(project=project, actor=by, verb=verb, subject=project.slug)


@transaction.atomic
def set_paused(*, project: Project, paused: bool, by: User) -> None:
    """Hand out nothing new, or go on. What people hold they can finish."""
    changed = Project.objects.filter(pk=project.pk, paused_at__isnull=paused).update(
        paused_at=timezone.now() if paused else None
    )
    if changed:
        verb = "project.pause" if paused else "project.resume"
        AuditEvent.objects.create(project=project, actor=by, verb=verb, subject=project.slug)
