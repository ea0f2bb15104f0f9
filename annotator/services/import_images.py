"""The images of rows on their way into a project."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from random import SystemRandom
from typing import Final

from annotator.importers.files import Files
from annotator.importers.types import BadRow, ImageRef, Row
from annotator.models import Image, Project, Run
from annotator.pictures import BadPicture
from annotator.services import images

KEPT: Final = 20_000  # images remembered by the bytes they came as
SLACK: Final = 0.01  # of the proportions of mask and source


@dataclass
class Intake:
    """Takes the images of rows in, each once. Called under the project's import lock."""

    project: Project
    run: Run
    files: Files
    _known: dict[bytes, Image] = field(default_factory=dict)

    def take(self, row: Row) -> None:
        """Store the images of a row and note their ids in it. Raises BadRow."""
        found = [reply.image for reply in row.replies] + [row.source, row.mask]
        wanted = [reference for reference in found if reference is not None]
        if not wanted:
            return
        # Ids rise as images are stored and stand in the page's addresses: in the order of the
        # row they would tell which response comes first, and so often whose it is.
        SystemRandom().shuffle(wanted)
        taken = {id(reference): self._image(reference) for reference in wanted}
        if row.source is not None and row.mask is not None:
            _check_mask(taken[id(row.source)], taken[id(row.mask)])

    def _image(self, reference: ImageRef) -> Image:
        data = reference.data if reference.data is not None else self.files.read(reference.path)
        key = blake2b(data, digest_size=16).digest()
        image = self._known.get(key)
        if image is None:
            try:
                image = images.ingest(
                    project=self.project, data=data, alt=reference.alt, run=self.run
                )
            except BadPicture as bad:
                raise BadRow(f"image-{bad.code}", bad.detail) from None
            if len(self._known) == KEPT:
                self._known.clear()
            self._known[key] = image
        reference.data = None  # a chunk of rows need not hold its images' bytes
        reference.image_id, reference.digest = image.pk, bytes(image.digest)
        return image


def _check_mask(source: Image, mask: Image) -> None:
    wanted, got = source.width / source.height, mask.width / mask.height
    if abs(got / wanted - 1) > SLACK:
        raise BadRow(
            "image-mask",
            f"{mask.width} × {mask.height} over {source.width} × {source.height}",
        )
