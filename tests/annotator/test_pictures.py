"""Foreign pictures: what is kept of them, and which are refused."""

from __future__ import annotations

import io
import os
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms

from annotator import pictures
from tests.annotator.pictures import decoded, picture, png_header, with_gps

# What is kept of a picture -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_place_and_description_do_not_survive(kind: str) -> None:
    original = with_gps(kind)
    assert b"SECRET-DESCRIPTION" in original
    kept = pictures.encode(original)
    for data in (kept.data, kept.thumbnail):
        assert b"SECRET" not in data
        assert not decoded(data).getexif()
        assert not set(decoded(data).info) & {"exif", "xmp", "icc_profile", "comment"}


def test_comment_of_a_jpeg_is_left_behind() -> None:
    kept = pictures.encode(picture(kind="JPEG", comment=b"made by model-x"))
    assert b"model-x" not in kept.data + kept.thumbnail


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_stands_upright(orientation: int) -> None:
    """Orientation 6 is turned by a quarter: what was left is up."""
    kept = pictures.encode(with_gps(orientation=orientation))
    shape = (40, 20) if orientation < 5 else (20, 40)
    assert (kept.width, kept.height) == shape
    image = decoded(kept.data)
    red_end = {1: (2, 10), 2: (37, 10), 3: (37, 10), 4: (2, 10),
               5: (10, 2), 6: (10, 2), 7: (10, 37), 8: (10, 37)}[orientation]  # fmt: skip
    red, _, blue = image.convert("RGB").getpixel(red_end)
    assert red > 200
    assert blue < 60


def test_lossless_stays_lossless_and_lossy_keeps_its_colors_sharp() -> None:
    noise = Pillow.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    source = io.BytesIO()
    noise.save(source, "PNG")
    kept = pictures.encode(source.getvalue())
    assert kept.ending == ".webp"
    assert decoded(kept.data).convert("RGB").tobytes() == noise.tobytes()
    jpeg = pictures.encode(picture(kind="JPEG"))
    assert jpeg.ending == ".jpg"
    assert decoded(jpeg.data).layer[0][1:3] == (1, 1), "no chroma subsampling"


def test_first_frame_of_an_animation_is_kept_on_white() -> None:
    frames = [Pillow.new("RGBA", (20, 20), color) for color in ((0, 0, 0, 0), (0, 0, 255, 255))]
    target = io.BytesIO()
    frames[0].save(target, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    kept = decoded(pictures.encode(target.getvalue()).data)
    assert getattr(kept, "n_frames", 1) == 1
    assert kept.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_becomes_plain_color(mode: str) -> None:
    if mode == "I;16":
        image = Pillow.frombytes("I;16", (10, 10), (0xFFFF).to_bytes(2, "little") * 100)
    else:
        image = Pillow.new("RGBA", (10, 10), "white").convert(mode)
    target = io.BytesIO()
    image.save(target, "PNG")
    kept = decoded(pictures.encode(target.getvalue()).data).convert("RGB")
    assert min(kept.getpixel((5, 5))) >= 254


def test_colors_of_another_profile_are_turned_into_srgb() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decoded(pictures.encode(picture(color="#8040c0", icc_profile=lab)).data)
    assert same.convert("RGB").getpixel((5, 5)) == (0x80, 0x40, 0xC0)
    broken = pictures.encode(picture(color="#8040c0", icc_profile=b"no profile"))
    assert decoded(broken.data).convert("RGB").getpixel((5, 5)) == (0x80, 0x40, 0xC0)


def test_thumbnail_is_small_and_keeps_proportions() -> None:
    kept = pictures.encode(picture((2000, 500)))
    assert (kept.width, kept.height) == (2000, 500)
    assert decoded(kept.thumbnail).size == (640, 160)


# What is refused -----------------------------------------------------------------------------

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes(10 * 1024 * 1024), "kind"),
        (b"", "kind"),
        (SVG, "kind"),
        (b"GIF89a", "kind"),
        (picture(kind="BMP"), "kind"),
        (picture(kind="TIFF"), "kind"),
        (picture((200, 200))[:-60], "broken"),
        (picture((300, 300), kind="JPEG", quality=95)[:600], "broken"),
        (png_header(60_000, 60_000), "large"),
        (png_header(16_384, 1), "large"),
        (png_header(8_000, 8_000), "large"),
        (png_header(200, 200), "broken"),
    ],
    ids=["zeros", "empty", "svg", "gif-header", "bmp", "tiff", "cut-png", "cut-jpeg", "bomb",
         "too-wide", "too-many-pixels", "no-pixels"],
)  # fmt: skip
def test_bytes_that_are_no_fit_picture_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(pictures.BadPicture) as refused:
        pictures.encode(data)
    assert refused.value.code == code


def test_file_over_the_limit_is_not_even_looked_at() -> None:
    with pytest.raises(pictures.BadPicture, match="over 30 MB"):
        pictures.encode(picture() + bytes(pictures.MAX_BYTES))


def test_what_hides_behind_a_picture_is_gone() -> None:
    """A polyglot: a PNG that is a zip and a web page as well."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr("evil.html", "<script>alert(1)</script>")
    kept = pictures.encode(picture() + tail.getvalue())
    assert b"evil" not in kept.data
    assert not zipfile.is_zipfile(io.BytesIO(kept.data))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    spots=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes_are_read_or_refused(kind: str, spots: list[tuple[float, int]]) -> None:
    data = bytearray(picture((24, 24), "#3060c0", kind))
    for share, value in spots:
        data[min(int(share * len(data)), len(data) - 1)] = value
    try:
        kept = pictures.encode(bytes(data))
    except pictures.BadPicture:
        return  # anything else that is raised fails the test
    assert decoded(kept.data).size == (kept.width, kept.height)
