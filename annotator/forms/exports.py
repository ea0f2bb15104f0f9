"""The form of a dataset's recipe, generated from the Options of its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from django import forms
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from annotator.errors import Invalid
from annotator.exporters import EXPORTERS
from annotator.exporters.filter_options import Filters
from annotator.exporters.recipe import ExportOptions, RowColumns, Terms
from annotator.exporters.variant_options import VariantColumns
from annotator.formats import number
from annotator.forms.projects import PercentField, form_field
from annotator.models import Project, RubricVersion
from annotator.queries import reward_scores
from annotator.queries.pairs import rater_ids
from rubrics.registry import Method, choices

# Rule of exporters.preview.RULES -> its fields in the recipe's table, beside what they leave.
ROWS: Final[dict[str, tuple[str, ...]]] = {
    "all": (),
    "raters": ("raters", "decided_by"),
    "min_votes": ("min_votes",),
    "both_bad": ("both_bad",),
    "ties": ("ties",),
    "agreement": ("min_agreement", "aggregator", "min_posterior"),
    "texts": ("empty", "repeats"),
    "leaks": ("leaks",),
    "pairs": ("pairs", "max_per_prompt"),
    "filters": (),
    "near_duplicates": ("near_duplicates",),
    "lengths": ("lengths",),
}
IN_ROWS: Final = frozenset(name for names in ROWS.values() for name in names)
NEEDS_MODEL: Final = " needs reward_model"  # as the options say it, to commands and programs too
MOST_VERSIONS: Final = 200  # offered by name; more by the command
# Options that say nothing without a reward model that has scored responses.
OF_MODELS: Final = [
    "reward01", "madpo_largest", "madpo_least", "madpo_steepness", "madpo_threshold",
    "madpo_margin", "least_margin", "most_margin", "filter_models", "drop_weakest",
    "drop_contradicted", "drop_losses", "draw_answers", "draw_beta", "draw_seed",
]  # fmt: skip
# Sections below the table: title, a word on it, and whose fields it has.
SECTIONS: Final[tuple[tuple[str, str, type[BaseModel]], ...]] = (
    ("Columns beside the texts", "Most trainers read none of them.", RowColumns),
    ("Columns for variants of DPO", "Read by the variant they are named for.", VariantColumns),
    ("Filters by scores", "Every row left out is counted with its reason.", Filters),
    ("Terms", "For the card.", Terms),
)

WORDS: Final = {
    "raters": {
        "all": "everyone",
        "people": "people only",
        "imported": "imported raters only",
        "judges": "AI judges only",
        "named": "the raters named below",
    },
    "decided_by": {"votes": "the votes", "reward-model": "a reward model", "rubric": "a rubric"},
    "aggregator": {
        "majority": "majority",
        "dawid-skene": "Dawid–Skene",
        "crowd-bt": "CrowdBT",
    },
    "both_bad": {
        "drop": "left out",
        "keep": "kept",
        "negatives": "both undesirable (unpaired formats)",
    },
    "ties": {"drop": "left out", "soft": "kept, p_chosen .5", "both": "kept in both directions"},
    "pairs": {
        "all": "every pair",
        "adjacent": "neighbors in the order",
        "best-rest": "the best against each other",
        "widest": "the widest gap",
    },
    "lengths": {"any": "as they are", "matched": "matched"},
    "margin_from": {
        "strength": "strength of the votes, 1 to 3",
        "votes": "shares of the votes",
        "reward": "standardized rewards",
    },
    "revisions": {"current": "the one in force", "all": "all, with what was edited or undone"},
    "names": {"names": "their names", "pseudonyms": "pseudonyms"},
    "leaks": {"keep": "kept", "drop": "left out"},
    "repeats": {"keep": "kept, one row each", "pool": "one row, votes added up"},
    "empty": {"keep": "kept", "drop": "left out"},
    "container": {
        "jsonl": "JSON Lines",
        "jsonl.gz": "JSON Lines, gzipped",
        "parquet": "Parquet",
        "csv": "CSV",
    },
    "style": {
        "auto": "as the prompts ask for",
        "explicit-standard": "standard: strings",
        "explicit-conversational": "conversational: messages",
    },
    "splits": {"train": "Train", "validation": "Validation", "test": "Test"},
    "variants": {
        "reward01": "rewards from 0 to 1",
        "madpo-weight": "MADPO weight",
        "flip-rate": "flip rate: how likely the label is wrong",
        "variance": "variance of an ensemble",
        "strength": "strength by several models",
        "ratings": "ratings by attribute",
        "ches": "CHES, by a language model",
    },
    "reward01": {"logistic": "a logistic curve", "min-max": "lowest and highest score"},
    "madpo_margin": {"calibrated": "calibrated on votes", "raw": "as the model scores"},
    "drop_contradicted": {"no": "no", "all": "where every model contradicts"},
    "rubric_reward": {
        "raw": "the reward itself",
        "binary": "1 for the higher, a loss for the other",
    },
    "columns": {
        "margin": "margin (strength)",
        "votes": "votes",
        "agreement": "agreement",
        "p_chosen": "p_chosen (soft label)",
        "prompt_id": "prompt id",
        "response_ids": "response and pair ids",
    },
}


def option_field(name: str, info: FieldInfo) -> forms.Field:
    """The form field of one option, worded for people."""
    kind, common = info.annotation, {"label": info.title, "help_text": info.description or ""}
    words = WORDS.get(name, {})
    if name in ("min_agreement", "min_posterior"):
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


@dataclass(frozen=True)
class Section:
    """Fields below the table. ``is_open``: something in it differs from its default, or is wrong."""

    title: str
    note: str
    fields: list[forms.BoundField]
    is_open: bool


class ExportForm(forms.Form):
    """Format and recipe. A field that was not sent keeps its default, save for boxes.

    Boxes that are off are not sent, so ``sent`` says that the page had them.
    """

    format = forms.ChoiceField(choices=lambda: choices(EXPORTERS))

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        project: Project,
        key: str = "",
        start: Mapping[str, Any] | None = None,
    ) -> None:
        """``key``: the format whose recipe is shown where nothing was sent yet, ``start``: its
        options where they are not the defaults."""
        key = (data or {}).get("format", key)
        self.project = project
        self.format_key = key if key in EXPORTERS else self._first_fitting()
        self.options_model: type[BaseModel] = EXPORTERS[self.format_key].load_options()
        self.options: ExportOptions | None = None
        super().__init__(data, initial={"format": self.format_key})
        for name, info in self.options_model.model_fields.items():
            field = option_field(name, info)
            field.required = False
            field.initial = (start or {}).get(name, info.get_default(call_default_factory=True))
            self.fields[name] = field
        if "rater_names" in self.fields:
            self.fields["rater_names"].widget.attrs |= {"rows": 3}
        self._offer_rewards()

    def _first_fitting(self) -> str:
        """The first format that can hold the project's answers."""
        return next(
            key
            for key, row in EXPORTERS.items()
            if getattr(row.load(), "reads", "") == self.project.modality
        )

    def _offer_rewards(self) -> None:
        """Name the versions and models that have scores; without any, ask nothing about them."""
        if "version" in self.fields:
            self._offer_versions()
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
        if models and "filter_models" in self.fields:
            old = self.fields["filter_models"]
            self.fields["filter_models"] = forms.MultipleChoiceField(
                choices=models,
                label=old.label,
                help_text=old.help_text,
                widget=forms.CheckboxSelectMultiple,
                required=False,
            )
        of_rubric = [] if versions else [name for name in self.fields if name[:7] == "rubric_"]
        gone = [] if versions else ["rubric", *of_rubric]
        gone += [] if models else ["reward_model"]
        gone += [] if versions and models else ["rubric_weight"]
        gone += [] if models else OF_MODELS
        for name in gone:
            self.fields.pop(name, None)

    def _offer_versions(self) -> None:
        """The approved versions of rubrics, newest first; rows of them are raw."""
        approved = RubricVersion.objects.filter(
            rubric__project=self.project, state=RubricVersion.State.APPROVED
        ).select_related("rubric")
        rows = [(f"{one.rubric.name}:v{one.number}", str(one)) for one in approved[:MOST_VERSIONS]]
        old = self.fields["version"]
        self.fields["version"] = forms.ChoiceField(
            choices=[("", "every version"), *rows], label=old.label, required=False
        )

    @property
    def formats(self) -> list[tuple[str, Method, bool]]:
        """(key, method, whether chosen) of those that can hold what the project has."""
        return [
            (key, row, key == self.format_key)
            for key, row in EXPORTERS.items()
            if getattr(row.load(), "reads", self.project.modality) == self.project.modality
        ]

    @property
    def counts_pairs(self) -> bool:
        """Whether rows are pairs that rules leave or drop; else they are judgments."""
        return issubclass(self.options_model, ExportOptions)

    def row_fields(self, rule: str) -> dict[str, forms.BoundField]:
        """The fields of a row of the recipe's table, by name."""
        return {name: self[name] for name in ROWS[rule] if name in self.fields}

    @property
    def sections(self) -> list[Section]:
        """What the table does not ask, in groups; the first are of the format itself."""
        known = {name for *_, model in SECTIONS for name in model.model_fields}
        inside = {"format", "rater_names", *(IN_ROWS if self.counts_pairs else {"raters"})}
        own = [name for name in self.fields if name not in known | inside]
        found = [self._section("Files and texts", "", own, is_open=True)]
        for title, note, model in SECTIONS:
            names = [name for name in model.model_fields if name in self.fields]
            if names:
                found.append(self._section(title, note, names))
        return found

    def _section(
        self, title: str, note: str, names: list[str], *, is_open: bool = False
    ) -> Section:
        fields = [self[name] for name in names]
        is_changed = any(one.errors or _differs(one, self.options_model) for one in fields)
        return Section(title, note, fields, is_open or is_changed)

    @property
    def are_filters_on(self) -> bool:
        """Whether anything is left out by scores."""
        names = (name for name in Filters.model_fields if name in self.fields)
        return any(_differs(self[name], self.options_model) for name in names)

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

    def _worded(self, said: str) -> str:
        """What is wrong, by what stands on the page instead of an option's name."""
        if not said.endswith(NEEDS_MODEL):
            return said
        where = (
            "choose one under “Columns beside the texts”"
            if "reward_model" in self.fields
            else "have one score the responses first"
        )
        return f"{said.removesuffix(NEEDS_MODEL)} needs a reward model: {where}"

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return data
        try:
            self.options = self.options_model.model_validate(self.values())
            rater_ids(self.project, self.options.selection())
        except ValidationError as error:
            for one in error.errors():
                said = self._worded(one["msg"].removeprefix("Value error, "))
                of_names = "rater_names" if "names" in said else ""
                name = str(one["loc"][0]) if one["loc"] else of_names
                self.add_error(name if name in self.fields else None, said)
        except Invalid as error:
            self.add_error("rater_names", error.message)
        return data


def _differs(field: forms.BoundField, model: type[BaseModel]) -> bool:
    """Whether a field holds something else than its default."""
    value, default = (
        field.value(),
        model.model_fields[field.name].get_default(call_default_factory=True),
    )
    if isinstance(default, list):
        return sorted(map(str, value or [])) != sorted(map(str, default))
    if isinstance(default, bool):
        return bool(value) != default
    if isinstance(field.field, PercentField) and isinstance(value, str):
        value = value or 0
    if isinstance(default, int | float) and isinstance(value, str):
        found = number(value or default)  # "0.0" as it was sent is 0
        return found is None or found != default
    return str(value or "") != str(default or "")
