"""Rubrics as files: written, read again, and two versions told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import transaction

from annotator.errors import Invalid
from annotator.models import Criterion, Project, RubricVersion, User
from annotator.services import rubrics

FORMAT: Final = "touchstone-rubric"
VERSION: Final = 1
MAX_BYTES: Final = 2_000_000
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
    with transaction.atomic():
        rubric = project.rubrics.filter(name=name or file_name).first()
        if rubric is None:
            rubric = rubrics.create(project=project, name=name or file_name, by=by)
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
        found = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Invalid(NO_RUBRIC) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Invalid(f"The file is no rubric: its format is not “{FORMAT}”.")
    if found.get("version") != VERSION:
        raise Invalid(f"The file is of version {str(found.get('version'))[:20]}; known: {VERSION}.")
    rows = found.get("criteria")
    if not isinstance(rows, list) or not rows or len(rows) > rubrics.MAX_CRITERIA:
        raise Invalid(f"The file holds 1 to {rubrics.MAX_CRITERIA} criteria.")
    criteria = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise Invalid(f"Criterion {number}: not an object.")
        criteria.append({key: row[key] for key in rubrics.FIELDS if key in row})
    return criteria, str(found.get("rubric") or "")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


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
