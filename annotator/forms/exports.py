"""The form of a dataset's recipe, generated from the Options of its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

from django import forms
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from annotator.errors import Invalid
from annotator.exporters import EXPORTERS
from annotator.exporters.recipe import ExportOptions
from annotator.forms.projects import PercentField, form_field
from annotator.models import Project
from annotator.queries import reward_scores
from annotator.queries.pairs import rater_ids
from rubrics.registry import Method, choices

# Fields that are a row of the recipe's table, beside what they leave; the rest stand below it.
RULES: Final = ("raters", "rater_names", "min_votes", "both_bad", "min_agreement", "ties")

WORDS: Final = {
    "raters": {
        "all": "everyone",
        "people": "people only",
        "imported": "imported raters only",
        "named": "the raters named below",
    },
    "both_bad": {"drop": "left out", "keep": "kept"},
    "ties": {"drop": "left out"},
    "revisions": {"current": "the one in force", "all": "all, with what was edited or undone"},
    "names": {"names": "their names", "pseudonyms": "pseudonyms"},
    "leaks": {"keep": "kept", "drop": "left out"},
    "repeats": {"keep": "kept, one row each", "pool": "one row, votes added up"},
    "empty": {"keep": "kept", "drop": "left out"},
    "container": {"jsonl": "JSON Lines", "jsonl.gz": "JSON Lines, gzipped", "parquet": "Parquet"},
    "style": {
        "auto": "as the prompts ask for",
        "explicit-standard": "standard: strings",
        "explicit-conversational": "conversational: messages",
    },
    "splits": {"train": "Train", "validation": "Validation", "test": "Test"},
    "rubric_reward": {
        "raw": "the reward itself",
        "binary": "1 for the higher, a loss for the other",
    },
    "columns": {
        "margin": "margin (strength)",
        "votes": "votes",
        "agreement": "agreement",
        "prompt_id": "prompt id",
        "response_ids": "response and pair ids",
    },
}


def option_field(name: str, info: FieldInfo) -> forms.Field:
    """The form field of one option, worded for people."""
    kind, common = info.annotation, {"label": info.title, "help_text": info.description or ""}
    words = WORDS.get(name, {})
    if name == "min_agreement":
        return PercentField(**common)
    if get_origin(kind) is Literal:
        values = [(value, words.get(value, value)) for value in get_args(kind)]
        return forms.ChoiceField(choices=values, **common)
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    if get_origin(inner) is Literal:
        values = [(value, words.get(value, value)) for value in get_args(inner)]
        return forms.MultipleChoiceField(
            choices=values, widget=forms.CheckboxSelectMultiple, required=False, **common
        )
    return form_field(name, info)


class ExportForm(forms.Form):
    """Format and recipe. A field that was not sent keeps its default, save for boxes.

    Boxes that are off are not sent, so ``sent`` says that the page had them.
    """

    format = forms.ChoiceField(choices=lambda: choices(EXPORTERS))

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, project: Project, key: str = ""
    ) -> None:
        """``key``: the format whose recipe is shown where nothing was sent yet."""
        key = (data or {}).get("format", key)
        self.format_key = key if key in EXPORTERS else next(iter(EXPORTERS))
        self.project = project
        self.options_model: type[BaseModel] = EXPORTERS[self.format_key].load_options()
        self.options: ExportOptions | None = None
        super().__init__(data, initial={"format": self.format_key})
        for name, info in self.options_model.model_fields.items():
            field = option_field(name, info)
            field.required = False
            field.initial = info.get_default(call_default_factory=True)
            self.fields[name] = field
        self.fields["rater_names"].widget.attrs |= {"rows": 3}
        self._offer_rewards()

    def _offer_rewards(self) -> None:
        """Name the versions and models that have scores; without any, ask nothing about them."""
        if "rubric" not in self.fields:
            return
        found = reward_scores.offered(self.project)
        versions = [(f"{name}:v{number}", f"{name} v{number}") for name, number in found.versions]
        models = [(str(number), f"rm-{number}") for number in found.models]
        offered = {
            "rubric": [("", "none"), *versions],
            "reward_model": [("", "none"), *models],
        }
        for name, rows in offered.items():
            old = self.fields[name]
            self.fields[name] = forms.ChoiceField(
                choices=rows, label=old.label, help_text=old.help_text, required=False
            )
        of_rubric = [] if versions else [name for name in self.fields if name[:7] == "rubric_"]
        gone = [] if versions else ["rubric", *of_rubric]
        gone += [] if models else ["reward_model"]
        gone += [] if versions and models else ["rubric_weight"]
        for name in gone:
            self.fields.pop(name, None)

    @property
    def formats(self) -> list[tuple[str, Method, bool]]:
        """(key, method, whether chosen)."""
        return [(key, row, key == self.format_key) for key, row in EXPORTERS.items()]

    @property
    def counts_pairs(self) -> bool:
        """Whether rows are pairs that rules leave or drop; else they are judgments."""
        return issubclass(self.options_model, ExportOptions)

    @property
    def other_fields(self) -> list[forms.BoundField]:
        shown = (*RULES, "format")
        return [self[name] for name in self.fields if name not in shown]

    def values(self) -> dict[str, Any]:
        """The options as filled in; what is empty is its default."""
        was_sent = "sent" in self.data
        found = {}
        for name in self.options_model.model_fields:
            if name not in self.fields:
                continue
            value = self.cleaned_data.get(name)
            is_box = isinstance(self.fields[name], forms.MultipleChoiceField)
            if value in (None, "") or (value == [] and not (is_box and was_sent)):
                continue
            found[name] = value
        if found.get("raters") != "named":
            found.pop("rater_names", None)  # a name left in a field that does not count
        return found

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return data
        try:
            self.options = self.options_model.model_validate(self.values())
            rater_ids(self.project, self.options.selection())
        except ValidationError as error:
            for one in error.errors():
                name = str(one["loc"][0]) if one["loc"] else "rater_names"
                self.add_error(
                    name if name in self.fields else None, one["msg"].removeprefix("Value error, ")
                )
        except Invalid as error:
            self.add_error("rater_names", error.message)
        return data
