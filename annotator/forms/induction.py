"""The form that starts an induction, generated from the Options of the chosen generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django import forms
from pydantic import BaseModel, ValidationError

from annotator.forms.projects import form_field
from annotator.models import Judge, Project
from annotator.queries import preference_pairs
from annotator.queries.induction import rubrics_offered
from annotator.services import induction, induction_plan
from rubrics.generators import GENERATORS, costs
from rubrics.llm.budget import Budget
from rubrics.registry import Method

PREFIX: Final = "option_"
# What most people set; the rest waits under "More".
FIRST: Final = frozenset(
    {
        "mode", "criteria", "verify", "max_criteria", "most_rules", "verify_pairs", "least_raters",
        "most_criteria", "most_candidates", "top", "rounds", "leave_out",
    }
)  # fmt: skip
# Asked once for the whole run, or decided by the run: nothing to set a second time.
NOT_ASKED: Final[dict[str, frozenset[str]]] = {"arr": frozenset({"held_out", "measured"})}
BUDGETS: Final = ("calls", "tokens", "money")


class InduceForm(forms.Form):
    """Method, whose model, which votes, how far. ``shown`` as in JudgeForm.

    ``judges`` are those that can be asked now.
    """

    name = forms.CharField(
        max_length=80,
        required=False,
        label="Rubric",
        help_text="A new name, or that of a rubric there is: it gets its next draft. Empty: the "
        "method’s name.",
        widget=forms.TextInput(attrs={"list": "rubrics", "autocomplete": "off"}),
    )
    raters = forms.ChoiceField(
        choices=induction.raters_offered, initial="all", label="Whose votes are learned from"
    )
    pairs = forms.IntegerField(
        min_value=1, max_value=preference_pairs.MOST, required=False, label="At most pairs"
    )
    calls = forms.IntegerField(min_value=1, max_value=10**9, required=False, label="Calls")
    tokens = forms.IntegerField(min_value=1, max_value=10**12, required=False, label="Tokens")
    money = forms.FloatField(min_value=0.000001, max_value=10**7, required=False, label="Money")

    def __init__(
        self,
        data: Any = None,
        *,
        project: Project,
        judges: Sequence[Judge],
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        chosen = data if data is not None else initial or {}
        key = chosen.get("method", "")
        self.method = key if key in GENERATORS else default_method(project, judges)[0]
        self.project, self.judges = project, judges
        super().__init__(data, initial=dict(initial or {}) | {"method": self.method})
        was_shown = data is None or data.get("shown", "") == self.method
        if self.asks:
            offered = [(str(judge.pk), _judge_label(judge)) for judge in judges]
            self.fields["judge"] = forms.ChoiceField(
                choices=offered,
                label="Whose endpoint and model are asked",
                required=was_shown,
                error_messages={"invalid_choice": "This judge cannot be asked.",
                                "required": "Choose the judge whose model is asked."},
            )  # fmt: skip
        self.options: type[BaseModel] = GENERATORS[self.method].load_options()
        self._add_pairs(was_shown)
        self._add_options(was_shown)

    def _add_pairs(self, was_shown: bool) -> None:
        default = self.options.model_fields.get("pairs")
        if default is not None:
            self.fields["pairs"].initial = min(default.default, induction.PAIRS)
        # Without a script the method can change after its number was filled in.
        self.fields["pairs"].disabled = not was_shown

    def _add_options(self, was_shown: bool) -> None:
        """``initial`` is not looked at: what it calls "judge" is none of a method's options."""
        for name in self.names:
            info = self.options.model_fields[name]
            field = form_field(name, info)
            field.required = False
            field.initial = info.get_default(call_default_factory=True)
            field.disabled = not was_shown
            if isinstance(field.widget, forms.Textarea):
                field.widget.attrs["rows"] = 2
            self.fields[PREFIX + name] = field

    @property
    def names(self) -> list[str]:
        """The options that are asked for."""
        hidden = NOT_ASKED.get(self.method, frozenset()) | {"pairs"}
        return [name for name in self.options.model_fields if name not in hidden]

    @property
    def asks(self) -> bool:
        return induction.needs_model(self.method)

    @property
    def reads_images(self) -> bool:
        return self.project.modality == Project.Modality.IMAGE

    @property
    def method_choices(self) -> list[tuple[str, Method, bool, int]]:
        """(key, method, whether chosen, calls a pair with its defaults; 0 asks no model)."""
        found = []
        for key, row in GENERATORS.items():
            options = row.load_options().model_validate(induction.ALREADY.get(key, {}))
            found.append((key, row, key == self.method, round(costs.per_pair(key, options))))
        return found

    @property
    def why(self) -> str:
        """Why the method is preselected; empty where somebody chose another."""
        key, why = default_method(self.project, self.judges)
        return why if key == self.method else ""

    @property
    def rubric_names(self) -> list[str]:
        return [rubric.name for rubric in rubrics_offered(self.project)]

    @property
    def first_fields(self) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in self.names if name in FIRST]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in self.names if name not in FIRST]

    @property
    def more_is_open(self) -> bool:
        return any(field.errors for field in self.more_fields)

    @property
    def budget_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in BUDGETS]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            self.options.model_validate(self._given())
        except ValidationError as error:
            for one in error.errors():
                place = PREFIX + str(one["loc"][0]) if one["loc"] else ""
                if place not in self.errors:
                    message = one["msg"].removeprefix("Value error, ")
                    self.add_error(place if place in self.fields else None, message)
        return data

    def _given(self) -> dict[str, Any]:
        """What was filled in; an empty field is its default."""
        found = {name: self.cleaned_data.get(PREFIX + name) for name in self.names}
        return {name: value for name, value in found.items() if value not in (None, "", [])}

    @property
    def judge(self) -> Judge | None:
        """The judge chosen, of a form that is valid."""
        chosen = self.cleaned_data.get("judge", "")
        return next((one for one in self.judges if str(one.pk) == chosen), None)

    def _shared(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {
            "project": self.project,
            "method": self.method,
            "judge": self.judge,
            "raters": data["raters"],
            "pairs": data["pairs"],
            "budget": Budget(**{name: data[name] for name in BUDGETS}),
        }

    def values(self) -> dict[str, Any]:
        """What services.induction_plan.start is asked for."""
        options = induction_plan.with_pairs(self.method, self._given(), self.cleaned_data["pairs"])
        return self._shared() | {"options": options, "name": self.cleaned_data["name"]}

    def planned(self) -> dict[str, Any]:
        """What services.induction_plan.plan is asked for."""
        values = self.values()
        del values["name"]
        forced = induction.ALREADY.get(self.method, {})
        return values | {"options": self.options.model_validate(forced | values["options"])}


def default_method(project: Project, judges: Sequence[Judge]) -> tuple[str, str]:
    """(key, why it and no other)."""
    if project.modality == Project.Modality.IMAGE:
        return "autorubric-t2i", "AutoRubric-T2I is preselected: the answers are images."
    if not judges:
        return "program", "Programs are preselected: no judge can be asked, and they need none."
    return "autorule", "AutoRule is preselected: it needs no written reasons, and few calls a pair."


def _judge_label(judge: Judge) -> str:
    model = judge.options.get("models", [judge.model])[0]
    return f"{judge}: {model} at {judge.endpoint}"
