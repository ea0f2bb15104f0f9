"""Simple scenes drawn with Pillow: shapes in colors, counts, places and words, all by code."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE: Final = 512  # pixels of a finished picture
FINER: Final = 2  # drawn so many times larger, then shrunk: smooth edges

COLORS: Final = {
    "red": "#d1382f", "orange": "#e8862a", "yellow": "#f0c430", "green": "#3c9a4e",
    "blue": "#2f6fbf", "purple": "#8150ad", "pink": "#e88bb0", "brown": "#85583a",
    "black": "#26282c", "white": "#fbfbf7", "gray": "#8d949c",
}  # fmt: skip
GROUNDS: Final = ("#efe6d3", "#dfe8ea", "#e9e3ee", "#e3ead9", "#f0e2dc")

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the side
Point = tuple[float, float]


@dataclass(frozen=True)
class Item:
    """One thing in a picture: its center and its size as shares of the side."""

    shape: str
    color: str
    x: float
    y: float
    size: float


def draw(items: Sequence[Item], *, words: str = "", seed: int = 0) -> bytes:
    """A PNG of these items, in order, with words on a sign at the bottom.

    ``seed`` varies ground and outline, which nobody asks for: pictures of equal content differ.
    """
    rng = np.random.default_rng(seed)
    side = SIDE * FINER
    image = _ground(GROUNDS[int(rng.integers(len(GROUNDS)))], side)
    pen = ImageDraw.Draw(image)
    outline = int(rng.integers(3)) * FINER
    for item in items:
        SHAPES[item.shape](pen, _box(item, side), COLORS[item.color], outline)
    if words:
        _sign(pen, words, side)
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    small.save(target, "PNG", compress_level=1)
    return target.getvalue()


def _ground(color: str, side: int) -> Image.Image:
    """A wall that gets darker towards a floor."""
    wall = Image.new("RGB", (side, side), color)
    shade = Image.linear_gradient("L").resize((side, side)).point(lambda value: value // 5)
    wall.paste("#5a4a3a", mask=shade)
    return wall


def _box(item: Item, side: int) -> Box:
    half = item.size / 2
    return (
        (item.x - half) * side,
        (item.y - half) * side,
        (item.x + half) * side,
        (item.y + half) * side,
    )


def _sign(pen: ImageDraw.ImageDraw, words: str, side: int) -> None:
    font = ImageFont.load_default(size=side // 11)
    width = pen.textlength(words, font=font)
    left, right = (side - width) / 2 - side / 20, (side + width) / 2 + side / 20
    box = (left, side * 0.8, right, side * 0.95)
    pen.rounded_rectangle(box, side // 50, fill="#fdfaf2", outline="#6a5a45", width=side // 150)
    pen.text((side / 2, side * 0.875), words, font=font, fill="#2b2722", anchor="mm")


def _at(box: Box, points: Sequence[Point]) -> list[Point]:
    """Points given in 0..1 of a box."""
    left, top, right, bottom = box
    return [(left + x * (right - left), top + y * (bottom - top)) for x, y in points]


def _inner(box: Box, x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return _at(box, [(x0, y0), (x1, y1)])


Painter = Callable[[ImageDraw.ImageDraw, Box, str, int], None]
EDGE: Final = "#3b342c"


def _polygon(points: Sequence[Point]) -> Painter:
    def paint(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
        pen.polygon(_at(box, points), fill=color, outline=EDGE if outline else None, width=outline)

    return paint


def _circle(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    pen.ellipse(box, fill=color, outline=EDGE if outline else None, width=outline)


def _ring(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    pen.ellipse(box, outline=color, width=max(6, round((box[2] - box[0]) * 0.12)))


def _frame(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    pen.rectangle(box, outline=color, width=max(6, round((box[2] - box[0]) * 0.06)))


def _heart(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    turns = [2 * math.pi * step / 60 for step in range(60)]
    points = [
        (
            0.5 + 16 * math.sin(t) ** 3 / 34,
            0.45
            - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 34,
        )
        for t in turns
    ]
    _polygon(points)(pen, box, color, outline)


def _moon(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    outer = [(math.cos(t), math.sin(t)) for t in np.linspace(0.9, 2 * math.pi - 0.9, 40)]
    inner = [(0.45 + 0.85 * math.cos(t), 0.85 * math.sin(t)) for t in np.linspace(4.85, 1.43, 40)]
    points = [(0.5 + x / 2, 0.5 + y / 2) for x, y in outer + inner]
    _polygon(points)(pen, box, color, outline)


def _flower(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    for petal in range(6):
        x, y = 0.5 + 0.3 * math.cos(petal * math.pi / 3), 0.5 + 0.3 * math.sin(petal * math.pi / 3)
        (left, top), (right, bottom) = _inner(box, x - 0.2, y - 0.2, x + 0.2, y + 0.2)
        _circle(pen, (left, top, right, bottom), color, outline)
    (left, top), (right, bottom) = _inner(box, 0.34, 0.34, 0.66, 0.66)
    pen.ellipse((left, top, right, bottom), fill="#f4dd6b")


def _fish(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    _polygon([(0.7, 0.5), (1, 0.25), (1, 0.75)])(pen, box, color, outline)
    (left, top), (right, bottom) = _inner(box, 0, 0.22, 0.8, 0.78)
    _circle(pen, (left, top, right, bottom), color, outline)
    (left, top), (right, bottom) = _inner(box, 0.14, 0.38, 0.24, 0.48)
    pen.ellipse((left, top, right, bottom), fill="#fdfdfb", outline="#222", width=3)


def _house(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    _polygon([(0.12, 0.42), (0.88, 0.42), (0.88, 1), (0.12, 1)])(pen, box, color, outline)
    _polygon([(0, 0.45), (0.5, 0), (1, 0.45)])(pen, box, "#5b4636", outline)
    _polygon([(0.42, 0.68), (0.6, 0.68), (0.6, 1), (0.42, 1)])(pen, box, "#f3e8cf", 0)


def _tree(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    _polygon([(0.43, 0.7), (0.57, 0.7), (0.57, 1), (0.43, 1)])(pen, box, "#6f4c30", 0)
    _polygon([(0.5, 0), (0.85, 0.45), (0.15, 0.45)])(pen, box, color, outline)
    _polygon([(0.5, 0.22), (0.95, 0.76), (0.05, 0.76)])(pen, box, color, outline)


def _boat(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    _polygon([(0.48, 0.05), (0.52, 0.05), (0.52, 0.7), (0.48, 0.7)])(pen, box, "#5b4636", 0)
    _polygon([(0.55, 0.1), (0.9, 0.58), (0.55, 0.58)])(pen, box, "#fbf6ea", outline)
    _polygon([(0, 0.66), (1, 0.66), (0.82, 0.95), (0.18, 0.95)])(pen, box, color, outline)


def _cup(pen: ImageDraw.ImageDraw, box: Box, color: str, outline: int) -> None:
    (left, top), (right, bottom) = _inner(box, 0.6, 0.3, 0.98, 0.7)
    pen.ellipse((left, top, right, bottom), outline=color, width=max(5, round((right - left) / 5)))
    _polygon([(0.08, 0.15), (0.78, 0.15), (0.68, 0.92), (0.18, 0.92)])(pen, box, color, outline)


def _star_points() -> list[Point]:
    return [
        (
            0.5 + (0.5 if step % 2 == 0 else 0.2) * math.sin(step * math.pi / 5),
            0.5 - (0.5 if step % 2 == 0 else 0.2) * math.cos(step * math.pi / 5),
        )
        for step in range(10)
    ]


SHAPES: Final[dict[str, Painter]] = {
    "circle": _circle,
    "square": _polygon([(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]),
    "triangle": _polygon([(0.5, 0.05), (1, 0.95), (0, 0.95)]),
    "star": _polygon(_star_points()),
    "heart": _heart,
    "ring": _ring,
    "frame": _frame,
    "moon": _moon,
    "flower": _flower,
    "fish": _fish,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "cup": _cup,
}
