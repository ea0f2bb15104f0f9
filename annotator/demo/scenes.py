"""Text-to-image prompts whose right and wrong are known, and simulated models that draw them.

Each prompt says what is in the scene; a model that fails a criterion draws a scene that is wrong
in just that respect. What every picture fails is therefore known, criterion by criterion: a
planted truth for votes, rankings and checklists. Nothing here knows of Django or tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Final

import numpy as np

from annotator.demo import drawing
from annotator.demo.drawing import COLORS, Item

COUNT: Final = "Wrong number of things"
MISSING: Final = "Something asked for is missing"
COLOR: Final = "Wrong color, material or other attribute"
BINDING: Final = "Attributes on the wrong object"
RELATION: Final = "Wrong relation or position between things"
NEGATION: Final = "Something is there that was to be left out"
WORDS: Final = "Text in the image is wrong or unreadable"
FAILURES: Final = (COUNT, MISSING, COLOR, BINDING, RELATION, NEGATION, WORDS)
# What a picture does that does not fail: the words of whoever writes criteria.
CRITERIA: Final = {
    COUNT: "Shows exactly as many things as the prompt asks for.",
    MISSING: "Shows everything that the prompt asks for.",
    COLOR: "Gives things the color, material and other attributes asked for.",
    BINDING: "Puts each attribute on the thing that it belongs to.",
    RELATION: "Puts things where the prompt says, relative to each other.",
    NEGATION: "Leaves out what the prompt says is not to be there.",
    WORDS: "Renders the words asked for correctly and legibly.",
}

# Probability that a model fails a criterion that applies; text, relations
# and what is to be left out are harder for all.
MODELS: Final = {"easel-small": 0.42, "easel-base": 0.28, "easel-large": 0.15, "easel-xl": 0.07}
HARDER: Final = {NEGATION: 2.2, WORDS: 1.6, RELATION: 1.4, BINDING: 1.2}
LEAST_QUALITY: Final = 0.05
TASTE: Final = 0.04  # spread of what is nicer about one of two equally right pictures


@dataclass(frozen=True)
class Group:
    """Some equal things; ``told`` says whether the prompt gives their number."""

    count: int
    color: str
    shape: str
    told: bool = True


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for. ``relation`` is that of the first group to the second."""

    id: str
    text: str
    groups: tuple[Group, ...]
    relation: str = ""  # left, right, above, below, inside
    absent: Group | None = None  # is named in the prompt as not to be there
    words: str = ""

    @cached_property
    def criteria(self) -> tuple[str, ...]:
        """The failures that are possible here, in the order of FAILURES."""
        applies = {
            COUNT: any(group.told for group in self.groups),
            MISSING: len(self.groups) > 1,
            COLOR: True,
            BINDING: len({group.color for group in self.groups}) > 1,
            RELATION: bool(self.relation),
            NEGATION: self.absent is not None,
            WORDS: bool(self.words),
        }
        return tuple(name for name in FAILURES if applies[name])


@dataclass(frozen=True)
class Drawn:
    """One picture: which model drew it, and for every criterion whether it fails it."""

    scene: str
    model: str
    png: bytes
    failed: Mapping[str, bool]
    quality: float  # 0..1, by the share of criteria met and a little taste

    @property
    def flaw(self) -> str:
        """The first thing wrong with it, in words; empty where nothing is."""
        return next((name.lower() for name, bad in self.failed.items() if bad), "")


def _scene(id: str, text: str, *groups: Group, **more: object) -> Scene:
    return Scene(id, text, groups, **more)  # type: ignore[arg-type]


