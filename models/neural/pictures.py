"""Pictures from files, decoded within limits."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import BadData

KINDS: Final = ("PNG", "JPEG", "WEBP")
MOST_PIXELS: Final = 64_000_000
KEY_BYTES: Final = 16


def digest(path: Path) -> bytes:
    """16 bytes that stand for the content of a file. Raises BadData."""
    try:
        with path.open("rb") as file:
            sums = blake2b(digest_size=KEY_BYTES)
            while block := file.read(2**20):
                sums.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return sums.digest()


def open_picture(path: Path) -> Image.Image:
    """A picture in RGB, transparency laid on white. Raises BadData."""
    try:
        with Image.open(path, formats=KINDS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise BadData(f"The picture {path.name} has {width:,} x {height:,} pixels.")
            if image.has_transparency_data:
                whole = image.convert("RGBA")
                ground = Image.new("RGBA", whole.size, "white")
                return Image.alpha_composite(ground, whole).convert("RGB")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def scaled(path: Path, side: int) -> NDArray[np.uint8]:
    """Pixels (side, side, 3) of a picture, its shape squeezed where it is no square."""
    image = open_picture(path)
    # Pillow's own arithmetic on whole numbers: the same pixels on every machine.
    image.thumbnail((4 * side, 4 * side), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.uint8)


def _unreadable(path: Path, error: Exception) -> BadData:
    return BadData(
        f"The picture {path.name} cannot be read ({type(error).__name__}).",
        advice="Leave its pairs out, or import it again.",
    )
