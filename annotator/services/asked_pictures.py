"""Pictures that come with a request for scores: made safe, and kept as long as the request is."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from django.utils import timezone

from annotator import pictures
from annotator.errors import Invalid
from annotator.models import Project, Run
from annotator.pictures import BadPicture, Encoded
from annotator.services import images

MOST_SENT: Final = 16  # pictures of one request
MOST_PIXELS: Final = pictures.MAX_PIXELS  # of them all: decoding is done while the sender waits
KEPT: Final = timedelta(days=1)  # for who looks at the answer again
DATA_URI: Final = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)


def encoded(files: Iterable[bytes]) -> list[Encoded]:
    """Pictures decoded and encoded anew, as an import does it. Raises Invalid."""
    found: list[Encoded] = []
    for place, data in enumerate(files, start=1):
        if place > MOST_SENT:
            raise Invalid(f"At most {MOST_SENT} pictures in one request.")
        try:
            found.append(pictures.encode(data))
        except BadPicture as error:
            raise Invalid(f"Picture {place} cannot be read: {error.detail}.") from None
        if sum(one.width * one.height for one in found) > MOST_PIXELS:
            raise Invalid(
                f"The pictures have more than {MOST_PIXELS // 10**6} million pixels together.",
                advice="Send fewer at once, or smaller ones.",
            )
    return found


def decoded(text: str) -> bytes:
    """The bytes of base64, bare or in a data URI. Raises Invalid."""
    if found := DATA_URI.match(text):
        if not found.group().lower().endswith(";base64,"):
            raise Invalid("A picture is sent as base64.")
        text = text[found.end() :]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("A picture is sent as base64, and this is none.") from None


def keep(run: Run, given: Sequence[Encoded]) -> list[dict[str, str]]:
    """Pictures as answers of a request; those of requests long answered go."""
    drop(run.project, before=KEPT)
    project = run.project
    kept = [images.keep(project=project, encoded=one, run=run) for one in given]
    return [{"image": one.file.name} for one in kept]


def drop(project: Project, *, before: timedelta) -> None:
    """Delete the pictures of requests that ended so long ago."""
    runs = Run.objects.filter(
        project=project, kind=Run.Kind.ASK, finished_at__lt=timezone.now() - before
    )
    images.drop_of(project_id=project.pk, runs=list(runs.values_list("pk", flat=True)))