SCENES: Final = (
    _scene("apples", "Three red circles and nothing else", Group(3, "red", "circle")),
    _scene("stars", "Five yellow stars in the sky", Group(5, "yellow", "star")),
    _scene("hearts", "Exactly seven pink hearts", Group(7, "pink", "heart")),
    _scene("fish", "Four orange fish swimming", Group(4, "orange", "fish")),
    _scene("cups", "Two blue cups", Group(2, "blue", "cup")),
    _scene("flowers", "Six purple flowers", Group(6, "purple", "flower")),
    _scene("house-tree", "A red house to the left of a green tree",
           Group(1, "red", "house"), Group(1, "green", "tree"), relation="left"),
    _scene("moon-boat", "A yellow moon above a brown boat",
           Group(1, "yellow", "moon"), Group(1, "brown", "boat"), relation="above"),
    _scene("cube-ball", "A blue square below a red circle",
           Group(1, "blue", "square"), Group(1, "red", "circle"), relation="below"),
    _scene("star-ring", "A yellow star inside a black ring",
           Group(1, "yellow", "star"), Group(1, "black", "ring", told=False), relation="inside"),
    _scene("fish-frame", "Two orange fish inside a blue frame",
           Group(2, "orange", "fish"), Group(1, "blue", "frame", told=False), relation="inside"),
    _scene("cup-flower", "A white cup to the right of a pink flower",
           Group(1, "white", "cup"), Group(1, "pink", "flower"), relation="right"),
    _scene("boats-house", "Three white boats below a gray house",
           Group(3, "white", "boat"), Group(1, "gray", "house"), relation="below"),
    _scene("trees-moon", "Two green trees below a white moon",
           Group(2, "green", "tree"), Group(1, "white", "moon"), relation="below"),
    _scene("hearts-star", "Four red hearts above one blue star",
           Group(4, "red", "heart"), Group(1, "blue", "star"), relation="above"),
    _scene("swap-1", "A green circle and a purple triangle, the circle on the left",
           Group(1, "green", "circle"), Group(1, "purple", "triangle"), relation="left"),
    _scene("swap-2", "A black house with two orange flowers to the right of it",
           Group(1, "black", "house"), Group(2, "orange", "flower"), relation="left"),
    _scene("swap-3", "Three blue squares above three yellow circles",
           Group(3, "blue", "square"), Group(3, "yellow", "circle"), relation="above"),
    _scene("no-moon", "Four yellow stars at night, no moon",
           Group(4, "yellow", "star"), absent=Group(1, "white", "moon")),
    _scene("no-tree", "A red house without any tree near it",
           Group(1, "red", "house"), absent=Group(1, "green", "tree")),
    _scene("no-red", "Five circles, all of them blue, none of them red",
           Group(5, "blue", "circle"), absent=Group(1, "red", "circle")),
    _scene("no-flower", "Two brown cups with no flowers in them",
           Group(2, "brown", "cup"), absent=Group(1, "pink", "flower")),
    _scene("no-heart", "A purple heart to the left of a black star, and no ring",
           Group(1, "purple", "heart"), Group(1, "black", "star"), relation="left",
           absent=Group(1, "gray", "ring")),
    _scene("sign-open", "A green house with a sign that reads OPEN",
           Group(1, "green", "house"), words="OPEN"),
    _scene("sign-boats", "Three red boats over a sign that reads HARBOR",
           Group(3, "red", "boat"), words="HARBOR"),
    _scene("sign-tea", "Two orange cups and the words TEA TIME",
           Group(2, "orange", "cup"), words="TEA TIME"),
    _scene("sign-forest", "Five green trees, one white moon above them, and the word FOREST",
           Group(1, "white", "moon"), Group(5, "green", "tree"), relation="above",
           words="FOREST"),
    _scene("sign-love", "Six pink hearts, no stars, and the word LOVE",
           Group(6, "pink", "heart"), absent=Group(1, "yellow", "star"), words="LOVE"),
)  # fmt: skip


def draw_all(scene: Scene, *, seed: int) -> list[Drawn]:
    """Three or four pictures of a scene by different models, in an order that tells nothing.

    The same seed gives the same pictures; each scene draws from a generator of its own.
    """
    rng = _generator(seed, scene.id)
    count = 4 if rng.random() < 0.4 else 3
    names = [str(name) for name in rng.choice(list(MODELS), size=count, replace=False)]
    return [_draw(scene, name, _generator(seed, scene.id, name)) for name in names]


def _draw(scene: Scene, model: str, rng: np.random.Generator) -> Drawn:
    rate = MODELS[model]
    failed = {
        name: bool(rng.random() < min(0.9, rate * HARDER.get(name, 1))) for name in scene.criteria
    }
    if failed.get(MISSING):  # what is not there stands nowhere and has no color to exchange
        failed |= {name: False for name in (RELATION, BINDING) if name in failed}
    if failed.get(BINDING):  # exchanged colors are wrong as bindings, not once more as colors
        failed[COLOR] = False
    wrong = _spoiled(scene, failed, rng)
    items = _laid_out(wrong, rng, stray=failed.get(RELATION, False))
    png = drawing.draw(items, words=wrong.words, seed=int(rng.integers(2**32)))
    met = 1 - sum(failed.values()) / len(failed)
    quality = float(np.clip(met + rng.normal(0, TASTE), LEAST_QUALITY, 1))
    return Drawn(scene.id, model, png, failed, round(quality, 3))


