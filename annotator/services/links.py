"""Links to one file of a dataset that work for a while, for whoever has them.

A link is signed, not stored: it says which file, who made it and until when. It stops with the
version's deletion, and once its maker is no owner any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from django.conf import settings
from django.core import signing
from django.utils import timezone
from redis import RedisError

from annotator.errors import Gone, Invalid, NotAllowed, NotFound, Unavailable
from annotator.models import AuditEvent, DatasetVersion, Membership, Role, User
from annotator.services import deliveries, rate_limits

SALT: Final = "touchstone.dataset.link"
LIFETIMES: Final = {
    "1h": ("1 hour", timedelta(hours=1)),
    "1d": ("1 day", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
}
MAX_TOKEN: Final = 500
BURST: Final = 4  # a quarter of a minute's requests may come at once: downloaders open several


@dataclass(frozen=True)
class Link:
    """A link that was made: ``token`` is its secret part."""

    token: str
    name: str
    expires_at: datetime


@dataclass(frozen=True)
class Opened:
    """What a link gives."""

    version: DatasetVersion
    name: str
    maker: User
    key: str


def make(*, version: DatasetVersion, name: str, lifetime: str, by: User) -> Link:
    """A link to one file of a version, or to all of them (deliveries.ARCHIVE).

    Raises Gone, NotAllowed, Invalid for a lifetime that is not among ``LIFETIMES``.
    """
    if lifetime not in LIFETIMES:
        raise Invalid(f"A link lives for one of: {', '.join(LIFETIMES)}.")
    if not _is_owner(by, version):
        raise NotAllowed("Only owners of the project make links to its datasets.")
    deliveries.require(version, name)
    expires_at = (timezone.now() + LIFETIMES[lifetime][1]).replace(microsecond=0)
    said = {"v": version.pk, "f": name, "u": by.pk, "e": int(expires_at.timestamp())}
    token = signing.dumps(said, salt=SALT)
    AuditEvent.objects.create(
        project_id=version.project_id,
        actor=by,
        verb="dataset.link",
        subject=str(version),
        data={"file": name, "expires_at": expires_at.isoformat(), "link": key_of(token)},
    )
    return Link(token, name, expires_at)


def key_of(token: str) -> str:
    """What the audit calls a link: nobody can make the link of it."""
    return sha256(token.encode()).hexdigest()[:12]


def open_link(token: str, name: str) -> Opened:
    """What a link gives now.

    Raises NotFound where it was not made here, Gone where it no longer works, TooMany,
    Unavailable where Redis is away.
    """
    said = _read(token)
    if said is None or said["f"] != name:
        raise NotFound("This is no link to a dataset.", advice="Was it copied whole?")
    _count(token)
    expires_at = datetime.fromtimestamp(said["e"], UTC)
    if expires_at <= timezone.now():
        raise Gone(
            f"This link worked until {expires_at:%Y-%m-%d %H:%M} UTC.",
            advice="Ask an owner of the project for a new one.",
        )
    version = DatasetVersion.objects.select_related("project").filter(pk=said["v"]).first()
    maker = User.objects.filter(pk=said["u"], is_active=True).first()
    if version is None or maker is None or not _is_owner(maker, version):
        raise Gone(
            "This link no longer works: who made it no longer owns the project.",
            advice="Ask an owner of the project for a new one.",
        )
    deliveries.require(version, name)
    return Opened(version, name, maker, key_of(token))


def _read(token: str) -> dict[str, Any] | None:
    if len(token) > MAX_TOKEN:
        return None
    try:
        said: dict[str, Any] = signing.loads(token, salt=SALT)
    except signing.BadSignature:
        return None
    return said


def _count(token: str) -> None:
    per_minute = settings.LINK_REQUESTS_PER_MINUTE
    burst = max(1, per_minute // BURST)
    try:
        rate_limits.take("link", of=key_of(token), per_minute=per_minute, burst=burst)
    except RedisError:
        raise Unavailable(
            "The server cannot count downloads for now.", advice="Try again in a moment."
        ) from None


def _is_owner(user: User, version: DatasetVersion) -> bool:
    owners = Membership.objects.filter(project=version.project_id, role=Role.OWNER)
    return owners.filter(user=user).exists()
