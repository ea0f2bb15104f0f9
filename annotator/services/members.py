"""Who belongs to a project: roles, removal, invitations by link."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.contrib.postgres.functions import TransactionNow
from django.db import transaction
from django.utils import timezone

from annotator.errors import Conflict, Gone, Invalid, NotFound
from annotator.models import (
    Assignment,
    AssignmentState,
    AuditEvent,
    Invitation,
    Membership,
    Project,
    Rater,
    Role,
    User,
)
from annotator.models.people import hash_token, new_token
from annotator.queries.access import RANK

MAX_PLACES: Final = 1_000
MAX_DAYS: Final = 90
MAX_OPEN_INVITATIONS: Final = 200


@dataclass(frozen=True)
class Accepted:
    """What accepting an invitation did: ``changed`` is False for those who were in already."""

    membership: Membership
    changed: bool


def _lock(project_id: int) -> None:
    """Changes of a project's members stand in line, so that its last owner cannot slip away."""
    Project.objects.select_for_update(no_key=True).only("pk").get(pk=project_id)


def _keep_an_owner(membership: Membership) -> None:
    others = Membership.objects.filter(project_id=membership.project_id, role=Role.OWNER)
    if not others.exclude(pk=membership.pk).exists():
        raise Conflict(
            "A project needs an owner.", advice="Make someone else an owner first, then try again."
        )


def _note(project_id: int, by: User, verb: str, subject: object, **data: object) -> None:
    AuditEvent.objects.create(
        project_id=project_id, actor=by, verb=verb, subject=str(subject)[:120], data=data
    )


@transaction.atomic
def change_role(*, membership: Membership, role: Role, by: User) -> Membership:
    """Give a member another role. Raises Conflict for the last owner."""
    _lock(membership.project_id)
    membership = _again(membership)
    if membership.role == role:
        return membership
    if membership.role == Role.OWNER:
        _keep_an_owner(membership)
    before, membership.role = membership.role, role
    membership.save(update_fields=["role"])
    _note(membership.project_id, by, "member.role", membership.user.email, before=before, now=role)
    return membership


@transaction.atomic
def remove(*, membership: Membership, by: User) -> None:
    """End a membership. Judgments stay; what the person held goes back to the queue.

    Raises Conflict for the last owner.
    """
    _lock(membership.project_id)
    membership = _again(membership)
    if membership.role == Role.OWNER:
        _keep_an_owner(membership)
    # Expired leases are swept by the next claim, which takes its locks in the right order.
    Assignment.objects.filter(
        project_id=membership.project_id,
        rater__user_id=membership.user_id,
        state=AssignmentState.LEASED,
    ).update(expires_at=TransactionNow())
    _note(membership.project_id, by, "member.remove", membership.user.email, role=membership.role)
    membership.delete()


@transaction.atomic
def set_limits(*, rater: Rater, quota: int | None, daily_cap: int | None, by: User) -> None:
    """Limits of one person: None is the project's, 0 none. In force with the next claim."""
    Rater.objects.filter(pk=rater.pk).update(quota=quota, daily_cap=daily_cap)
    _note(rater.project_id, by, "member.limits", rater.name, quota=quota, daily_cap=daily_cap)


@transaction.atomic
def set_paused(*, rater: Rater, paused: bool, by: User) -> None:
    """Hand nothing new to one person, or go on. What they hold they can finish."""
    changed = Rater.objects.filter(pk=rater.pk, paused_at__isnull=paused).update(
        paused_at=timezone.now() if paused else None
    )
    if changed:
        _note(rater.project_id, by, "member.pause" if paused else "member.resume", rater.name)


def _again(membership: Membership) -> Membership:
    """The membership as it is now that the project's lock is held."""
    fresh = Membership.objects.select_related("user").filter(pk=membership.pk).first()
    if fresh is None:
        raise NotFound("This person is no longer a member.")
    return fresh