def _spoiled(scene: Scene, failed: Mapping[str, bool], rng: np.random.Generator) -> Scene:
    """The scene as a model draws it that fails these criteria."""
    groups = list(scene.groups)
    if failed.get(COUNT):
        place = next(at for at, group in enumerate(groups) if group.told)
        by = int(rng.choice([-1, 1] if groups[place].count > 2 else [1, 2]))
        groups[place] = replace(groups[place], count=groups[place].count + by)
    if failed.get(BINDING):
        first, second = groups[0].color, groups[1].color
        groups[:2] = [replace(groups[0], color=second), replace(groups[1], color=first)]
    elif failed[COLOR]:
        place = int(rng.integers(len(groups) - failed.get(MISSING, False)))
        taken = {group.color for group in groups} | {"white"}
        others = [name for name in COLORS if name not in taken]
        groups[place] = replace(groups[place], color=str(rng.choice(others)))
    if failed.get(MISSING):
        groups.pop()
    absent = scene.absent if failed.get(NEGATION) else None
    words = _misspelled(scene.words, rng) if failed.get(WORDS) else scene.words
    return replace(scene, groups=tuple(groups), absent=absent, words=words)


def _misspelled(words: str, rng: np.random.Generator) -> str:
    """Two neighbors exchanged, or a letter doubled: never the word itself."""
    at = next(place for place in range(len(words) - 1) if words[place] != words[place + 1])
    if rng.random() < 0.5:
        return words[:at] + words[at + 1] + words[at] + words[at + 2 :]
    return words[: at + 1] + words[at] + words[at + 1 :]


WHOLE: Final = (0.08, 0.08, 0.92, 0.92)
HALVES: Final[dict[str, tuple[drawing.Box, drawing.Box]]] = {
    "left": ((0.05, 0.15, 0.47, 0.85), (0.53, 0.15, 0.95, 0.85)),
    "right": ((0.53, 0.15, 0.95, 0.85), (0.05, 0.15, 0.47, 0.85)),
    "above": ((0.12, 0.05, 0.88, 0.46), (0.12, 0.54, 0.88, 0.95)),
    "below": ((0.12, 0.54, 0.88, 0.95), (0.12, 0.05, 0.88, 0.46)),
}
OPPOSITE: Final = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _laid_out(scene: Scene, rng: np.random.Generator, *, stray: bool) -> list[Item]:
    """Where everything stands; ``stray`` puts the first group where it was not to be."""
    regions = _regions(scene, stray=stray)
    squeeze = 0.8 if scene.words else 1.0  # room for the sign at the bottom
    items = []
    for group, (left, top, right, bottom) in zip(scene.groups, regions, strict=False):
        items += _grid(group, (left, top * squeeze, right, bottom * squeeze), rng)
    if scene.relation == "inside":
        items.reverse()  # the container first, so that it hides nothing
    if scene.absent is not None:
        size = 0.2
        items.append(Item(scene.absent.shape, scene.absent.color, 0.86, 0.14, size))
    return items


def _regions(scene: Scene, *, stray: bool) -> list[drawing.Box]:
    if scene.relation == "inside":
        if stray:
            return [(0.02, 0.3, 0.34, 0.7), (0.4, 0.22, 0.96, 0.78)]
        return [(0.3, 0.3, 0.7, 0.7), (0.12, 0.12, 0.88, 0.88)]
    if not scene.relation:
        return [WHOLE]
    return list(HALVES[OPPOSITE[scene.relation] if stray else scene.relation])


def _grid(group: Group, box: drawing.Box, rng: np.random.Generator) -> list[Item]:
    """Equal things in a box: as many columns as fit it, a little out of line."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    columns = min(group.count, max(1, round((group.count * width / height) ** 0.5)))
    rows = -(-group.count // columns)
    cell = min(width / columns, height / rows)
    items = []
    for place in range(group.count):
        row, column = divmod(place, columns)
        in_row = min(columns, group.count - row * columns)
        x = left + width * (column + 0.5) / in_row
        y = top + height * (row + 0.5) / rows
        shift = rng.uniform(-0.04, 0.04, size=2) * cell
        items.append(Item(group.shape, group.color, x + shift[0], y + shift[1], cell * 0.82))
    return items


def _generator(seed: int, *key: str) -> np.random.Generator:
    """A generator of its own for every key, the same on every machine."""
    digest = sha256(json.dumps([seed, *key]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
