"""Groups of raters: who sees which tasks. A group of one person is how a person is named."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from annotator.errors import Conflict, Invalid
from annotator.models import AuditEvent, Group, Project, Rater, Task, User
from annotator.services.queue_marks import reset_marks

MAX_NAME: Final = 80
MAX_GROUPS: Final = 500


def _note(project: Project, by: User | None, verb: str, group: Group, **data: object) -> None:
    AuditEvent.objects.create(
        project=project, actor=by, verb=verb, subject=group.name[:120], data=data
    )


@transaction.atomic
def create(*, project: Project, name: str, by: User | None) -> Group:
    """An empty group. Raises Invalid for no name, Conflict for one that is taken."""
    name = " ".join(name.replace("\0", "").split())
    if not name or len(name) > MAX_NAME:
        raise Invalid(f"A group has a name of 1 to {MAX_NAME} characters.")
    Project.objects.select_for_update(no_key=True).only("pk").get(pk=project.pk)
    if Group.objects.filter(project=project, name=name).exists():
        raise Conflict(f"There is a group “{name}” already.")
    if Group.objects.filter(project=project, person=None).count() >= MAX_GROUPS:
        raise Conflict("There are too many groups.", advice="Delete some first.")
    group = Group.objects.create(project=project, name=name)
    _note(project, by, "group.create", group)
    return group


@transaction.atomic
def set_raters(*, group: Group, raters: list[Rater], by: User | None) -> None:
    """Put exactly these people in a group; whoever comes or goes looks at the queue anew.

    Raises Invalid for raters of another project and for the group of a person.
    """
    group = Group.objects.select_for_update(of=("self",)).select_related("project").get(pk=group.pk)
    if group.person_id is not None:
        raise Invalid("This group stands for one person.")
    if any(one.project_id != group.project_id or one.kind != Rater.Kind.HUMAN for one in raters):
        raise Invalid("Only people of this project can be in its groups.")
    before = set(group.raters.values_list("pk", flat=True))
    after = {one.pk for one in raters}
    if before == after:
        return
    group.raters.set(raters)
    reset_marks(project_id=group.project_id, raters=sorted(before ^ after))
    _note(group.project, by, "group.raters", group, before=len(before), now=len(after))


@transaction.atomic
def of_person(rater: Rater) -> Group:
    """The group that stands for this one person, made on first use."""
    group, is_new = Group.objects.get_or_create(
        person=rater,
        # Two spaces: a name that ``create`` gives to no group.
        defaults={"project_id": rater.project_id, "name": f"{rater.name[:55]}  #{rater.pk}"},
    )
    if is_new:
        group.raters.add(rater)
        reset_marks(project_id=rater.project_id, raters=[rater.pk])
    return group


@transaction.atomic
def delete(*, group: Group, by: User | None) -> None:
    """Remove a group. Raises Conflict while tasks are assigned to it: nobody would see them."""
    # Whoever assigns tasks to a group holds a share of its row meanwhile: see services.tasks.
    group = Group.objects.select_for_update(of=("self",)).select_related("project").get(pk=group.pk)
    tasks = Task.objects.filter(project_id=group.project_id, group_id=group.pk)
    if tasks.exists():
        raise Conflict(
            f"Tasks are assigned to “{group.name}”.", advice="Assign them to others first."
        )
    _note(group.project, by, "group.delete", group)
    group.delete()
