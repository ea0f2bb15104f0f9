"""What one task asks: the project's settings, or the criteria of a rubric's version in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import Field

from annotator.models import ProjectSettings


class AskedLine(NamedTuple):
    """A line of a checklist. A yes speaks against the answer where ``is_failure``."""

    text: str
    is_failure: bool
    theme: str = ""


class RubricSettings(ProjectSettings):
    """Settings whose lists are those of a version. ``themes``: text of a line -> its theme."""

    themes: dict[str, str] = Field(default_factory=dict)


def ask_of(options: ProjectSettings, lines: Iterable[AskedLine]) -> RubricSettings:
    """The settings with these lines asked; a text that stands there twice is asked once.

    Lines of one theme stand together, themes in the order of their first line, lines without
    one last. Nothing is validated: a version may be longer than a list typed into the settings.
    """
    once: dict[str, AskedLine] = {}
    for line in lines:
        once.setdefault(line.text, line)
    themes = [*dict.fromkeys(line.theme for line in once.values() if line.theme), ""]
    ordered = sorted(once.values(), key=lambda line: themes.index(line.theme))
    return RubricSettings.model_construct(
        **{
            **vars(options),
            "criteria": [line.text for line in ordered if not line.is_failure],
            "failures": [line.text for line in ordered if line.is_failure],
            "themes": {line.text: line.theme for line in ordered if line.theme},
        }
    )
