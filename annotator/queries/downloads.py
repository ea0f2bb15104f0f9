"""Who took what of a dataset, and which links to it are in force: read from the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.utils import timezone

from annotator.models import AuditEvent, DatasetVersion, User
from annotator.queries.pages import Page, page_by_id

PAGE_SIZE: Final = 20
LINKS: Final = 20
VIA: Final = {
    "page": "in the browser",
    "token": "with a token",
    "link": "by a link",
    "hub": "pushed to the hub",
}


@dataclass(frozen=True)
class Download:
    """``bytes`` were asked for; whether all of them arrived, the server cannot tell."""

    at: datetime
    who: str
    file: str
    bytes: int | None  # None: of a file that the version does not list
    is_part: bool
    via: str


@dataclass(frozen=True)
class LinkLine:
    """A link that was made and has not expired."""

    at: datetime
    who: str
    file: str
    expires_at: datetime


def _events(version: DatasetVersion, verb: str) -> Any:
    rows = AuditEvent.objects.filter(project_id=version.project_id, verb=verb, subject=str(version))
    return rows.select_related("actor").order_by("-pk")


def downloads(version: DatasetVersion, *, after: int | None = None) -> Page[Download]:
    """Newest first."""
    page: Page[AuditEvent] = page_by_id(
        _events(version, "dataset.download"), after=after, size=PAGE_SIZE, build=lambda one: one
    )
    makers = User.objects.in_bulk([pk for one in page.rows if (pk := _maker(one)) is not None])
    sizes = {entry["name"]: entry["bytes"] for entry in version.files}
    sizes["all.zip"] = sum(sizes.values())
    rows = [_download(one, makers, sizes) for one in page.rows]
    return Page(rows, next=page.next, is_first=page.is_first)


def _maker(event: AuditEvent) -> int | None:
    return event.data.get("link", {}).get("maker")


def _download(event: AuditEvent, makers: dict[int, User], sizes: dict[str, int]) -> Download:
    span, name = event.data.get("bytes"), event.data.get("file", "")
    maker = _maker(event)
    who = str(event.actor) if event.actor else "someone who is gone"
    if maker is not None:
        who = f"whoever has {makers[maker]}’s link" if maker in makers else "whoever has a link"
    return Download(
        at=event.at,
        who=who,
        file=name,
        bytes=span[1] - span[0] + 1 if span else sizes.get(name),
        is_part=bool(span),
        via=VIA.get(event.data.get("via", "page"), ""),
    )


def links(version: DatasetVersion) -> list[LinkLine]:
    """Links in force, newest first. Their secret parts are nowhere."""
    now = timezone.now()
    found = []
    for event in _events(version, "dataset.link")[: 5 * LINKS]:
        expires_at = datetime.fromisoformat(event.data["expires_at"])
        if expires_at > now:
            who = str(event.actor) if event.actor else "someone who is gone"
            found.append(LinkLine(event.at, who, event.data["file"], expires_at))
    return found[:LINKS]
