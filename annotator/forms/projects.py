"""Forms about a project. The settings part is generated from ``ProjectSettings``."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from django import forms
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from annotator.kinds import KINDS
from annotator.kinds.checklist import IMAGE_FAILURES
from annotator.models import Project, ProjectSettings
from annotator.models.projects import SplitShares
from annotator.services import projects
from rubrics.registry import Method, choices

MAX_GUIDELINES: Final = 100_000
MOST_ROWS: Final = 16  # of a box with a list in it
MAX_REASON: Final = 200  # Assignment.skip_reason
# What the settings page asks, by meaning: (key, heading, fields). What stands in none of them
# comes last under a heading of its own, so that a new setting is never lost.
GROUPS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("asked", "What is asked", ("kind", "rationale", "reasons", "skip_reasons")),
    ("scale", "Scale", ("steps", "allow_tie", "allow_both_bad")),
    (
        "rating",
        "Rating",
        ("attributes", "rating_low", "rating_low_means", "rating_high", "rating_high_means"),
    ),
    ("checklist", "Checklist", ("criteria", "failures")),
    (
        "handing-out",
        "Handing out",
        ("overlap", "sampler", "lease_minutes", "daily_target", "daily_cap", "quota"),
    ),
    ("quality", "Quality", ("gold_rate", "qualification_share", "aggregator", "leaks")),
)
# Groups that matter to some kinds only.
OF_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "scale": ("pairwise", "ranking"),
    "rating": ("rating",),
    "checklist": ("checklist",),
}
LOCKED: Final = ("split_train", "split_validation", "split_test", "split_seed")

DEFAULT_KIND: Final[str] = ProjectSettings.model_fields["kind"].default
GUIDELINES_HELP: Final = "Markdown. Annotators can open it beside every task."


class TextsForm(forms.ModelForm):
    """What a project is about."""

    class Meta:
        model = Project
        fields = ["name", "question", "guidelines"]
        widgets = {
            "question": forms.TextInput,
            "guidelines": forms.Textarea(attrs={"rows": 12}),
        }
        help_texts = {
            "question": "One sentence: what should people decide about the answers?",
            "guidelines": GUIDELINES_HELP,
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["guidelines"].max_length = MAX_GUIDELINES
        self.fields["guidelines"].widget.attrs["maxlength"] = str(MAX_GUIDELINES)

    def clean_guidelines(self) -> str:
        text = self.cleaned_data["guidelines"]
        if len(text) > MAX_GUIDELINES:
            raise forms.ValidationError(f"Keep the guidelines under {MAX_GUIDELINES:,} characters.")
        return text


def refused(*of: forms.BaseForm) -> list[forms.BoundField]:
    """The fields of these forms that are wrong, in page order. They no longer ask for the focus."""
    for form in of:
        for field in form.fields.values():
            field.widget.attrs.pop("autofocus", None)
    return [field for form in of for field in form if field.errors]


class NewProjectForm(TextsForm):
    """A new project. The address is made from the name where it is left empty."""

    kind = forms.ChoiceField(
        choices=lambda: choices(KINDS),
        initial=DEFAULT_KIND,
        required=False,
        label="Kind of task",
        help_text="What prompts and responses become when imported. An import can choose another.",
    )
    overlap = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        label="Judgments per task",
        help_text="How many different people judge each task. Two or more show agreement.",
    )

    field_order = ("name", "slug", "question", "kind", "modality", "overlap", "guidelines")

    class Meta(TextsForm.Meta):
        fields = ["name", "slug", "question", "modality", "guidelines"]
        labels = {"slug": "Address", "modality": "What is compared"}
        help_texts = TextsForm.Meta.help_texts | {
            "slug": "Letters, digits and hyphens; made from the name if empty. Never changes.",
        }
        widgets = TextsForm.Meta.widgets | {
            "guidelines": forms.Textarea(attrs={"rows": 8}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["slug"].required = False
        self.fields["name"].widget.attrs["autofocus"] = True

    @property
    def kind_choices(self) -> list[tuple[str, Method, bool]]:
        """(key, kind, whether chosen)."""
        chosen = self["kind"].value() or DEFAULT_KIND
        return [(key, row, key == chosen) for key, row in KINDS.items()]

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or DEFAULT_KIND

    def clean_slug(self) -> str:
        slug = self.cleaned_data["slug"]
        return slug or projects.free_slug(self.cleaned_data.get("name", ""))


def _bounds(info: FieldInfo) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for rule in info.metadata:
        match rule:
            case Ge(ge=value) | Gt(gt=value):
                bounds["min_value"] = value
            case Le(le=value) | Lt(lt=value):
                bounds["max_value"] = value
            case MinLen(min_length=value):
                bounds["min_length"] = value
            case MaxLen(max_length=value):
                bounds["max_length"] = value
    return bounds


def _label(name: str, info: FieldInfo) -> str:
    return info.title or name.replace("_", " ").capitalize()


class LinesField(forms.CharField):
    """A list of texts, one per line; empty lines and repetitions are dropped."""

    def __init__(self, *, max_lines: int | None, **kwargs: Any) -> None:
        self.max_lines = max_lines
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        text = super().clean(value)
        lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
        if self.max_lines and len(lines) > self.max_lines:
            raise forms.ValidationError(f"{self.max_lines} lines at most.")
        if any(len(line) > MAX_REASON for line in lines):
            raise forms.ValidationError(f"Keep each line under {MAX_REASON} characters.")
        return lines

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class PercentField(forms.FloatField):
    """A share of 1, typed as percent."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"min_value": 0, "max_value": 100}
        super().__init__(**kwargs, step_size=None)
        self.widget.attrs["step"] = "any"

    def prepare_value(self, value: Any) -> Any:
        return f"{round(value * 100, 6):g}" if isinstance(value, float) else value

    def clean(self, value: Any) -> float | None:
        found = super().clean(value)
        return None if found is None else round(found / 100, 8)


