"""Pictures of a project: taken in once per content, swept away when nobody needs them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, BinaryIO, Final

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection, transaction
from django.utils.crypto import salted_hmac

from annotator import pictures
from annotator.models import Image, Project, Run
from annotator.services import hashing

FOLDER: Final = "images"
MAX_ALT: Final = 500

# Pictures that came with a run and that no prompt or response shows (any more); those of a request
# for scores are the request's.
SWEEP: Final = """
    DELETE FROM annotator_image i
    WHERE i.project_id = %(project)s AND i.import_run_id IS NOT NULL
      AND CASE WHEN %(runs)s::bigint[] IS NULL
          THEN NOT EXISTS (SELECT FROM annotator_run u
                           WHERE u.id = i.import_run_id AND u.kind = 'ask')
          ELSE i.import_run_id = ANY(%(runs)s) END
      AND NOT EXISTS (SELECT FROM annotator_response r WHERE r.image_id = i.id)
      AND NOT EXISTS (SELECT FROM annotator_prompt p WHERE p.source_image_id = i.id)
      AND NOT EXISTS (SELECT FROM annotator_prompt p WHERE p.mask_image_id = i.id)
    RETURNING i.file, i.thumbnail
"""
TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('touchstone import'), %s)"

logger = logging.getLogger(__name__)


def ingest(
    *, project: Project, data: bytes | BinaryIO, alt: str = "", run: Run | None = None
) -> Image:
    """The picture of these bytes, decoded and encoded anew; the one that is there if it is.

    ``alt`` describes it for those who cannot see it; the first description of a picture stays.
    Raises pictures.BadPicture.
    """
    if not isinstance(data, bytes):
        data = data.read(pictures.MAX_BYTES + 1)
    return keep(project=project, encoded=pictures.encode(data), alt=alt, run=run)


def keep(
    *, project: Project, encoded: pictures.Encoded, alt: str = "", run: Run | None = None
) -> Image:
    """The same of a picture that is encoded anew already."""
    digest = blake2b(encoded.data, digest_size=hashing.SIZE).digest()
    known = Image.objects.filter(project=project, digest=digest).first()
    if known is not None:
        return known
    return _store(project=project, encoded=encoded, digest=digest, alt=alt, run=run)


def _store(
    *, project: Project, encoded: pictures.Encoded, digest: bytes, alt: str, run: Run | None
) -> Image:
    stem = _stem(project=project, digest=digest, run=run)
    names = (f"{FOLDER}/{stem}{encoded.ending}", f"{FOLDER}/{stem}-thumb.webp")
    kept: list[str] = []
    try:
        for name, content in zip(names, (encoded.data, encoded.thumbnail), strict=True):
            # Left by a worker that was killed between the file and its row.
            default_storage.delete(name)
            kept.append(default_storage.save(name, ContentFile(content)))
        with transaction.atomic():
            return Image.objects.create(
                project=project,
                digest=digest,
                file=kept[0],
                thumbnail=kept[1],
                width=encoded.width,
                height=encoded.height,
                size_bytes=len(encoded.data),
                alt=" ".join(alt.split())[:MAX_ALT],
                import_run_id=run.pk if run else None,
            )
    except IntegrityError:  # somebody took the same picture in just now
        drop_files(kept)
        return Image.objects.get(project=project, digest=digest)
    except BaseException:
        drop_files(kept)
        raise


def _stem(*, project: Project, digest: bytes, run: Run | None) -> str:
    """A name nobody can guess; within one run always the same, so that a resumed run that was
    killed writes over what it left."""
    if run is None:
        return secrets.token_hex(16)
    value = f"{project.pk}/{run.pk}/{digest.hex()}"
    return salted_hmac("annotator.images", value, algorithm="sha256").hexdigest()[:32]


def sweep(*, project_id: int) -> int:
    """Remove imported pictures that nothing shows; returns how many, 0 while an import runs.

    Call it in a transaction that holds the project's import lock, or in none.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TRY_LOCK, [project_id])
        if not cursor.fetchone()[0]:
            return 0  # its pictures are not shown yet
        return _sweep(cursor, project_id, runs=None)


def drop_of(*, project_id: int, runs: Sequence[int]) -> int:
    """Remove the pictures that came with these runs and that nothing shows; returns how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        return _sweep(cursor, project_id, runs=list(runs)) if runs else 0


def _sweep(cursor: Any, project_id: int, *, runs: list[int] | None) -> int:
    cursor.execute(SWEEP, {"project": project_id, "runs": runs})
    rows = cursor.fetchall()
    files = [name for row in rows for name in row]
    transaction.on_commit(lambda: drop_files(files))
    return len(rows)


def drop_files(names: Iterable[str]) -> None:
    """Delete stored files. One that cannot be deleted is logged: no page shows it any more."""
    for name in names:
        try:
            default_storage.delete(name)
        except OSError as error:
            logger.error("%s could not be deleted: %s", name, error)
