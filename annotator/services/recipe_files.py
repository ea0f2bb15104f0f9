"""Recipes as files: JSON or TOML in, JSON out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from django.utils.text import slugify

from annotator.errors import Invalid
from annotator.models import Project, RecipeVersion, User
from annotator.services import recipes

MAX_BYTES: Final = 64 * 1024
KEYS: Final = ("name", "format", "options")
NO_RECIPE: Final = "The file is no recipe: it holds a format and its options, as JSON or TOML."


@dataclass(frozen=True)
class Told:
    """What a file says. ``name`` is "" where it names no recipe."""

    format: str
    options: dict[str, Any]
    name: str = ""


def as_json(version: RecipeVersion) -> dict[str, Any]:
    """What ``parse`` reads again."""
    return {"name": version.recipe.name, "format": version.format, "options": version.options}


def file_name(version: RecipeVersion) -> str:
    """In letters that every file system takes."""
    slug = slugify(version.recipe.name) or f"recipe-{version.recipe_id}"
    return f"{slug}-v{version.number}.json"


def parse(data: bytes) -> Told:
    """A recipe from a file's bytes; its options are not checked yet. Raises Invalid."""
    if len(data) > MAX_BYTES:
        raise Invalid("The file is too large for a recipe.")
    found = _decode(data.removeprefix(b"\xef\xbb\xbf"))
    unknown = sorted(set(found) - set(KEYS))
    if unknown:
        known = ", ".join(KEYS)
        raise Invalid(f"A recipe has no {', '.join(unknown)[:200]!r}. It has {known}.")
    name, format = found.get("name", ""), found.get("format", "")
    options = found.get("options", {})
    if not isinstance(name, str) or not isinstance(format, str) or not isinstance(options, dict):
        raise Invalid(NO_RECIPE)
    if not format:
        raise Invalid("The recipe names no format.")
    return Told(format, options, name)


def _decode(data: bytes) -> dict[str, Any]:
    """JSON where it begins as an object does, else TOML."""
    try:
        if data.lstrip().startswith(b"{"):
            found = orjson.loads(data)
        else:
            found = tomllib.loads(data.decode())
    except (orjson.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(NO_RECIPE) from None
    if not isinstance(found, dict):
        raise Invalid(NO_RECIPE)
    return found


def read(*, project: Project, data: bytes, name: str = "", by: User | None) -> RecipeVersion:
    """Save what a file says, under its own name or another. Raises Invalid."""
    told = parse(data)
    return recipes.save(
        project=project,
        name=name or told.name,
        format=told.format,
        options=told.options,
        by=by,
    )


def is_file(reference: str) -> bool:
    """Whether a word on the command line is a file rather than a recipe's name."""
    try:
        return Path(reference).suffix.lower() in (".json", ".toml") or Path(reference).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null in it
        return False


def load(path: Path) -> Told:
    """What a file on the disk says. Raises Invalid, OSError."""
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1))
