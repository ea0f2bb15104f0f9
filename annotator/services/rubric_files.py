"""Rubrics as files: written, read again, and two versions told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from django.db import transaction
from django.utils.text import slugify

from annotator.errors import Invalid
from annotator.models import Criterion, Project, RubricVersion, User
from annotator.services import rubrics
from annotator.uploads import RUBRIC_BYTES
from rubrics.generators import GENERATORS

FORMAT: Final = "touchstone-rubric"
VERSION: Final = 1
MAX_BYTES: Final = RUBRIC_BYTES
WORDS: Final = ("text", "scope", "group", "verifier", "program", "theme")
SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|])")
BEGINS_A_BLOCK: Final = re.compile(r"^(\d*)([-+#.)~=])")
NO_RUBRIC: Final = "The file is no rubric: it holds one JSON object."


def as_json(version: RubricVersion) -> dict[str, Any]:
    """The criteria in force with their figures; evidence stays where the judgments are."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "rubric": version.rubric.name,
        "number": version.number,
        "state": version.state,
        "method": version.method,
        "options": version.options,
        "figures": version.figures,
        "criteria": [
            {name: getattr(one, name) for name in rubrics.FIELDS} | {"figures": one.figures}
            for one in rubrics.in_force(version)
        ],
    }


def read(*, project: Project, data: bytes, name: str = "", by: User | None) -> RubricVersion:
    """A draft from a file that ``as_json`` wrote, or another program in its form.

    ``name`` instead of the file's own. Raises Invalid with the criterion that does not fit.
    """
    criteria, file_name = _parse(data)
    name = " ".join((name or file_name).replace("\0", "").split())
    with transaction.atomic():
        rubric = project.rubrics.filter(name=name).first()
        if rubric is None:
            rubric = rubrics.create(project=project, name=name, by=by)
        if rubric.versions.filter(state=RubricVersion.State.DRAFT).exists():
            raise Invalid(
                f"“{rubric.name}” has a draft.", advice="Approve or discard it, or choose a name."
            )
        version = rubrics.draft(rubric=rubric, by=by)
        for number, values in enumerate(criteria, start=1):
            try:
                rubrics.add(version=version, by=by, **values)
            except Invalid as error:
                raise Invalid(f"Criterion {number}: {error.message}") from None
    return version


def _parse(data: bytes) -> tuple[list[dict[str, Any]], str]:
    if len(data) > MAX_BYTES:
        raise Invalid("The file is too large for a rubric.")
    try:
        # Strict where json is not: no NaN, no half of a surrogate pair, no endless nesting.
        found = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        raise Invalid(NO_RUBRIC) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Invalid(f"The file is no rubric: its format is not “{FORMAT}”.")
    if found.get("version") != VERSION:
        raise Invalid(f"The file is of version {str(found.get('version'))[:20]}; known: {VERSION}.")
    rows, name = found.get("criteria"), found.get("rubric") or ""
    if not isinstance(name, str):
        raise Invalid("The name of the rubric is not text.")
    if not isinstance(rows, list) or not rows or len(rows) > rubrics.MAX_CRITERIA:
        raise Invalid(f"The file holds 1 to {rubrics.MAX_CRITERIA} criteria.")
    return [_row(number, row) for number, row in enumerate(rows, start=1)], name


def _row(number: int, row: Any) -> dict[str, Any]:
    """The fields of one criterion that are known. Raises Invalid for words that are none."""
    if not isinstance(row, dict):
        raise Invalid(f"Criterion {number}: not an object.")
    values = {key: row[key] for key in rubrics.FIELDS if key in row}
    for key in WORDS:
        value = values.get(key)
        if value is not None and not isinstance(value, str):
            raise Invalid(f"Criterion {number}: its {key} is not text.")
        if isinstance(value, str):
            values[key] = value.replace("\0", "")
    return values


def as_markdown(version: RubricVersion) -> str:
    """The criteria in force for people to read, by theme, with what a yes counts."""
    rubric, rows = version.rubric, rubrics.in_force(version)
    lines = [f"# {_plain(rubric.name)}, version {version.number}", "", _origin(version), ""]
    themes = list(dict.fromkeys(one.theme for one in rows))
    for theme in themes:
        if theme or len(themes) > 1:
            lines += [f"## {_plain(theme) or 'Without a theme'}", ""]
        lines += [_line(one) for one in rows if one.theme == theme]
        lines.append("")
    if not rows:
        lines += ["There is no criterion in it yet.", ""]
    return "\n".join(lines)


def _origin(version: RubricVersion) -> str:
    known = GENERATORS.get(version.method)
    made = f"Induced by {known.label}" if known else "Written by hand"
    if version.is_draft:
        return f"{made}. A draft: nobody has approved it."
    by = f" by {_plain(str(version.approved_by))}" if version.approved_by else ""
    on = f"{version.approved_at:%Y-%m-%d}" if version.approved_at else ""
    return f"{made}. Approved {on}{by}."


def _line(one: Criterion) -> str:
    weight = one.polarity if one.weight is None else one.weight
    narrow = "" if one.scope == Criterion.Scope.PROJECT else f", {one.get_scope_display().lower()}"
    group = f" {_plain(one.group)}" if one.group else ""
    checked = f"checked by a {one.get_verifier_display().lower()}"
    program = f" {_plain(one.program)}" if one.program else ""
    return f"1. {_plain(one.text)} ({weight:+.3g}; {checked}{program}{narrow}{group})"


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands: no link, no heading, no list of its own."""
    return BEGINS_A_BLOCK.sub(r"\1\\\2", SPECIAL.sub(r"\\\1", " ".join(text.split())))


def file_name(version: RubricVersion, extension: str) -> str:
    """In letters that every file system takes."""
    return f"{slugify(version.rubric.name) or f'rubric-{version.rubric_id}'}-v{version.number}.{extension}"


@dataclass(frozen=True)
class Change:
    """A criterion that is in both versions and not the same."""

    before: Criterion
    after: Criterion
    fields: tuple[str, ...]


@dataclass
class Diff:
    """What a newer version has, lacks and says otherwise."""

    added: list[Criterion] = field(default_factory=list)
    removed: list[Criterion] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    same: int = 0


def diff(old: RubricVersion, new: RubricVersion) -> Diff:
    """Criteria are the same one by their text; what is left over pairs up by place in the list."""
    before, after = rubrics.in_force(old), rubrics.in_force(new)
    by_text = {one.text: one for one in before}
    found, left = Diff(), []
    for one in after:
        known = by_text.pop(one.text, None)
        if known is None:
            left.append(one)
            continue
        _compare(found, known, one)
    _pair_up(found, list(by_text.values()), left)
    return found


def _compare(found: Diff, known: Criterion, one: Criterion) -> None:
    fields = tuple(name for name in rubrics.FIELDS if getattr(known, name) != getattr(one, name))
    if fields:
        found.changed.append(Change(known, one, fields))
    else:
        found.same += 1


def _pair_up(found: Diff, gone: Sequence[Criterion], new: Sequence[Criterion]) -> None:
    """A text that was edited in place is a change, not a loss and a gain."""
    at_place = {one.position: one for one in gone}
    for one in new:
        known = at_place.get(one.position)
        if known is not None and one.is_edited:
            del at_place[one.position]
            _compare(found, known, one)
        else:
            found.added.append(one)
    found.removed.extend(at_place.values())
