"""The form of one criterion, and the one that makes several into one."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.models import Criterion
from annotator.services.rubrics import MAX_TEXT
from rubrics.programs import PROGRAMS

POLARITIES: Final = ((1, "speaks for an answer"), (-1, "speaks against it"))
NO_PROGRAM: Final = ("", "–")


class CriterionForm(forms.Form):
    """What services.rubrics.add and edit take; the scope is left as it was."""

    text = forms.CharField(
        max_length=MAX_TEXT,
        label="Criterion",
        help_text="One sentence that is met or not met by an answer.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    polarity = forms.TypedChoiceField(
        coerce=int, choices=POLARITIES, initial=1, label="A yes", required=True
    )
    weight = forms.FloatField(
        required=False,
        min_value=-1000,
        max_value=1000,
        label="Weight",
        help_text="Signed for a yes. Empty: it counts like every other.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    verifier = forms.ChoiceField(
        choices=Criterion.Verifier.choices, initial=Criterion.Verifier.LLM, label="Checked by"
    )
    program = forms.CharField(
        required=False,
        max_length=40,
        label="Program or reward model",
        help_text="The program’s key, or the number of the reward model.",
        widget=forms.TextInput(attrs={"list": "programs", "spellcheck": "false"}),
    )
    theme = forms.CharField(required=False, max_length=200, label="Theme")

    def values(self) -> dict[str, Any]:
        """Fields of a criterion; a program is kept only for those who check by one."""
        found = dict(self.cleaned_data)
        if found["verifier"] not in (Criterion.Verifier.PROGRAM, Criterion.Verifier.REWARD_MODEL):
            found["program"] = ""
        return found


def of_criterion(criterion: Criterion, data: Any = None) -> CriterionForm:
    """The form that edits a criterion, with ids of its own."""
    initial = {name: getattr(criterion, name) for name in CriterionForm.base_fields}
    return CriterionForm(data, initial=initial, auto_id=f"id_{criterion.pk}_%s")


def programs() -> list[tuple[str, str]]:
    """(key, words) of every program, for a list of suggestions."""
    return [(key, row.label) for key, row in PROGRAMS.items()]
