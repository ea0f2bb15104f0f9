"""Foreign pictures made safe: decoded within limits, turned upright, stripped, encoded anew.

What comes out shares no byte with what came in: EXIF, comments, profiles, hidden tails and
further frames stay behind. The kind of a file is what its bytes say, never its name.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms, ImageOps

KINDS: Final = ("PNG", "JPEG", "WEBP", "GIF")
MAX_BYTES: Final = 30 * 1024**2
MAX_PIXELS: Final = 40_000_000  # 120 MB decoded
MAX_SIDE: Final = 16_383  # the longest that WebP knows
THUMBNAIL: Final = 640  # pixels of the longer side
LOSSLESS_PIXELS: Final = 6_000_000  # a lossless original up to this size stays lossless
QUALITY: Final = 95
MEDIA_TYPES: Final = {".webp": "image/webp", ".jpg": "image/jpeg"}

# Pillow's own guard, as a second lock: the first is looking at the size before decoding.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class BadPicture(Exception):
    """Bytes that are not taken as a picture: ``code`` is "kind", "broken" or "large"."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Encoded:
    """A picture as it is kept: its bytes, the ending that says their kind, pixels, thumbnail."""

    data: bytes
    ending: str  # a key of MEDIA_TYPES
    width: int
    height: int
    thumbnail: bytes  # WebP


def encode(data: bytes) -> Encoded:
    """Decode a PNG, JPEG, WebP or GIF (its first frame) and encode it anew in sRGB.

    Transparency is laid on white, so that everybody judges the same picture in any theme.
    A lossless original of moderate size becomes lossless WebP, all else JPEG at quality 95
    without chroma subsampling. Raises BadPicture.
    """
    if len(data) > MAX_BYTES:
        raise BadPicture("large", f"over {MAX_BYTES // 1024**2} MB")
    is_lossless, upright = _decode(data)
    try:
        clean = _opaque(upright)
    except Exception as error:  # the boundary to decoders of hostile bytes: see _decode
        raise BadPicture("broken", _said(error)) from error
    thumbnail = clean.copy()
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if is_lossless and clean.width * clean.height <= LOSSLESS_PIXELS:
        # Low effort: a third of the time of the default for a few percent of the size.
        kept, ending = _saved(clean, "WEBP", lossless=True, quality=20, method=1), ".webp"
    else:
        kept, ending = _saved(clean, "JPEG", quality=QUALITY, subsampling=0), ".jpg"
    return Encoded(
        data=kept,
        ending=ending,
        width=clean.width,
        height=clean.height,
        thumbnail=_saved(thumbnail, "WEBP", quality=85, method=2),
    )


def _decode(data: bytes) -> tuple[bool, Image.Image]:
    """(was it lossless, the first frame upright)."""
    try:
        image = Image.open(io.BytesIO(data), formats=KINDS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture("large", f"over {MAX_PIXELS // 10**6} million pixels") from None
    except Image.UnidentifiedImageError:
        raise BadPicture("kind", "neither PNG, JPEG, WebP nor GIF") from None
    except Exception as error:  # Pillow raises what its parsers do: struct.error, KeyError, ...
        raise BadPicture("broken", _said(error)) from error
    with image:
        width, height = image.size
        if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
            raise BadPicture("large", f"{width:,} × {height:,} pixels")
        is_lossless = image.format in ("PNG", "GIF") or data[12:16] == b"VP8L"
        try:
            image.load()
            return is_lossless, ImageOps.exif_transpose(_in_srgb(image))
        except Exception as error:  # the same boundary: any byte may be wrong
            raise BadPicture("broken", _said(error)) from error


def _in_srgb(image: Image.Image) -> Image.Image:
    """The colors that the file's own profile means; a profile that cannot be read is ignored."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(
            image, meant, ImageCms.createProfile("sRGB"), outputMode=mode
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # as browsers do: a broken profile is no reason to refuse the picture
    # Turning upright reads the orientation from here; profileToProfile keeps no EXIF.
    if "exif" in image.info:
        turned.info["exif"] = image.info["exif"]
    return turned


def _opaque(image: Image.Image) -> Image.Image:
    """RGB pixels in an image that remembers nothing else of where they came from."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        clean = Image.new("RGB", image.size, "white")
        clean.paste(image, mask=image.getchannel("A"))
        return clean
    clean = Image.new("RGB", image.size)
    clean.paste(image.convert("RGB"))
    return clean


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
