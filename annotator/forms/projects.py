"""Forms about a project. The settings part is generated from ``ProjectSettings``."""

from __future__ import annotations

from pkgutil import resolve_name
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from django import forms
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from annotator.models import Project, ProjectSettings
from annotator.models.projects import SplitShares
from annotator.services import projects
from rubrics.registry import choices

MAX_GUIDELINES: Final = 100_000
MAX_REASON: Final = 200  # Assignment.skip_reason
LOCKED: Final = ("split_train", "split_validation", "split_test", "split_seed")

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
            "question": "One sentence: what should people decide between two answers?",
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


class NewProjectForm(TextsForm):
    """A new project. The address is made from the name where it is left empty."""

    overlap = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        label="Judgments per task",
        help_text="How many different people judge each task. Two or more show agreement.",
    )

    field_order = ("name", "slug", "question", "modality", "overlap", "guidelines")

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

    def clean(self, value: Any) -> float:
        return round(super().clean(value) / 100, 8)


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
        for name, info in ProjectSettings.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                for side in SplitShares.model_fields:
                    label = f"{side.capitalize()}, %"
                    self.fields[f"split_{side}"] = PercentField(label=label)
            else:
                self.fields[name] = form_field(name, info)
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
                raise forms.ValidationError(one["msg"].removeprefix("Value error, ")) from error
        return data

    def bound_in(self, *names: str) -> list[forms.BoundField]:
        return [self[name] for name in names]

    @property
    def split_fields(self) -> list[forms.BoundField]:
        return self.bound_in(*LOCKED)

    @property
    def other_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in LOCKED]