@transaction.atomic
def invite(
    *, project: Project, role: Role, note: str, places: int, days: int, by: User
) -> tuple[Invitation, str]:
    """A new invitation and its token. The token is not stored: it can be shown only now."""
    if not 1 <= places <= MAX_PLACES:
        raise Invalid(f"An invitation has between 1 and {MAX_PLACES:,} places.")
    if not 1 <= days <= MAX_DAYS:
        raise Invalid(f"An invitation is open for 1 to {MAX_DAYS} days.")
    _lock(project.pk)
    unrevoked = Invitation.objects.filter(project=project, revoked_at=None)
    if unrevoked.filter(expires_at__gt=timezone.now()).count() >= MAX_OPEN_INVITATIONS:
        raise Conflict("There are too many open invitations.", advice="Revoke some first.")
    token = new_token()
    invitation = Invitation.objects.create(
        project=project,
        role=role,
        token_hash=hash_token(token),
        note=note.strip(),
        places=places,
        created_by=by,
        expires_at=timezone.now() + timedelta(days=days),
    )
    _note(project.pk, by, "invitation.create", f"invitation {invitation.pk}", role=role)
    return invitation, token


@transaction.atomic
def revoke(*, invitation: Invitation, by: User) -> None:
    """Close an invitation; those who came by it stay. A second time changes nothing."""
    changed = Invitation.objects.filter(pk=invitation.pk, revoked_at=None).update(
        revoked_at=timezone.now()
    )
    if changed:
        _note(invitation.project_id, by, "invitation.revoke", f"invitation {invitation.pk}")


def covers(membership: Membership, invitation: Invitation) -> bool:
    """Whether the member may do everything already that the invitation offers."""
    return RANK[Role(membership.role)] >= RANK[Role(invitation.role)]


def open_invitation(token: str) -> Invitation:
    """The invitation of this link. Raises NotFound for none, Gone with the reason if closed."""
    invitation = (
        Invitation.objects.select_related("project").filter(token_hash=hash_token(token)).first()
    )
    if invitation is None:
        raise NotFound("There is no such invitation.", advice="Check that the link is complete.")
    check_open(invitation)
    return invitation


def check_open(invitation: Invitation) -> None:
    """Raise Gone, saying why, unless someone new can come in by this invitation."""
    advice = "Ask the project's owner for a new link."
    if invitation.revoked_at is not None:
        raise Gone("This invitation was revoked.", advice=advice)
    if invitation.expires_at <= timezone.now():
        raise Gone("This invitation has expired.", advice=advice)
    if invitation.used >= invitation.places:
        raise Gone("This invitation has been used up.", advice=advice)
    if invitation.project.archived_at is not None:
        raise Gone("The project of this invitation is closed.")


@transaction.atomic
def accept(*, token: str, user: User) -> Accepted:
    """Make the user a member. A role is only ever raised; who gains nothing takes no place.

    The invitation's row is locked, so any number of people at once get exactly its places.
    Raises NotFound for an unknown token, Gone for a closed one.
    """
    invitation = (
        Invitation.objects.select_for_update(of=("self",))
        .select_related("project")
        .filter(token_hash=hash_token(token))
        .first()
    )
    if invitation is None:
        raise NotFound("There is no such invitation.", advice="Check that the link is complete.")
    _lock(invitation.project_id)
    membership = Membership.objects.filter(project=invitation.project, user=user).first()
    if membership and covers(membership, invitation):
        return Accepted(membership, changed=False)
    check_open(invitation)
    if membership is None:
        membership = Membership(project=invitation.project, user=user)
    membership.role = invitation.role
    membership.save()
    invitation.used += 1
    invitation.save(update_fields=["used"])
    _note(
        invitation.project_id,
        user,
        "invitation.accept",
        f"invitation {invitation.pk}",
        role=invitation.role,
    )
    return Accepted(membership, changed=True)
