"""The form that has a reward model evaluated: on which pairs, beside whom, by which gold."""

from __future__ import annotations

from typing import Any

from django import forms

from annotator.models import RewardModel, Split
from annotator.queries import evaluations
from annotator.queries.evaluation_pairs import LIMIT, MAX_NAME, MOST
from annotator.services.reward_evaluation import PEOPLE


class EvaluateForm(forms.Form):
    """What ``services.reward_evaluation.start`` is asked for."""

    splits = forms.MultipleChoiceField(
        label="Splits",
        choices=Split.choices,
        initial=[Split.TEST.value],
        widget=forms.CheckboxSelectMultiple,
        help_text="Models learn from the train split: an accuracy on it is no held-out one.",
        error_messages={"required": "Choose at least one split."},
    )
    import_run = forms.TypedChoiceField(
        label="Import", coerce=int, empty_value=None, required=False,
        help_text="Only pairs that this import brought, such as a benchmark.",
    )  # fmt: skip
    tag = forms.CharField(
        label="Tag", required=False, max_length=MAX_NAME,
        help_text="Only prompts with this tag.",
    )  # fmt: skip
    most = forms.IntegerField(
        label="Most pairs", min_value=1, max_value=LIMIT, initial=MOST,
        help_text="Of more, whole prompts are drawn; a larger sample holds the smaller one.",
    )  # fmt: skip
    against = forms.MultipleChoiceField(
        label="Beside", required=False, widget=forms.CheckboxSelectMultiple,
        help_text="“Longer answer wins” and the human ceiling always are. A model that has not"
        " scored these answers does so first.",
    )  # fmt: skip
    gold = forms.ChoiceField(
        label="Gold of best of n",
        help_text="Who says how good the answers are that the model picks. It should not have"
        " learned from the same pairs.",
    )

    def __init__(self, data: Any = None, *, model: RewardModel, initial: Any = None) -> None:
        known = evaluations.choices(model)
        given = {"against": [one.key for one in known if one.has_scores]} | (initial or {})
        super().__init__(data, initial=given)
        offered = [(one.key, one.label) for one in known]
        self.fields["against"].choices = offered
        self.fields["gold"].choices = [(PEOPLE, "What people said"), *offered]
        self.fields["import_run"].choices = [
            ("", "All pairs"),
            *((pk, f"Run {pk}, {title}") for pk, title in evaluations.imports(model.project)),
        ]
        if not offered:
            del self.fields["against"]

    def settings(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {
            "splits": data["splits"],
            "tag": data["tag"],
            "import_run": data["import_run"],
            "most": data["most"],
            "against": data.get("against", []),
            "gold": data["gold"],
        }
