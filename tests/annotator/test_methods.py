"""Every named method: its path loads, its options hold, docs/methods.md has its card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from annotator.exporters import EXPORTERS
from annotator.importers import IMPORTERS
from annotator.kinds import KINDS
from annotator.samplers import SAMPLERS
from models.aggregators import AGGREGATORS
from models.backbones import BACKBONES
from models.calibrators import CALIBRATORS
from models.length_control import LENGTH_CONTROLS
from models.objectives import OBJECTIVES
from rubrics.generators import GENERATORS
from rubrics.judging import JUDGES
from rubrics.programs import PROGRAMS
from rubrics.registry import Method

TABLES: dict[str, Mapping[str, Method]] = {
    "Kinds of task": KINDS,
    "Samplers": SAMPLERS,
    "Objectives": OBJECTIVES,
    "Backbones": BACKBONES,
    "Aggregators": AGGREGATORS,
    "Judges": JUDGES,
    "Programs": PROGRAMS,
    "Generators": GENERATORS,
    "Length control": LENGTH_CONTROLS,
    "Calibrators": CALIBRATORS,
    "Importers": IMPORTERS,
    "Exporters": EXPORTERS,
}
LISTED = ("Programs",)  # too many and too alike for cards: a row each
OPTIONS_STAND_IN = {("Judges", "program"): "Programs"}
METHODS = [
    pytest.param(
        section,
        key,
        method,
        id=f"{section.lower()}-{key}",
        marks=[pytest.mark.neural] if method.path.startswith("models.neural") else [],
    )
    for section, table in TABLES.items()
    for key, method in table.items()
]
LONGEST_KEY = 40  # what tables store them in
CARDS = Path(__file__).parents[2] / "docs" / "methods.md"


def section_of(name: str) -> str:
    """The text of ``## name`` up to the next section."""
    found = re.search(
        rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", CARDS.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/methods.md has no section {name}"
    return found[1]


def card_of(section: str, key: str) -> str:
    """The text of ``### `key` `` up to the next card."""
    text = section_of(section)
    found = re.search(
        rf"^### `{re.escape(key)}`.*?\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/methods.md has no card for {key} under {section}"
    return found[1]


def shown(default: Any) -> str:
    """A default as the tables of docs/methods.md write it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | dict):
        return ", ".join(map(str, default)) or "none"
    return str(default)


@pytest.mark.parametrize(("section", "key", "method"), METHODS)
def test_path_loads(section: str, key: str, method: Method) -> None:
    assert callable(method.load())
    assert re.fullmatch(r"[a-z][a-z0-9-]*", key)
    assert len(key) <= LONGEST_KEY
    assert method.label
    assert method.summary


@pytest.mark.parametrize(("section", "key", "method"), METHODS)
def test_options_have_defaults_and_refuse_what_they_do_not_know(
    section: str, key: str, method: Method
) -> None:
    options: type[BaseModel] | None = method.load_options()
    if options is None:
        assert not method.options
        return
    assert options.model_validate({}).model_dump() == options().model_dump()
    with pytest.raises(ValueError, match="no_such_option"):
        options.model_validate({"no_such_option": 1})


@pytest.mark.parametrize(("section", "key", "method"), METHODS)
def test_card_names_every_option_with_its_default(section: str, key: str, method: Method) -> None:
    """In the card, or above the cards of a section whose methods share their options."""
    if section in LISTED:
        assert f"| `{key}` | {method.label} | {method.summary} |" in section_of(section)
        return
    card = card_of(section, key)
    assert len(card.split()) > 20, "a card says what the method does and when it fits"
    shared = section_of(OPTIONS_STAND_IN.get((section, key), section)).partition("\n### ")[0]
    options = method.load_options()
    for name, info in options.model_fields.items() if options else ():
        row = f"| `{name}` | {shown(info.get_default(call_default_factory=True))} |"
        assert row in card + shared, f"the card of {key} lacks the row {row}"


def test_cards_are_of_methods_that_exist() -> None:
    for section, table in TABLES.items():
        mark = r"^\| `([^`]+)` \|(?= [A-Z])" if section in LISTED else r"^### `([^`]+)`"
        keys = re.findall(mark, section_of(section), re.MULTILINE)
        assert keys == list(table), f"cards of {section}, in the order of its table"
