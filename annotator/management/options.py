"""``--option NAME=VALUE`` of a method, read by the fields of its Options model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from django.core.management.base import CommandError, CommandParser
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo


def add_option_argument(parser: CommandParser) -> None:
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="repeatable; lists are written A,B",
    )


def parse_options(given: Sequence[str], *models: type[BaseModel]) -> dict[str, Any]:
    """Values by name, each of its field's type. Names are looked up in all models.

    Raises CommandError naming the option that is malformed, unknown, given twice or does not fit;
    rules that span several options are left to the model.
    """
    fields = {name: info for model in models for name, info in model.model_fields.items()}
    values: dict[str, Any] = {}
    for pair in given:
        name, found, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not found or not name:
            raise CommandError(f"--option {pair!r} is not NAME=VALUE.")
        if name not in fields:
            raise CommandError(f"There is no option {name!r}. Known: {', '.join(fields)}.")
        if name in values:
            raise CommandError(f"--option {name} is given twice.")
        values[name] = _read(name, fields[name], text)
    return values


def _read(name: str, info: FieldInfo, text: str) -> Any:
    raw: Any = text
    if get_origin(info.annotation) is list:
        raw = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return TypeAdapter(info.rebuild_annotation()).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"--option {name}={text}: {first['msg']}.") from None


def describe(model: type[BaseModel]) -> str:
    """The options of a model as help text, one line each."""
    lines = []
    for name, info in model.model_fields.items():
        default = info.get_default(call_default_factory=True)
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        lines.append(f"  {name}={_kind(info.annotation)} (default: {shown})")
    return "\n".join(lines)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is list:
        return f"{_kind(get_args(annotation)[0])},..."
    return getattr(annotation, "__name__", str(annotation))
