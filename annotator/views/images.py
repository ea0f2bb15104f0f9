"""Pictures, for members of their project only."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.http import parse_etags
from django.views.decorators.http import require_safe

from annotator import pictures
from annotator.models import Image, Role
from annotator.views.helpers import Access, project_page, token_or_session

SIZES: Final = ("full", "thumb")
# An image never changes under its number, so a browser need not ask again for a year.
CACHE: Final = "private, max-age=31536000, immutable"


@token_or_session
@project_page(Role.ANNOTATOR)
@require_safe
def image(request: HttpRequest, access: Access, image_id: int, size: str) -> HttpResponseBase:
    """One picture, "full" or "thumb". Its name, origin and generator stay behind."""
    if size not in SIZES:
        raise Http404("no such size")
    found = get_object_or_404(Image, pk=image_id, project=access.project)
    stored = found.thumbnail if size == "thumb" else found.file
    etag = f'"{bytes(found.digest).hex()}-{size}"'
    asked = parse_etags(request.headers.get("If-None-Match", ""))
    response: HttpResponseBase
    if "*" in asked or etag in [tag.removeprefix("W/") for tag in asked]:
        response = HttpResponse(status=304)
    else:
        try:
            content = stored.open("rb")
        except FileNotFoundError:
            raise Http404(f"the file of image {found.pk} is gone") from None
        kind = pictures.MEDIA_TYPES[PurePosixPath(stored.name).suffix]
        response = FileResponse(content, content_type=kind)
        # Without the name it is stored under, which FileResponse tells.
        response["Content-Disposition"] = "inline"
    response["ETag"] = etag
    response["Cache-Control"] = CACHE
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