def form_field(name: str, info: FieldInfo) -> forms.Field:
    """The form field that asks for a pydantic field: type, bounds, title and description."""
    common = {"label": _label(name, info), "help_text": info.description or ""}
    kind, bounds = info.annotation, _bounds(info)
    if isinstance(kind, UnionType):
        raise TypeError(f"{name}: a form cannot ask for {kind}")
    if isinstance(info.json_schema_extra, dict) and "table" in info.json_schema_extra:
        table = resolve_name(str(info.json_schema_extra["table"]))
        return forms.ChoiceField(choices=choices(table), **common)
    if kind is bool:
        return forms.BooleanField(required=False, **common)
    if kind is int:
        return forms.IntegerField(**bounds, **common)
    if kind is float:
        return forms.FloatField(**bounds, **common)
    if kind is str:
        return forms.CharField(required=bool(bounds.get("min_length")), **bounds, **common)
    if get_origin(kind) is Literal:
        offered = [(value, str(value).capitalize()) for value in get_args(kind)]
        coerce = type(get_args(kind)[0])
        return forms.TypedChoiceField(choices=offered, coerce=coerce, **common)
    if get_origin(kind) is list:
        rows = bounds.get("max_length")
        common["help_text"] = common["help_text"] or f"One per line, {rows} at most."
        widget = forms.Textarea(attrs={"rows": 6})
        return LinesField(max_lines=rows, required=False, widget=widget, **common)
    raise TypeError(f"{name}: a form cannot ask for {kind}")


class OptionsForm(forms.Form):
    """``ProjectSettings`` as a form. Its split is disabled once prompts were drawn with it."""

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        options = project.options
        values = options.model_dump()
        values |= {f"split_{side}": share for side, share in values.pop("split").items()}
        super().__init__(*args, initial=values, **kwargs)
        self.project = project
        for name, info in ProjectSettings.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                for side in SplitShares.model_fields:
                    label = f"{side.capitalize()}, %"
                    self.fields[f"split_{side}"] = PercentField(label=label)
            else:
                self.fields[name] = form_field(name, info)
                if isinstance(values[name], list):
                    rows = min(max(len(values[name]) + 1, 3), MOST_ROWS)
                    self.fields[name].widget.attrs["rows"] = rows
        self.is_split_locked = projects.has_prompts(project)
        if self.is_split_locked:
            for name in LOCKED:
                self.fields[name].disabled = True  # whatever is sent, the stored value stands
        self._stored = values

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        if self.is_split_locked:
            data |= {name: self._stored[name] for name in LOCKED}
        values = {name: value for name, value in data.items() if not name.startswith("split_")}
        values["split_seed"] = data["split_seed"]
        values["split"] = {side: data[f"split_{side}"] for side in SplitShares.model_fields}
        try:
            self.options = ProjectSettings.model_validate(values)
        except ValidationError as error:
            for one in error.errors():
                place = str(one["loc"][0]) if one["loc"] else ""
                field = {"split": "split_train"}.get(place, place)
                message = one["msg"].removeprefix("Value error, ")
                self.add_error(field if field in self.fields else None, message)
        return data

    def bound_in(self, *names: str) -> list[forms.BoundField]:
        return [self[name] for name in names]

    @property
    def split_fields(self) -> list[forms.BoundField]:
        return self.bound_in(*LOCKED)

    @property
    def groups(self) -> list[Group]:
        """The settings by meaning; open where the project's kind needs them or one is refused."""
        kind = self["kind"].value()
        left = [name for name in self.fields if name not in LOCKED]
        result = []
        for key, title, names in GROUPS:
            if key == ("checklist" if kind == "checklist" else "rating"):
                names = (*names, "allow_not_applicable")  # of both; a form asks once
            matters = kind in OF_KINDS.get(key, (kind,))
            fields = self.bound_in(*(name for name in names if name in left))
            is_open = matters or any(field.errors for field in fields)
            result.append(Group(key, title, fields, is_open, matters))
            left = [name for name in left if name not in names]
        if left:
            result.append(Group("more", "More", self.bound_in(*left), True, True))
        return result

    def with_image_failures(self) -> OptionsForm:
        """The same form as it was sent, the image failures added to its list of failures."""
        data = self.data.copy()
        there = data.get("failures", "").splitlines()
        data["failures"] = "\n".join(dict.fromkeys([*filter(None, there), *IMAGE_FAILURES]))
        filled = OptionsForm(data, project=self.project)
        filled.fields["failures"].widget.attrs["autofocus"] = True
        return filled

    @property
    def has_lines(self) -> bool:
        """Whether a checklist would have anything to check."""
        return bool(self["criteria"].value() or self["failures"].value())


@dataclass(frozen=True)
class Group:
    """Settings that belong together. ``matters``: to the kind of task the project has."""

    key: str
    title: str
    fields: list[forms.BoundField]
    is_open: bool
    matters: bool
