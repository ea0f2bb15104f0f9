"""Personal keys for the API: made, shown once, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from annotator.errors import Conflict, Invalid
from annotator.models import ApiToken, AuditEvent, User
from annotator.models.people import hash_token, new_token

MAX_TOKENS: Final = 20
SEEN_EVERY: Final = timedelta(minutes=1)  # how exact last_used_at is


@transaction.atomic
def create(*, user: User, name: str) -> tuple[ApiToken, str]:
    """A new key and its secret. Only the hash is stored: the secret can be shown only now."""
    name = name.strip()
    if not name:
        raise Invalid("Give the token a name, so that you know later what used it.")
    User.objects.select_for_update(no_key=True).only("pk").get(pk=user.pk)
    if ApiToken.objects.filter(user=user, revoked_at=None).count() >= MAX_TOKENS:
        raise Conflict(
            f"You have {MAX_TOKENS} tokens already.", advice="Revoke one you no longer use."
        )
    secret = new_token()
    token = ApiToken.objects.create(user=user, name=name[:80], token_hash=hash_token(secret))
    AuditEvent.objects.create(actor=user, verb="token.create", subject=f"token {token.pk}")
    return token, secret


@transaction.atomic
def revoke(*, token: ApiToken) -> None:
    """End a key at once. A second time changes nothing."""
    changed = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(
        revoked_at=timezone.now()
    )
    if changed:
        AuditEvent.objects.create(
            actor_id=token.user_id, verb="token.revoke", subject=f"token {token.pk}"
        )


def user_of(secret: str) -> User | None:
    """The active user whose key this is, or None. Notes its use, at most once a minute."""
    token = (
        ApiToken.objects.select_related("user")
        .filter(token_hash=hash_token(secret), revoked_at=None, user__is_active=True)
        .first()
    )
    if token is None:
        return None
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at < now - SEEN_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token.user
