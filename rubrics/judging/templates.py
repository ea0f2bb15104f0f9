"""Prompt templates: files with named places, kept by the judges that were made from them.

A text has parts, each under a line such as ``=== pairwise: system ===``: a mode and a role. In a
part ``$name`` is a place and ``$$`` a dollar sign. Places are filled in one pass, so what is put
into one is never read again. The files of ``templates/`` hold one mode each; a judge keeps the
parts for all that it may be asked (``template_of``), so a file can change under it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from rubrics.judging.options import LlmOptions
from rubrics.llm.types import Part

MODES: Final = ("pairwise", "pointwise", "listwise", "rating", "checklist")
# Asked of every judge whose project has tasks of that kind, whatever its own mode is.
BY_KIND: Final = ("rating", "checklist")
SECTIONS: Final = frozenset(
    [
        "principle",
        "criteria",
        "question",
        "guidelines",
        "prompt",
        "answers",
        "attributes",
        "checklist",
    ]
)
WORDS: Final = frozenset({"nonce", "think", "reply", "notes"})
NEEDED: Final = frozenset({"answers", "reply"})  # without them nothing can be judged
HEADER: Final = re.compile(r"^=== ([a-z]+): (system|user) ===\n", re.MULTILINE)
PLACE: Final = re.compile(r"\$(?:(\$)|([A-Za-z_]+))?")
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,59}")
MAX_TEXT: Final = 100_000

Values = Mapping[str, tuple[Part, ...]]


class BadTemplate(ValueError):
    """A template that is not there or cannot be filled. The message is fit for a page."""


@dataclass(frozen=True)
class Template:
    """``hash`` is SHA-256 of ``text``, hex."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        return sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def parts(self) -> dict[tuple[str, str], str]:
        """(mode, role) -> text with places. Raises BadTemplate."""
        pieces = HEADER.split(self.text)
        if pieces[0].strip():
            raise BadTemplate(f"{self.name}: text before the first “=== mode: role ===” line")
        found: dict[tuple[str, str], str] = {}
        for mode, role, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            if mode not in MODES or (mode, role) in found:
                raise BadTemplate(f"{self.name}: no such part, or twice: “{mode}: {role}”")
            found[mode, role] = text.strip()
        return found

    def check(self) -> None:
        """Raises BadTemplate for parts that lack each other, unknown places and missing ones."""
        if len(self.text) > MAX_TEXT:
            raise BadTemplate(f"{self.name}: longer than {MAX_TEXT:,} characters")
        if not self.parts:
            raise BadTemplate(f"{self.name}: no “=== mode: role ===” line")
        for mode in {mode for mode, _ in self.parts}:
            if not {(mode, "system"), (mode, "user")} <= set(self.parts):
                raise BadTemplate(f"{self.name}: {mode} needs a system and a user part")
            named = {
                name for role in ("system", "user") for name in _places(self.parts[mode, role])
            }
            if unknown := sorted(named - SECTIONS - WORDS):
                raise BadTemplate(f"{self.name}: unknown place ${unknown[0]} in {mode}")
            if missing := sorted(NEEDED - set(_places(self.parts[mode, "user"]))):
                raise BadTemplate(f"{self.name}: the user part of {mode} lacks ${missing[0]}")

    def has(self, mode: str) -> bool:
        return (mode, "user") in self.parts

    def fill(self, mode: str, role: str, values: Values) -> tuple[Part, ...]:
        """A part with its places filled, adjacent text joined.

        A place with nothing in it takes the end of its line along. Raises BadTemplate where the
        template has no such part, KeyError for a place without a value.
        """
        text = self.parts.get((mode, role))
        if text is None:
            raise BadTemplate(f"{self.name}: no part for {mode}")
        return filled(text, values)


def filled(text: str, values: Values) -> tuple[Part, ...]:
    """A text with its places filled, as ``Template.fill`` says. Raises KeyError."""
    parts: list[Part] = []
    end = 0
    for place in PLACE.finditer(text):
        parts.append(text[end : place.start()])
        value = ("$",) if place[1] else values[place[2]]
        parts.extend(value)
        end = place.end()
        if not value and text.startswith("\n", end):
            end += 1
    parts.append(text[end:])
    return _joined(parts)


def _places(text: str) -> list[str]:
    return ["$" if place[1] else place[2] or "" for place in PLACE.finditer(text) if not place[1]]


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined)


def names() -> list[str]:
    """The templates there are."""
    folder = files("rubrics.judging") / "templates"
    return sorted(
        entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")
    )


def load(name: str) -> Template:
    """The file of that name as it is now, checked. Raises BadTemplate."""
    if not NAME.fullmatch(name) or name not in names():
        raise BadTemplate(f"There is no template “{name}”. Known: {', '.join(names())}.")
    file = files("rubrics.judging") / "templates" / f"{name}.txt"
    template = Template(name, file.read_text(encoding="utf-8"))
    template.check()
    return template


@lru_cache(maxsize=256)
def from_text(text: str, name: str = "stored") -> Template:
    """A template kept as text. Raises BadTemplate."""
    template = Template(name, text)
    template.check()
    return template


def template_of(options: LlmOptions) -> Template:
    """All that a judge of these options may ask: its own template, and rating and checklist.

    What a judge stores: later changes of the files do not reach it. Raises BadTemplate, also
    where the template named has no part for the mode.
    """
    own = load(options.template or options.mode)
    if not own.has(options.mode):
        raise BadTemplate(f"The template “{own.name}” does not ask {options.mode}.")
    texts = [own.text, *(load(mode).text for mode in BY_KIND if not own.has(mode))]
    return from_text("\n".join(text.rstrip("\n") + "\n" for text in texts), own.name)
