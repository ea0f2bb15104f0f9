"""The one limit on uploads, kept while they stream in."""

from __future__ import annotations

import re
from typing import Any, Final

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import HttpRequest

IMPORT_ADDRESS: Final = "/imports/new/"
RUBRIC_ADDRESS: Final = "/rubrics/import/"
RUBRIC_BYTES: Final = 2_000_000
TRY_ADDRESS: Final = re.compile(r"/reward-models/[0-9]+/try/$")
TRY_BYTES: Final = 40 * 1024**2  # of the pictures of a request together
OTHER_BYTES: Final = 64 * 1024  # of a file sent to any other address, or by nobody
FLAG: Final = "touchstone.too_large"


def was_too_large(request: HttpRequest) -> bool:
    """Whether an upload of this request was over the limit, and so was not kept."""
    return bool(request.META.get(FLAG))


class UploadQuota(FileUploadHandler):
    """First of the handlers: what is over the limit never reaches the disk.

    The rest of the body is read and dropped, so that the page can say why in its answer.
    """

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self._seen = 0

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self._check(self.content_length or 0)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._seen += len(raw_data)
        self._check(self._seen)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None

    def _limit(self) -> int:
        """The body is read before any view runs, so who sends it decides how much is kept."""
        user = getattr(self.request, "user", None)
        if not user or not user.is_authenticated:
            return OTHER_BYTES
        if self.request.path.endswith(RUBRIC_ADDRESS):
            return RUBRIC_BYTES
        if TRY_ADDRESS.search(self.request.path):
            return TRY_BYTES
        invited = self.request.path.endswith(IMPORT_ADDRESS)
        return settings.MAX_UPLOAD_BYTES if invited else OTHER_BYTES

    def _check(self, size: int) -> None:
        if size > self._limit():
            self.request.META[FLAG] = True
            raise StopUpload(connection_reset=False)
