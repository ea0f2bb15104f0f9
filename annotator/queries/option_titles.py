"""Options by the names that forms give them, for pages that show what somebody chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.backbones import BACKBONES
from models.objectives import OBJECTIVES
from models.training import TrainingConfig
from rubrics.generators import GENERATORS
from rubrics.registry import Method

# Where a configuration names a method, and the table that it is of.
TABLES: Final[Mapping[str, Mapping[str, Method]]] = {
    "objective": OBJECTIVES, "backbone": BACKBONES, "method": GENERATORS,
}  # fmt: skip
# What is no option of a method.
WORDS: Final = {
    "against": "Compared with", "gold": "Gold of best of n", "import_run": "Import, run",
    "most": "Pairs at most", "splits": "Splits", "form": "Rewards are",
    "not_applicable": "Criteria that do not apply", "folder": "Model",
}  # fmt: skip


def method_of(name: str, value: Any) -> Method | None:
    """The method that ``name: value`` of a configuration means; None for anything else."""
    key = str(value).partition(":")[0]
    return TABLES[name].get(key) if name in TABLES else None


def titles(config: Mapping[str, Any]) -> dict[str, str]:
    """Titles by name, those of the objective first, as the forms have them."""
    found: dict[str, str] = {}
    for name in TABLES:
        method = method_of(name, config.get(name))
        if method is not None and method.options:
            found |= _of(method.load_options().model_fields)
    if "backbone" in config:
        found |= _of(TrainingConfig.model_fields)
    return found | {name: title for name, title in WORDS.items() if name not in found}


def usual(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training that stand as they are where nobody says a word."""
    if "backbone" not in config:
        return {}
    fields = dict(TrainingConfig.model_fields)
    for name in ("objective", "backbone"):
        method = method_of(name, config[name])
        if method is not None and method.options:
            fields |= method.load_options().model_fields
    given = {**config, **(config.get("options") or {})}
    return {
        name: given[name]
        for name, field in fields.items()
        if name in given and name not in (*TABLES, "seed") and given[name] == field.default
    }


def _of(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: info.title for name, info in fields.items() if info.title}


def shown(name: str, value: Any) -> str:
    """A method in words: "Frozen transformer, all-MiniLM-L6-v2"; "" for what names none."""
    method = method_of(name, value)
    if method is None:
        return ""
    argument = str(value).partition(":")[2]
    last = argument.rstrip("/").rpartition("/")[2] if argument.startswith("/") else argument
    return f"{method.label}, {last}" if last else method.label
