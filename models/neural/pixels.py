"""The pixels backbone: a linear reward on what a picture measurably shows, given its prompt.

Nothing is fitted before training, nothing is downloaded. Measured are colors, edges and flat
regions of one color (how many, which color, where); all of it is also crossed with the words of the
prompt, so that "three red circles" can learn to ask for three regions of red. It sees shapes and
colors, not things.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.backbones import PixelsOptions
from models.neural.hashing import WORD, LinearBackbone
from models.neural.pictures import scaled
from models.neural.store import Conversation, Encoded
from models.pairs import Message, picture_paths

FEATURES_VERSION: Final = 1  # of the encoding below; stored with every model
HUES: Final = 12
DIRECTIONS: Final = 8  # of edges
GRAY, DARK, BRIGHT = 0.2, 0.25, 0.75  # saturation below, value below, value above
LEAST_SHARE: Final = 0.002  # of the picture; what is smaller is no region
MOST_REGIONS: Final = 12  # counted one by one up to so many
CHARACTERS_PER_WORD: Final = 32
# Words for colors, and the classes below that they mean.
NAMES: Final = {
    "red": {0}, "orange": {1}, "brown": {0, 1}, "yellow": {2}, "green": {3, 4, 5},
    "turquoise": {5, 6}, "cyan": {6}, "blue": {7, 8}, "purple": {9}, "violet": {9},
    "magenta": {10}, "pink": {10, 11}, "black": {12}, "gray": {13}, "grey": {13}, "white": {14},
}  # fmt: skip
NUMBERS: Final = {
    word: number
    for number, word in enumerate(
        [
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ],
        start=1,
    )
} | {"a": 1, "an": 1}
DIGITS: Final = frozenset(map(str, range(1, 100)))
DENIALS: Final = frozenset({"no", "not", "none", "without", "any"})
REACH: Final = 4  # words between a number or a denial and the color it is about
READ_CHARACTERS: Final = 10_000

Feature = tuple[str, float]


class PixelsBackbone(LinearBackbone):
    """Named measures of a picture, hashed alone and with each word of the prompt."""

    options: PixelsOptions

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes the encoding."""
        o = self.options
        return f"{FEATURES_VERSION}-{o.side}-{o.grid}-{o.prompt_words}-{o.buckets_log2}"

    @property
    def versions(self) -> dict[str, str]:
        return {"features": str(FEATURES_VERSION)}

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """Sparse features of every picture with its prompt."""
        paths = picture_paths(answer for _, answer in conversations)
        known: dict[Path, Measured] = {}  # a picture stands in several pairs
        rows = []
        for path, (prompt, _) in zip(paths, conversations, strict=True):
            if path not in known:
                self.check()
                known[path] = measure(scaled(path, self.options.side), self.options)
            words = last_words(prompt, self.options.prompt_words)
            asked = list(_asked(known[path].regions, prompt)) if words else []
            rows.append(self._row(known[path].features, words, asked))
        return Encoded(
            ids=np.concatenate([ids for ids, _ in rows] or [np.zeros(0, np.int32)]),
            values=np.concatenate([values for _, values in rows] or [np.zeros(0, np.float32)]),
            lengths=np.array([len(ids) for ids, _ in rows], dtype=np.int64),
            notes=Counter(),
        )

    def _row(
        self, shown: list[Feature], words: list[str], asked: list[Feature]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Buckets, ascending, and their values: measures alone and by each word."""
        buckets = 2**self.options.buckets_log2
        sums: dict[int, float] = {}
        share = max(len(words), 1) ** -0.5  # a long prompt is no louder than a short one
        for name, value in asked:
            place = crc32(name.encode()) % buckets
            sums[place] = sums.get(place, 0.0) + value
        for name, value in shown:
            for word, factor in [("", 1.0), *((word, share) for word in words)]:
                place = crc32(f"{word}\0{name}".encode()) % buckets
                sums[place] = sums.get(place, 0.0) + value * factor
        places = sorted(sums)
        return (
            np.array(places, dtype=np.int32),
            np.array([sums[place] for place in places], dtype=np.float32),
        )


def last_words(prompt: list[Message], limit: int) -> list[str]:
    """The last so many different lower-case words of the last turn, in order."""
    if not limit or not prompt:
        return []
    text = prompt[-1]["content"][-limit * CHARACTERS_PER_WORD :].lower()
    return list(dict.fromkeys(WORD.findall(text)[-limit:]))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a picture shows: named numbers of about unit size without zeros, and its regions."""

    features: list[Feature]
    regions: list[Region]


def measure(pixels: NDArray[np.uint8], options: PixelsOptions) -> Measured:
    """Measures of pixels (s, s, 3)."""
    things = regions(pixels)
    found = [*_colors(pixels), *_edges(pixels), *_cells(pixels, options.grid), *_regions(things)]
    return Measured([(name, value) for name, value in found if value], things)


def color_classes(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class (s, s) of every pixel: 0..11 a hue, 12 dark, 13 gray, 14 bright."""
    rgb = pixels.astype(np.float64) / 255  # (s, s, 3)
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    spread = high - low
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(
        high == r, (g - b) / safe % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )  # 0..6
    found = np.round(hue * HUES / 6).astype(np.int64) % HUES
    pale = spread < GRAY * np.where(high > 0, high, 1)
    gray = np.where(high < DARK, HUES, np.where(high > BRIGHT, HUES + 2, HUES + 1))
    return np.where(pale | (high < DARK), gray, found)


def _colors(pixels: NDArray[np.uint8]) -> Iterator[Feature]:
    classes = color_classes(pixels)
    shares = np.bincount(classes.ravel(), minlength=HUES + 3) / classes.size
    yield from ((f"color {i}", float(np.sqrt(share))) for i, share in enumerate(shares))
    values = pixels.astype(np.float64).mean(axis=2) / 255
    yield "brightness", float(values.mean())
    yield "contrast", float(values.std())


def _edges(pixels: NDArray[np.uint8]) -> Iterator[Feature]:
    """How much of the picture is edge, and in which directions."""
    gray = pixels.astype(np.float64).mean(axis=2) / 255
    down, right = np.gradient(gray)
    strength = np.hypot(down, right)
    angle = np.arctan2(down, right) % np.pi
    direction = np.round(angle * DIRECTIONS / np.pi).astype(np.int64) % DIRECTIONS
    sums = np.bincount(direction.ravel(), weights=strength.ravel(), minlength=DIRECTIONS)
    yield from ((f"edge {i}", float(10 * one / gray.size)) for i, one in enumerate(sums))
    yield "edges", float(np.sqrt(strength.mean()))


def _cells(pixels: NDArray[np.uint8], grid: int) -> Iterator[Feature]:
    """Mean colors of a coarse grid, from -1/2 to 1/2."""
    for y, row in enumerate(np.array_split(pixels, grid, axis=0)):
        for x, cell in enumerate(np.array_split(row, grid, axis=1)):
            for channel, mean in enumerate(cell.reshape(-1, 3).mean(axis=0)):
                yield f"cell {y} {x} {channel}", float(mean / 255 - 0.5)


@dataclass(frozen=True, slots=True)
class Region:
    """A flat stretch of one class of color: its pixels and its center as shares of the side."""

    color: int
    pixels: int
    down: float
    right: float


def regions(pixels: NDArray[np.uint8]) -> list[Region]:
    """Connected regions of one class of color, but the largest, which is the ground."""
    classes = color_classes(pixels)
    least = LEAST_SHARE * classes.size
    found = []
    for color in np.unique(classes).tolist():
        labels, count = ndimage.label(classes == color)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        large = [i for i in range(1, count + 1) if sizes[i] >= least]
        centers = ndimage.center_of_mass(labels > 0, labels, large) if large else []
        for i, (down, right) in zip(large, centers, strict=True):
            found.append(Region(color, int(sizes[i]), down / len(pixels), right / len(pixels)))
    return sorted(found, key=lambda region: -region.pixels)[1:]


def _regions(things: list[Region]) -> Iterator[Feature]:
    yield f"regions {min(len(things), MOST_REGIONS)}", 1.0
    yield "regions", len(things) / MOST_REGIONS
    of_color = Counter(region.color for region in things)
    for color, count in sorted(of_color.items()):
        yield f"regions of {color}: {min(count, MOST_REGIONS)}", 1.0
        yield f"some of {color}", 1.0
        here = [region for region in things if region.color == color]
        yield f"down of {color}", float(np.mean([region.down for region in here])) - 0.5
        yield f"right of {color}", float(np.mean([region.right for region in here])) - 0.5


def _asked(things: list[Region], prompt: list[Message]) -> Iterator[Feature]:
    """Whether the regions are those that the prompt names by color and number."""
    wanted, unwanted = named(prompt)
    count = Counter(region.color for region in things)

    def shown(name: str) -> int:
        return sum(count[color] for color in NAMES[name])

    if wanted:
        yield "asked colors shown", float(np.mean([shown(name) > 0 for name in wanted]))
        allowed = set().union(*(NAMES[name] for name in wanted))
        yield "colors not asked", len(set(count) - allowed) / 4
        counted = {name: number for name, number in wanted.items() if number}
        if counted:
            off = [min(abs(shown(name) - number), 4) for name, number in counted.items()]
            yield "asked numbers met", float(np.mean([one == 0 for one in off]))
            yield "asked numbers off", float(np.mean(off)) / 4
    if unwanted:
        yield "unwanted colors shown", float(np.mean([shown(name) > 0 for name in unwanted]))


def named(prompt: list[Message]) -> tuple[dict[str, int], set[str]]:
    """Colors that the last turn asks for, with their number where it says one, else 0; and those
    that it does not want."""
    if not prompt:
        return {}, set()
    words = WORD.findall(prompt[-1]["content"][-READ_CHARACTERS:].lower())
    wanted: dict[str, int] = {}
    unwanted: set[str] = set()
    number = denied = -REACH
    for place, word in enumerate(words):
        if word in NUMBERS or word in DIGITS:
            number = place
        elif word in DENIALS:
            denied = place
        elif word in NAMES:
            if place - denied < REACH:
                unwanted.add(word)
                continue
            told = words[number] if place - number < REACH else ""
            count = NUMBERS.get(told, 0) or (int(told) if told in DIGITS else 0)
            wanted[word] = wanted.get(word, 0) + count
    return wanted, unwanted - set(wanted)
