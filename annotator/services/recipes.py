"""Recipes: named ways from preferences to rows, in versions that never change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel

from annotator.errors import AppError, Invalid, NotFound
from annotator.exporters import EXPORTERS
from annotator.models import AuditEvent, Project, Recipe, RecipeVersion, User
from annotator.services import exports

MAX_NAME: Final = Recipe._meta.get_field("name").max_length
VERSION: Final = re.compile(r"(?s)(.+):v([1-9][0-9]{0,8})")


def save(
    *, project: Project, name: str, format: str, options: Mapping[str, Any], by: User | None
) -> RecipeVersion:
    """The recipe's newest version, a new one where it says something else than that.

    A recipe that was archived is offered again. Raises Invalid.
    """
    name = checked_name(name)
    checked = exports.read_options(format, dict(options))
    exports.check(project, format, checked)
    stored = checked.model_dump(mode="json")
    digest = digest_of(format, stored)
    with transaction.atomic():
        recipe, _ = Recipe.objects.get_or_create(project=project, name=name)
        recipe = Recipe.objects.select_for_update().get(pk=recipe.pk)
        last = recipe.versions.first()
        if last is not None and recipe.archived_at is None and current_digest(last) == digest:
            return last
        if recipe.archived_at is not None:
            Recipe.objects.filter(pk=recipe.pk).update(archived_at=None)
        if last is None or current_digest(last) != digest:
            last = RecipeVersion.objects.create(
                recipe=recipe,
                number=last.number + 1 if last else 1,
                format=format,
                options=stored,
                digest=digest,
                created_by=by,
            )
        _note(recipe, by, "save", version=last.number, digest=last.digest)
    return last


def checked_name(name: str) -> str:
    """A name in its one spelling. Raises Invalid."""
    name = " ".join(name.replace("\0", "").split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Invalid(f"A recipe needs a name of 1 to {MAX_NAME} characters.")
    if VERSION.fullmatch(name):
        raise Invalid("A recipe's name does not end as a version does, in :v and a number.")
    return name


def digest_of(format: str, options: Mapping[str, Any]) -> str:
    """SHA-256 of format and options, whatever the order of keys."""
    whole = {"format": format, "options": dict(options)}
    return sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()


def current_digest(version: RecipeVersion) -> str:
    """What the digest would be now: options that came since count with their defaults."""
    return digest_of(version.format, options_now(version))


def options_now(version: RecipeVersion) -> dict[str, Any]:
    """Its options as a build would read them; as stored where they are no longer understood."""
    return _as_read(version.format, version.options)


def _as_read(format: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return exports.read_options(format, dict(options)).model_dump(mode="json")
    except Invalid:
        return dict(options)


def named(project: Project, reference: str) -> RecipeVersion:
    """The version that ``NAME:vN`` names; of ``NAME`` the newest. Raises NotFound."""
    found = VERSION.fullmatch(reference.strip())
    name, number = (found[1], int(found[2])) if found else (reference, None)
    name = " ".join(name.replace("\0", "").split())
    versions = RecipeVersion.objects.select_related("recipe")
    versions = versions.filter(recipe__project=project, recipe__name=name)
    if number is not None:
        versions = versions.filter(number=number)
    version = versions.order_by("-number").first()
    if version is None:
        raise NotFound(
            f"This project has no recipe {reference.strip()[:100]!r}.",
            advice="A recipe is named NAME, or NAME:vN for one of its versions.",
        )
    return version


def reference_of(version: RecipeVersion) -> str:
    """What ``named`` understands."""
    return f"{version.recipe.name}:v{version.number}"


def archive(*, recipe: Recipe, by: User | None, is_archived: bool = True) -> None:
    """Take a recipe out of the list, or back into it. What was built with it stays."""
    with transaction.atomic():
        at = timezone.now() if is_archived else None
        changed = Recipe.objects.filter(pk=recipe.pk, archived_at__isnull=is_archived)
        if changed.update(archived_at=at):
            _note(recipe, by, "archive" if is_archived else "restore")


@dataclass(frozen=True)
class Difference:
    """An option that two recipes set otherwise, in words; "" where a format does not ask it."""

    name: str
    title: str
    old: str
    new: str


def diff(older: RecipeVersion, newer: RecipeVersion) -> list[Difference]:
    """What the newer version says otherwise, in the order of its options."""
    return differences(older.format, older.options, newer.format, newer.options)


def differences(
    old_format: str,
    old_options: Mapping[str, Any],
    new_format: str,
    new_options: Mapping[str, Any],
) -> list[Difference]:
    """As ``diff``, of what any two builds were asked for. Formats may be ones no longer offered."""
    old, new = _as_read(old_format, old_options), _as_read(new_format, new_options)
    found = []
    if old_format != new_format:
        found.append(Difference("format", "Format", _label(old_format), _label(new_format)))
    titles = _titles(old_format) | _titles(new_format)
    names = [*titles, *sorted((set(old) | set(new)) - set(titles))]
    for name in names:
        before, after = _written(old, name), _written(new, name)
        if before != after:
            found.append(Difference(name, titles.get(name, name), before, after))
    return found


def _titles(format: str) -> dict[str, str]:
    method = EXPORTERS.get(format)
    model: type[BaseModel] | None = method.load_options() if method else None
    fields = model.model_fields if model else {}
    return {name: info.title or name.replace("_", " ") for name, info in fields.items()}


def _label(format: str) -> str:
    method = EXPORTERS.get(format)
    return method.label if method else format


def _written(options: Mapping[str, Any], name: str) -> str:
    return written(options[name]) if name in options else ""


def written(value: Any) -> str:
    """An option's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in ("", None) else "none"


def why_not(project: Project, version: RecipeVersion) -> str:
    """Why a build of this recipe would be refused now, or "": a rater may be gone since."""
    try:
        options = exports.read_options(version.format, version.options)
        exports.check(project, version.format, options)
    except AppError as error:
        return f"{error.message} {error.advice}".strip()
    return ""


def _note(recipe: Recipe, by: User | None, verb: str, **data: Any) -> None:
    AuditEvent.objects.create(
        project_id=recipe.project_id,
        actor=by,
        verb=f"recipe.{verb}",
        subject=f"recipe {recipe.name}"[:120],
        data=data,
    )
