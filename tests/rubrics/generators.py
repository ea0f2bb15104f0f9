"""Pairs and journals for tests of generators."""

from __future__ import annotations

import hashlib
from typing import Any

from rubrics.generators.types import Generated, PreferencePair, Rationale
from rubrics.judging.types import Candidate
from rubrics.llm.types import Picture


def pair(
    number: int,
    chosen: str | Picture,
    rejected: str | Picture,
    *rationales: Rationale,
    prompt: str = "What is tea?",
    group: int | None = None,
    **more: Any,
) -> PreferencePair:
    """Pair ``number`` of a prompt of its own, unless ``group`` says otherwise."""
    return PreferencePair(
        number,
        number if group is None else group,
        ({"role": "user", "content": f"{prompt} ({number})"},),
        _candidate(chosen),
        _candidate(rejected),
        rationales=rationales,
        **more,
    )


def _candidate(what: str | Picture) -> Candidate:
    return Candidate(what) if isinstance(what, str) else Candidate("", what)


def picture(number: int) -> Picture:
    data = f"picture {number}".encode()
    return Picture(hashlib.sha256(data).hexdigest(), "image/png", data)


class Watching:
    """A journal that keeps stages and progress; ``check`` raises after ``checks`` of them."""

    def __init__(self, *, checks: int = 1_000_000) -> None:
        self.stages: list[str] = []
        self.done: list[tuple[int, int]] = []
        self.left = checks

    def stage(self, key: str, label: str) -> None:
        assert label
        self.stages.append(key)

    def progress(self, done: int, total: int, unit: str) -> None:
        assert unit
        assert 0 <= done <= total
        self.done.append((done, total))

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class Killed(Exception):
    """What ends a run in the middle."""


def texts(generated: Generated) -> list[str]:
    return [criterion.text for criterion in generated.criteria]
