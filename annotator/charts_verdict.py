"""Pairwise verdicts on one axis from A to B: one mark per rater, below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from annotator.charts_scale import px
from annotator.models import ProjectSettings

WIDTH: Final = 220
_LEFT: Final = 24.0
_RIGHT: Final = 196.0
_WORDS: Final = {1: "", 2: " much", 3: " very much"}
_STEEPEST: Final = {3: 1, 5: 2, 7: 3}


class Judged(Protocol):
    """What a mark needs of a verdict: places in canonical order, and how clear it was."""

    ranks: list[int]
    strength: int


@dataclass(frozen=True)
class Axis:
    """The scale: ticks in pixels, and the words at its ends and middle."""

    ticks: tuple[float, ...]
    left: str
    right: str
    middle: float = (_LEFT + _RIGHT) / 2
    first: float = _LEFT
    last: float = _RIGHT
    width: int = WIDTH


@dataclass(frozen=True)
class Mark:
    """A verdict on the axis, in pixels; its shape tells people, judges and imports apart."""

    x: float

    @property
    def diamond(self) -> str:
        return f"M{self.x} 4l6 6l-6 6l-6 -6z"

    @property
    def square(self) -> str:
        return f"M{self.x} 10m-4.5 -4.5h9v9h-9z"


def steepest(verdicts: Sequence[Judged], options: ProjectSettings) -> int:
    """Steps on either side: the project's scale, or what was said on a longer one before."""
    return max([_STEEPEST[options.steps], *(one.strength for one in verdicts)])


def axis_of(verdicts: Sequence[Judged], options: ProjectSettings) -> Axis:
    """The axis that holds all these verdicts."""
    most = steepest(verdicts, options)
    word = _WORDS[most]
    return Axis(tuple(_at(step, most) for step in range(-most, most + 1)), f"A{word}", f"B{word}")


def mark_of(verdict: Judged, *, most: int) -> Mark:
    """Where a verdict with the responses in canonical order stands: A left, B right."""
    a, b = verdict.ranks
    return Mark(_at((a > b) * verdict.strength - (a < b) * verdict.strength, most))


def _at(step: int, most: int) -> float:
    return px(_LEFT + (step + most) / (2 * most) * (_RIGHT - _LEFT))
