"""The form that starts a training run, generated from the Options of the chosen methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django import forms
from pydantic import BaseModel, ValidationError

from annotator.forms.projects import form_field
from annotator.services import backbones
from models.backbones import BACKBONES, TAKES_ARGUMENT
from models.objectives import OBJECTIVES
from models.training import TrainingConfig
from rubrics.registry import Method, choices

PREFIX: Final = "option_"
MODEL_HELP: Final = (
    "An id of the Hugging Face hub, such as {examples}, or a folder the operator allows. Code that"
    " comes with a model is never run."
)
GENERAL: Final = ("seed", "members", "prior_scale")  # of any training
TEXT_MODELS: Final = "distilbert-base-uncased or Qwen/Qwen3-0.6B"
EXAMPLES: Final = {
    "frozen": "sentence-transformers/all-MiniLM-L6-v2 or Qwen/Qwen3-0.6B",
    "clip": "openai/clip-vit-base-patch32 or google/siglip-base-patch16-224",
}


class TrainForm(forms.Form):
    """Objective, backbone and the options of both.

    Offered are the ``fitting`` backbones, which read what the answers of the project are.
    Options are asked for the chosen methods only. ``shown`` says which methods the sent page had
    options of: without a script, someone can choose a method and send the form before its options
    were shown, and then its defaults hold.
    """

    objective = forms.ChoiceField(choices=lambda: choices(OBJECTIVES))
    backbone = forms.ChoiceField()
    model = forms.CharField(
        required=False,
        max_length=backbones.LONGEST,
        label="Model",
        widget=forms.TextInput(attrs={"list": "local-models", "spellcheck": "false"}),
    )
    minutes = forms.FloatField(
        required=False,
        min_value=0.01,
        max_value=60 * 24 * 30,
        label="Time limit (minutes)",
        help_text="Training ends then; what was learned is evaluated and saved. Empty: no limit.",
    )

    def __init__(
        self,
        data: Any = None,
        *,
        fitting: Sequence[str],
        initial: Mapping[str, str] | None = None,
    ) -> None:
        self.backbones = {key: BACKBONES[key] for key in fitting}
        chosen = data if data is not None else initial or {}
        self.methods = {
            "objective": _chosen(OBJECTIVES, chosen.get("objective", "")),
            "backbone": _chosen(self.backbones, chosen.get("backbone", "")),
        }
        super().__init__(data, initial=dict(self.methods))
        self.fields["backbone"].choices = choices(self.backbones)  # type: ignore[attr-defined]
        examples = EXAMPLES.get(self.methods["backbone"], TEXT_MODELS)
        self.fields["model"].help_text = MODEL_HELP.format(examples=examples)
        for name in GENERAL:
            info = TrainingConfig.model_fields[name]
            self.fields[name] = form_field(name, info)
            self.fields[name].initial = info.default
            self.fields[name].required = False
        was_shown = set(data.get("shown", "").split()) if data is not None else set()
        self.options: dict[str, type[BaseModel]] = {}
        for kind, table in (("objective", OBJECTIVES), ("backbone", self.backbones)):
            key = self.methods[kind]
            options = table[key].load_options()
            if options is None:
                continue
            self.options[kind] = options
            for name, info in options.model_fields.items():
                field = form_field(name, info)
                field.required = False
                field.initial = info.default
                # Never sent, so whatever stands there is not the answer to anything.
                field.disabled = data is not None and key not in was_shown
                self.fields[PREFIX + name] = field

    @property
    def shown(self) -> str:
        """The methods whose options this form asks for."""
        return " ".join(self.methods.values())

    @property
    def takes_model(self) -> bool:
        return self.methods["backbone"] in TAKES_ARGUMENT

    @property
    def objective_fields(self) -> list[forms.BoundField]:
        return self._fields_of("objective")

    @property
    def general_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in (*GENERAL, "minutes")]

    @property
    def backbone_fields(self) -> list[forms.BoundField]:
        return self._fields_of("backbone")

    @property
    def objective_choices(self) -> list[tuple[str, Method, bool]]:
        """(key, method, whether chosen)."""
        return [(key, row, key == self.methods["objective"]) for key, row in OBJECTIVES.items()]

    @property
    def backbone_choices(self) -> list[tuple[str, Method, bool]]:
        return [(key, row, key == self.methods["backbone"]) for key, row in self.backbones.items()]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.takes_model and not data.get("model") and "model" not in self.errors:
            self.add_error("model", "This backbone needs a model.")
        for kind, options in self.options.items():
            try:
                options.model_validate(self._values(kind))
            except ValidationError as error:
                for one in error.errors():
                    name = PREFIX + str(one["loc"][0])
                    if name not in self.errors:
                        self.add_error(name, one["msg"])
        return data

    def settings(self) -> dict[str, Any]:
        """What ``services.training.start`` is asked for."""
        data = self.cleaned_data
        options = {name: v for kind in self.options for name, v in self._values(kind).items()}
        options |= {name: data[name] for name in GENERAL if data.get(name) is not None}
        if data.get("minutes"):
            options["time_limit"] = data["minutes"] * 60
        backbone = data["backbone"]
        if self.takes_model:
            backbone = f"{backbone}:{data['model']}"
        return {"objective": data["objective"], "backbone": backbone, "options": options}

    def _values(self, kind: str) -> dict[str, Any]:
        """What was filled in; an empty field is its default."""
        found = {name: self.cleaned_data.get(PREFIX + name) for name in self._names(kind)}
        return {name: value for name, value in found.items() if value not in (None, "")}

    def _names(self, kind: str) -> list[str]:
        return list(self.options[kind].model_fields) if kind in self.options else []

    def _fields_of(self, kind: str) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in self._names(kind)]


def _chosen(table: Mapping[str, Method], key: str) -> str:
    return key if key in table else next(iter(table))
