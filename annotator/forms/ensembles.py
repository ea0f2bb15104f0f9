"""A form: how one score is made of the members of an ensemble."""

from __future__ import annotations

from typing import Any

from django import forms

from annotator.errors import Invalid
from annotator.services.ensembles import LARGEST_PENALTY, Way
from models.transforms import COMBINATIONS, PENALTY


class WayForm(forms.Form):
    """Both fields may be left out: the mean, and the usual penalty."""

    combine = forms.ChoiceField(
        label="Score",
        required=False,
        choices=[(key, words.rstrip(".")) for key, words in COMBINATIONS.items()],
    )
    penalty = forms.FloatField(
        label="Penalty",
        required=False,
        min_value=0,
        max_value=LARGEST_PENALTY,
        initial=PENALTY,
        help_text="What the variance of the members counts where it is penalized.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )

    @classmethod
    def of(cls, way: Way) -> WayForm:
        return cls(initial=way.as_json())


def read_way(data: Any) -> Way:
    """What was sent. Raises Invalid."""
    form = WayForm(data)
    if not form.is_valid():
        name, problems = next(iter(form.errors.items()))
        raise Invalid(f"{name.capitalize()}: {problems[0]}")
    return Way.checked(form.cleaned_data["combine"] or "mean", form.cleaned_data["penalty"])
